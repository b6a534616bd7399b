"""All or nothing, as the participants' own records tell it: the orchestrator's word is what is being checked."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urljoin

import requests

from saga.definition import Step
from saga.log import Record
from saga.machine import State

TIMEOUT = 5.0  # seconds
AT_ONCE = 8  # requests


def audit(ended: Iterable[Record], token: str | None) -> dict[str, Any]:
    """{"checked", "violations", "unreachable"} for sagas that have ended.

    A violation is a step of a completed saga without a record, or one of a compensated saga with one. Sagas of
    which a participant could not be asked are in "unreachable", and not in "checked".
    """
    checked, violations, unreachable = 0, [], []
    session = requests.Session()
    if token:
        session.headers["Authorization"] = f"Bearer {token}"
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=AT_ONCE))
    with session, ThreadPoolExecutor(AT_ONCE) as pool:
        for wrong, silent in pool.map(lambda record: _check(record, session), ended):
            checked += not silent
            violations += wrong
            unreachable += silent
    return {"checked": checked, "violations": violations, "unreachable": unreachable}


def _check(record: Record, session: requests.Session) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    wrong, silent = [], []
    completed = record.state is State.COMPLETED
    for step in record.definition.steps:
        if not completed and step.compensation is None:
            continue  # nothing was promised of a step that cannot be undone
        place = {"saga_id": record.id, "step": step.name}
        found = _records(step, record.id, session)
        if found is None:
            silent.append({**place, "url": records_url(step, record.id)})
        elif completed != (found > 0) or found > 1:
            expected = "one record" if completed else "no record"
            wrong.append({**place, "status": record.state.upper(), "expected": expected, "found": found})
    return wrong, silent


def _records(step: Step, saga_id: str, session: requests.Session) -> int | None:
    """How many records a participant has of this saga; None where it does not say."""
    try:
        answer = session.get(records_url(step, saga_id), timeout=TIMEOUT)
        return len(answer.json()["records"]) if answer.ok else None
    except (requests.RequestException, ValueError, KeyError, TypeError):
        return None


def records_url(step: Step, saga_id: str) -> str:
    """Where a participant shows what it has of a saga: /records/<saga_id>, beside its action."""
    return urljoin(step.action, f"records/{quote(saga_id, safe='')}")
