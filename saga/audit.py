"""All or nothing, as the participants' own records tell it: the orchestrator's word is what is being checked."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import requests

from saga.log import Record, Stored
from saga.machine import State
from saga.records import AT_ONCE, ask, records_url, session

TIMEOUT = 5.0  # seconds


def audit(ended: Iterable[Stored], token: str | None) -> dict[str, Any]:
    """{"checked", "violations", "unreachable", "unreadable"} for sagas that have ended.

    Those that cannot be read are counted as unreadable, and not checked. A violation is a step of a completed saga
    without a record, or one of a compensated saga with one. Sagas of which a participant could not be asked are in
    "unreachable", and not in "checked".
    """
    checked, violations, unreachable, sagas = 0, [], [], list(ended)
    readable = [saga for saga in sagas if isinstance(saga, Record)]
    with session(token) as asking, ThreadPoolExecutor(AT_ONCE) as pool:
        for wrong, silent in pool.map(lambda record: _check(record, asking), readable):
            checked += not silent
            violations += wrong
            unreachable += silent
    unreadable = len(sagas) - len(readable)
    return {"checked": checked, "violations": violations, "unreachable": unreachable, "unreadable": unreadable}


def _check(record: Record, asking: requests.Session) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    wrong, silent = [], []
    completed = record.state is State.COMPLETED
    for step in record.definition.steps:
        if not completed and step.compensation is None:
            continue  # nothing was promised of a step that cannot be undone
        place = {"saga_id": record.id, "step": step.name}
        url = records_url(step, record.id)
        answer = ask(url, asking, TIMEOUT)
        if answer is None:
            silent.append({**place, "url": url})
            continue
        found = len(answer["records"])
        if completed != (found > 0) or found > 1:
            expected = "one record" if completed else "no record"
            wrong.append({**place, "status": record.state.upper(), "expected": expected, "found": found})
    return wrong, silent
