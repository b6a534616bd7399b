"""What a saga's state lets an operator do to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saga.log import Record
from saga.machine import ACTING, CANCEL_REQUESTED, FAULT, OVERDUE, PARKED, STALLED, STARTED, Event, Line, State
from saga.representation import parked

WAITING_FOR_THE_PIVOT = (State.DECIDING, State.STALLED_DECIDING)
CANCELLABLE = (State.EXECUTING, *WAITING_FOR_THE_PIVOT)

BY = {"by": "operator"}
REFUSALS = {
    "cancel": "it cannot be cancelled any more",
    "resume": "there is nothing to resume",
    "resolve": "there is nothing to resolve",
    "abandon": "it cannot be abandoned",
}

ITS_STARTER = "orchestrator"  # parks what it cannot publish: then no service has heard of it
_UNHEARD = frozenset({STARTED, OVERDUE, FAULT})  # lines that no service has caused


def permitted(record: Record, lines: Sequence[Line]) -> set[str]:
    """The verbs that the state of a saga allows now."""
    if record.definition.choreographed:
        if record.ended:
            return set()
        return ({"resume"} if parked(lines) else set()) | ({"abandon"} if unheard(lines) else set())
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
    if verb == "abandon" and not record.definition.choreographed:
        return f"{REFUSALS[verb]}: only a choreographed saga can be, and this one can be cancelled"
    if verb == "abandon" and not record.ended:
        return f"{REFUSALS[verb]}: a service has acted, or has tried to, and its log says so"
    return f"{REFUSALS[verb]}: it is {record.state}"


def unheard(lines: Sequence[Line]) -> bool:
    """Whether, as far as its log tells, no service has heard of a choreographed saga."""

    def by_its_starter(line: Line) -> bool:
        return line.event == PARKED and (line.detail or {}).get("service") == ITS_STARTER

    return all(line.event in _UNHEARD or by_its_starter(line) for line in lines)


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


def instead(record: Record, lines: Sequence[Line]) -> str:
    """What an operator can do to a choreographed saga, which nobody can cancel or resolve."""
    said = "nobody is in charge of a choreographed saga, so it cannot be cancelled or resolved"
    if record.ended:
        return f"{said}; it has ended: it is {record.state}"
    can = permitted(record, lines)
    ways = [
        *(["`resume` replays its parked events"] if "resume" in can else []),
        *(["`abandon` ends it, as long as no service has heard of it"] if "abandon" in can else []),
    ]
    return f"{said}; {', and '.join(ways) or 'its services go on with it by themselves, once they are up'}"
