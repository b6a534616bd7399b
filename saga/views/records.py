"""What a participant itself has of a saga: the rows and the barrier row that GET /records/<saga_id> shows."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urljoin

from saga.call import authorization
from saga.definition import SagaDefinition, Step
from saga.errors import BadInput
from saga.http_client.transport import Transport
from saga.payload import DEPTH, WRAPPED, parse_object

AT_ONCE = 8  # requests


def records_url(step: Step, saga_id: str) -> str:
    """Where a participant shows what it has of a saga: /records/<saga_id>, beside its action."""
    return urljoin(step.action, f"records/{quote(saga_id, safe='')}")


def ask(url: str, transport: Transport, token: str | None, timeout: float) -> Mapping[str, Any] | None:
    """{"records": […], "barrier": […]}; None where the participant does not say, or takes more than `timeout` s."""
    answer = transport.get(url, authorization(url, token), timeout)
    if answer.failure is not None or answer.status != 200:
        return None
    try:
        found = parse_object(answer.body, strict=False, depth=DEPTH + WRAPPED)
    except BadInput:
        return None
    return found if isinstance(found.get("records"), list) else None


def ask_all(
    definition: SagaDefinition, saga_id: str, transport: Transport, token: str | None, timeout: float
) -> dict[str, Mapping[str, Any] | None]:
    """What every participant of a saga has of it, by step."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        urls = [records_url(step, saga_id) for step in definition.steps]
        answers = pool.map(lambda url: ask(url, transport, token, timeout), urls)
        return {step.name: answer for step, answer in zip(definition.steps, answers, strict=True)}
