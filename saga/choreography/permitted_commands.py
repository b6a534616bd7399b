"""What the state of a choreographed saga permits an operator to do. Pure."""

from __future__ import annotations

from saga.record import Record
from saga.runtime.permitted_commands import REFUSALS


def permitted_commands(record: Record) -> set[str]:
    """The commands that the state of the saga permits now: nobody is in charge of it, so there are few."""
    if record.ended:
        return set()
    return ({"resume"} if record.context.parked else set()) | (set() if record.context.heard else {"abandon"})


def refusal(command: str, record: Record) -> str | None:
    """Why the state of the saga does not permit `command`; None where it does."""
    if command in permitted_commands(record):
        return None
    if command == "abandon" and not record.ended:
        return f"{REFUSALS[command]}: a service has acted, or has tried to, and its log says so"
    return f"{REFUSALS[command]}: it is {record.state}"


def instead(record: Record) -> str:
    """Why the saga cannot be cancelled or resolved, and what an operator can do to it instead."""
    said = "nobody is in charge of a choreographed saga, so it cannot be cancelled or resolved"
    if record.ended:
        return f"{said}; it has ended: it is {record.state}"
    can = permitted_commands(record)
    ways = [
        *(["`resume` replays its parked events"] if "resume" in can else []),
        *(["`abandon` ends it, as long as no service has heard of it"] if "abandon" in can else []),
    ]
    return f"{said}; {', and '.join(ways) or 'its services go on with it by themselves, once they are up'}"
