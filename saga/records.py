"""What a participant itself has of a saga: the rows and the barrier row that GET /records/<saga_id> shows."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urljoin

import requests

from saga.definition import SagaDefinition, Step
from saga.errors import BadInput
from saga.payload import DEPTH, WRAPPED, parse_object

AT_ONCE = 8  # requests


def records_url(step: Step, saga_id: str) -> str:
    """Where a participant shows what it has of a saga: /records/<saga_id>, beside its action."""
    return urljoin(step.action, f"records/{quote(saga_id, safe='')}")


def session(token: str | None) -> requests.Session:
    """For a number of questions at once."""
    made = requests.Session()
    if token:
        made.headers["Authorization"] = f"Bearer {token}"
    made.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE))
    return made


def ask(url: str, asking: requests.Session, timeout: float) -> Mapping[str, Any] | None:
    """{"records": […], "barrier": […]}; None where the participant does not say."""
    try:
        answer = asking.get(url, timeout=timeout)
        found = parse_object(answer.content, strict=False, depth=DEPTH + WRAPPED) if answer.ok else {}
        return found if isinstance(found.get("records"), list) else None
    except (requests.RequestException, BadInput):
        return None


def ask_all(
    definition: SagaDefinition, saga_id: str, token: str | None, timeout: float
) -> dict[str, Mapping[str, Any] | None]:
    """What every participant of a saga has of it, by step."""
    with session(token) as asking, ThreadPoolExecutor(AT_ONCE) as pool:
        urls = [records_url(step, saga_id) for step in definition.steps]
        answers = pool.map(lambda url: ask(url, asking, timeout), urls)
        return {step.name: answer for step, answer in zip(definition.steps, answers, strict=True)}
