"""The audit checks that ended sagas were all or nothing, by what the participants' own records say.

The saga log is not believed here, because it is what is checked: a saga's end says what each participant must have.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from saga.definition import NO_RECORDS, ONE_RECORD, SOME_RECORDS, UNCHECKED, Step
from saga.http_client.transport import Transport
from saga.machine import State
from saga.saga_row import SagaRow, Stored
from saga.unreadable import Unreadable
from saga.urls import masked
from saga.views.records import REQUESTS_AT_ONCE, ask, records_url

RECORDS_SECONDS = 5.0  # how long a participant may take to show its records


def audit(ended: Iterable[Stored], transport: Transport, token: str | None) -> dict[str, Any]:
    """Return {"checked", "violations", "unreachable"} for sagas that have ended.

    A violation is a step whose participant has another number of records than `expected` says. A saga of which a
    participant could not be asked is listed in "unreachable" and not counted in "checked". Sagas that this version
    cannot read are not checked; where there are any, "unreadable" counts them.
    """
    checked, violations, unreachable, sagas = 0, [], [], list(ended)
    readable = [saga for saga in sagas if not isinstance(saga, Unreadable)]
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        for wrong, silent in pool.map(lambda row: _check(row, transport, token), readable):
            checked += not silent
            violations += wrong
            unreachable += silent
    unreadable = {"unreadable": len(sagas) - len(readable)} if len(readable) < len(sagas) else {}
    return {"checked": checked, "violations": violations, "unreachable": unreachable, **unreadable}


@dataclass(frozen=True)
class Expected:
    """How many records a participant must have: from `least` to `most` (None: no limit), in `words` for people."""

    least: int
    most: int | None
    words: str


_NO_RECORD = Expected(0, 0, "no record")
_OF_COMPLETED = {
    ONE_RECORD: Expected(1, 1, "one record"),
    SOME_RECORDS: Expected(1, None, "at least one record"),
    NO_RECORDS: _NO_RECORD,
}


def expected(step: Step, state: State) -> Expected | None:
    """Return what a step's participant must have of a saga that ended in `state`; None means that it is not asked.

    Of a completed saga it must have what the step's `records` says. Of a compensated saga it must have no record,
    except where the step has no compensation, because then nothing was promised.
    """
    if step.records == UNCHECKED:
        return None
    if state is State.COMPLETED:
        return _OF_COMPLETED[step.records]
    return _NO_RECORD if step.compensation is not None or step.unsaid or step.records == NO_RECORDS else None


def violation(row: SagaRow, step: Step, found: int) -> dict[str, Any] | None:
    """Return the violation where a step's participant has `found` records; None where that is right.

    A saga that has not ended violates nothing yet.
    """
    wanted = expected(step, row.state) if row.ended else None
    if wanted is None or (found >= wanted.least and (wanted.most is None or found <= wanted.most)):
        return None
    place = {"saga_id": row.id, "step": step.name}
    return {**place, "status": row.state.upper(), "expected": wanted.words, "found": found}


def _check(row: SagaRow, transport: Transport, token: str | None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the violations of one saga, and its steps whose participants could not be asked."""
    wrong, silent = [], []
    for step in row.definition.steps:
        if expected(step, row.state) is None:
            continue
        url = records_url(step, row.id)
        answer = ask(url, transport, token, RECORDS_SECONDS)
        if answer is None:
            silent.append({"saga_id": row.id, "step": step.name, "url": masked(url)})
        elif found := violation(row, step, len(answer["records"])):
            wrong.append(found)
    return wrong, silent
