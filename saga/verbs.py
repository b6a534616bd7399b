"""What a saga's state lets an operator do to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saga.log import Record
from saga.machine import ACTING, CANCEL_REQUESTED, STALLED, Event, Line, State
from saga.representation import parked

WAITING_FOR_THE_PIVOT = (State.DECIDING, State.STALLED_DECIDING)
CANCELLABLE = (State.EXECUTING, *WAITING_FOR_THE_PIVOT)

BY = {"by": "operator"}
REFUSALS = {
    "cancel": "it cannot be cancelled any more",
    "resume": "there is nothing to resume",
    "resolve": "there is nothing to resolve",
}


def permitted(record: Record, lines: Sequence[Line]) -> set[str]:
    """The verbs that the state of a saga allows now."""
    if record.definition.choreographed:
        return {"resume"} if parked(lines) and not record.ended else set()
    verbs = {"resume", "resolve"} if record.state in STALLED else set()
    if record.state in CANCELLABLE and not cancelled(lines):
        verbs.add("cancel")
    return verbs


def refusal(verb: str, record: Record, lines: Sequence[Line]) -> str | None:
    """Why the state of a saga does not allow `verb`; None where it does."""
    if verb in permitted(record, lines):
        return None
    if verb == "cancel" and cancelled(lines):
        return "it was cancelled before"
    return f"{REFUSALS[verb]}: it is {record.state}"


def takes_no_result(record: Record) -> str | None:
    """Why the stalled call of a saga cannot be given a result by hand; None where it is an action."""
    if record.state in ACTING:
        return None
    step = record.definition.steps[record.cursor].name
    return f"result: the call that stalled is the compensation of {step}, which gives later steps nothing"


def resolved_by_hand(note: str, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the log says of a call that an operator has resolved; the result itself is kept with those of the steps."""
    return {**BY, "note": note, **({"with_result": True} if result is not None else {})}


def cancelled(lines: Sequence[Line]) -> bool:
    """Whether somebody has asked for it."""
    return any(line.event in (Event.CANCELLED, CANCEL_REQUESTED) for line in lines)
