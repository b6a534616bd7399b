"""These functions say what an operator may do to a saga that a process or a workflow drives, by its state. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saga.errors import SagaUnreadable
from saga.machine import STALLED, STALLED_AT_AN_ACTION, State
from saga.saga_row import SagaRow, Stored
from saga.unreadable import Unreadable

WAITING_FOR_THE_PIVOT = (State.DECIDING, State.STALLED_DECIDING)
CANCELLABLE = (State.EXECUTING, *WAITING_FOR_THE_PIVOT)

BY_OPERATOR = {"by": "operator"}
REFUSALS = {
    "cancel": "it cannot be cancelled any more",
    "resume": "there is nothing to resume",
    "resolve": "there is nothing to resolve",
    "abandon": "it cannot be abandoned",
}


def permitted_commands(row: SagaRow) -> set[str]:
    """Return the commands that the state of the saga permits now."""
    commands = {"resume", "resolve"} if row.state in STALLED else set()
    if row.state in CANCELLABLE and not row.context.cancelled:
        commands.add("cancel")
    return commands


def refusal(command: str, row: SagaRow) -> str | None:
    """Return why the state of the saga does not permit `command`; None where it does."""
    if command in permitted_commands(row):
        return None
    if command == "cancel" and row.context.cancelled:
        return "it was cancelled before"
    if command == "abandon":
        return f"{REFUSALS[command]}: only a choreographed saga can be, and this one can be cancelled"
    return f"{REFUSALS[command]}: it is {row.state}"


def readable(saga: Stored, command: str) -> SagaRow:
    """Return the saga, to which a command is to be given. Raises SagaUnreadable where it cannot be read."""
    if isinstance(saga, Unreadable):
        raise SagaUnreadable(f"{REFUSALS[command]}: it cannot be read: {saga.reason}")
    return saga


def takes_no_result(row: SagaRow) -> str | None:
    """Return why the stalled call of a saga cannot be given a result by hand; None where it is an action."""
    if row.state in STALLED_AT_AN_ACTION:
        return None
    step = row.definition.steps[row.cursor].name
    return f"result: the call that stalled is the compensation of {step}, which gives later steps nothing"


def resolved_by_hand(note: str, result: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the detail of the line of a call that an operator has resolved.

    The result is kept with those of the steps.
    """
    return {**BY_OPERATOR, "note": note, **({"with_result": True} if result is not None else {})}
