"""What the query of a list of sagas may say, for the API and for the pages; BadInput names what is wrong in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from saga.errors import BadInput
from saga.machine import State
from saga.representation import PUBLIC_STATUS

_SAGA_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def states_in(arguments: Mapping[str, str]) -> list[State]:
    """The states of the public status that `status` names, in either case; none where there is no `status`."""
    status = arguments.get("status")
    if status is None:
        return []
    states = [state for state, public in PUBLIC_STATUS.items() if public == status.upper()]
    if not states:
        known = ", ".join(dict.fromkeys(PUBLIC_STATUS.values()))
        raise BadInput(f"status: there is no status {status!r}; they are {known}", "status")
    return states


def before_in(arguments: Mapping[str, str]) -> str:
    """The saga id in `before`, after which the next page begins; empty where there is none."""
    before = arguments.get("before", "")
    if before and not _SAGA_ID.fullmatch(before.lower()):
        raise BadInput(f"before must be the saga_id that a page of the list ended with, not {before!r}", "before")
    return before.lower()


def attention_in(arguments: Mapping[str, str]) -> bool:
    """Whether only sagas that need attention are asked for."""
    attention = arguments.get("attention", "")
    if attention not in ("", "1"):
        raise BadInput(f"attention must be 1 or left out, not {attention!r}", "attention")
    return attention == "1"
