"""This module asks participants for their records and barrier rows of a saga: `GET /records/<saga_id>`."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urljoin

from saga.call import authorization
from saga.definition import SagaDefinition, Step
from saga.errors import BadInput
from saga.http_client.transport import Transport
from saga.payload import LEVELS_ADDED, LEVELS_AT_MOST, parse_object

REQUESTS_AT_ONCE = 8  # requests that are made side by side


def records_url(step: Step, saga_id: str) -> str:
    """Return where a step's participant shows its records of a saga: /records/<saga_id>, beside the action's URL."""
    return urljoin(step.action, f"records/{quote(saga_id, safe='')}")


def ask(url: str, transport: Transport, token: str | None, timeout: float) -> Mapping[str, Any] | None:
    """Return {"records": […], "barrier": […]} as the participant answers.

    None means that it gave no such answer within `timeout` seconds.
    """
    answer = transport.get(url, authorization(url, token), timeout)
    if answer.failure is not None or answer.status != 200:
        return None
    try:
        found = parse_object(answer.body, strict=False, depth=LEVELS_AT_MOST + LEVELS_ADDED)
    except BadInput:
        return None
    return found if isinstance(found.get("records"), list) else None


def ask_all(
    definition: SagaDefinition, saga_id: str, transport: Transport, token: str | None, timeout: float
) -> dict[str, Mapping[str, Any] | None]:
    """Return what every participant of a saga answers, by the step's name; None for one that gave no answer."""
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        urls = [records_url(step, saga_id) for step in definition.steps]
        answers = pool.map(lambda url: ask(url, transport, token, timeout), urls)
        return {step.name: answer for step, answer in zip(definition.steps, answers, strict=True)}
