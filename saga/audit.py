"""All or nothing, as the participants' own records tell it: the orchestrator's word is what is being checked."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from saga.log import Record
from saga.machine import State
from saga.records import AT_ONCE, ask, records_url
from saga.transport import Transport
from saga.urls import masked

TIMEOUT = 5.0  # seconds


def audit(ended: Iterable[Record], transport: Transport, token: str | None) -> dict[str, Any]:
    """{"checked", "violations", "unreachable"} for sagas that have ended.

    A violation is a step of a completed saga without a record, or one of a compensated saga with one. Sagas of
    which a participant could not be asked are in "unreachable", and not in "checked".
    """
    checked, violations, unreachable = 0, [], []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for wrong, silent in pool.map(lambda record: _check(record, transport, token), ended):
            checked += not silent
            violations += wrong
            unreachable += silent
    return {"checked": checked, "violations": violations, "unreachable": unreachable}


def _check(
    record: Record, transport: Transport, token: str | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    wrong, silent = [], []
    completed = record.state is State.COMPLETED
    for step in record.definition.steps:
        if not completed and step.compensation is None and not step.unsaid:
            continue  # nothing was promised of a step that is not undone
        place = {"saga_id": record.id, "step": step.name}
        url = records_url(step, record.id)
        answer = ask(url, transport, token, TIMEOUT)
        if answer is None:
            silent.append({**place, "url": masked(url)})
            continue
        found = len(answer["records"])
        if completed != (found > 0) or found > 1:
            expected = "one record" if completed else "no record"
            wrong.append({**place, "status": record.state.upper(), "expected": expected, "found": found})
    return wrong, silent
