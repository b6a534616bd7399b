"""What a saga's state lets an operator do to it. Pure."""

from __future__ import annotations

from saga.log import Record
from saga.machine import STALLED, State

WAITING_FOR_THE_PIVOT = (State.DECIDING, State.STALLED_DECIDING)
CANCELLABLE = (State.EXECUTING, *WAITING_FOR_THE_PIVOT)

REFUSALS = {
    "cancel": "it cannot be cancelled any more",
    "resume": "there is nothing to resume",
    "resolve": "there is nothing to resolve",
}


def permitted(record: Record) -> set[str]:
    """The verbs that the state of a saga allows now."""
    if record.definition.choreographed:
        return {"resume"} if record.context.parked and not record.ended else set()
    verbs = {"resume", "resolve"} if record.state in STALLED else set()
    if record.state in CANCELLABLE and not record.context.cancelled:
        verbs.add("cancel")
    return verbs


def refusal(verb: str, record: Record) -> str | None:
    """Why the state of a saga does not allow `verb`; None where it does."""
    if verb in permitted(record):
        return None
    if verb == "cancel" and record.context.cancelled:
        return "it was cancelled before"
    return f"{REFUSALS[verb]}: it is {record.state}"
