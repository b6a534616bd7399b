"""What the query of a list of sagas may say, for the API and for the pages; BadInput names what is wrong in it."""

from __future__ import annotations

import re
from collections.abc import Mapping

from saga.errors import BadInput
from saga.machine import State
from saga.unreadable import UNREADABLE
from saga.views.representation import PUBLIC_STATUS, STATUSES

_SAGA_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def status_in(arguments: Mapping[str, str]) -> tuple[list[State], bool | None]:
    """What the public status that `status` names, in either case, stands for.

    Gives its states, none where there is no `status`, and whether only readable or only unreadable sagas have it.
    """
    status = arguments.get("status")
    if status is None:
        return [], None
    if status.upper() == UNREADABLE:
        return [], False
    states = [state for state, public in PUBLIC_STATUS.items() if public == status.upper()]
    if not states:
        raise BadInput(f"status: there is no status {status!r}; they are {', '.join(STATUSES)}", "status")
    return states, True


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
