"""What a saga's state lets an operator do to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saga.machine import STALLED, STALLED_AT_AN_ACTION, State
from saga.saga_log import Record

WAITING_FOR_THE_PIVOT = (State.DECIDING, State.STALLED_DECIDING)
CANCELLABLE = (State.EXECUTING, *WAITING_FOR_THE_PIVOT)

BY = {"by": "operator"}
REFUSALS = {
    "cancel": "it cannot be cancelled any more",
    "resume": "there is nothing to resume",
    "resolve": "there is nothing to resolve",
    "abandon": "it cannot be abandoned",
}


def permitted_commands(record: Record) -> set[str]:
    """The commands that the state of a saga allows now."""
    if record.definition.choreographed:
        if record.ended:
            return set()
        return ({"resume"} if record.context.parked else set()) | (set() if record.context.heard else {"abandon"})
    commands = {"resume", "resolve"} if record.state in STALLED else set()
    if record.state in CANCELLABLE and not record.context.cancelled:
        commands.add("cancel")
    return commands


def refusal(command: str, record: Record) -> str | None:
    """Why the state of a saga does not allow `command`; None where it does."""
    if command in permitted_commands(record):
        return None
    if command == "cancel" and record.context.cancelled:
        return "it was cancelled before"
    if command == "abandon" and not record.definition.choreographed:
        return f"{REFUSALS[command]}: only a choreographed saga can be, and this one can be cancelled"
    if command == "abandon" and not record.ended:
        return f"{REFUSALS[command]}: a service has acted, or has tried to, and its log says so"
    return f"{REFUSALS[command]}: it is {record.state}"


def takes_no_result(record: Record) -> str | None:
    """Why the stalled call of a saga cannot be given a result by hand; None where it is an action."""
    if record.state in STALLED_AT_AN_ACTION:
        return None
    step = record.definition.steps[record.cursor].name
    return f"result: the call that stalled is the compensation of {step}, which gives later steps nothing"


def resolved_by_hand(note: str, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the log says of a call that an operator has resolved; the result itself is kept with those of the steps."""
    return {**BY, "note": note, **({"with_result": True} if result is not None else {})}


def instead(record: Record) -> str:
    """What an operator can do to a choreographed saga, which nobody can cancel or resolve."""
    said = "nobody is in charge of a choreographed saga, so it cannot be cancelled or resolved"
    if record.ended:
        return f"{said}; it has ended: it is {record.state}"
    can = permitted_commands(record)
    ways = [
        *(["`resume` replays its parked events"] if "resume" in can else []),
        *(["`abandon` ends it, as long as no service has heard of it"] if "abandon" in can else []),
    ]
    return f"{said}; {', and '.join(ways) or 'its services go on with it by themselves, once they are up'}"
