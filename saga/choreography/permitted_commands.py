"""The commands that a choreographed saga permits; for all others see saga/runtime/permitted_commands.py. Pure."""

from __future__ import annotations

from saga.runtime.permitted_commands import REFUSALS
from saga.saga_row import SagaRow


def permitted_commands(row: SagaRow) -> set[str]:
    """Return the commands that the state of the saga permits now."""
    if row.ended:
        return set()
    return ({"resume"} if row.context.parked else set()) | (set() if row.context.heard else {"abandon"})


def refusal(command: str, row: SagaRow) -> str | None:
    """Return why the state of the saga does not permit `command`; None where it does."""
    if command in permitted_commands(row):
        return None
    if command == "abandon" and not row.ended:
        return f"{REFUSALS[command]}: a service has acted, or has tried to, and its log says so"
    return f"{REFUSALS[command]}: it is {row.state}"


def instead(row: SagaRow) -> str:
    """Return why the saga cannot be cancelled or resolved, and what an operator can do to it instead."""
    said = "nobody is in charge of a choreographed saga, so it cannot be cancelled or resolved"
    if row.ended:
        return f"{said}; it has ended: it is {row.state}"
    can = permitted_commands(row)
    ways = [
        *(["`resume` replays its parked events"] if "resume" in can else []),
        *(["`abandon` ends it, as long as no service has heard of it"] if "abandon" in can else []),
    ]
    return f"{said}; {', and '.join(ways) or 'its services go on with it by themselves, once they are up'}"
