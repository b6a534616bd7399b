"""The flags and headers of a request, checked; every function raises BadInput, which names what is wrong."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime

from flask import request

from saga.definition import BUILTIN, MODES, TEMPORAL
from saga.errors import BadInput
from saga.machine import State
from saga.unreadable import UNREADABLE
from saga.views.representation import PUBLIC_STATUS, STATUSES
from saga.views.saga_filter import KINDS, NEWEST, SORTS, SagaQuery

ENGINES = (BUILTIN, TEMPORAL)
_SAGA_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def check_flags(*known: str) -> None:
    """Refuse a query that has any flag but these."""
    for name in request.args:
        if name not in known:
            raise BadInput(f"there is no flag {name!r}; the flags are {', '.join(known)}", name)


def whole_number_in(name: str, default: int, least: int, most: int) -> int:
    """Return the whole number in the flag `name`."""
    return int(_number_in(name, r"\d{1,9}", default, least, most))


def seconds_in(name: str, default: float, most: float) -> float:
    """Return the number of seconds in the flag `name`, which may have decimals."""
    return _number_in(name, r"\d{1,9}(\.\d{1,6})?", default, 0, most)


def _number_in(name: str, pattern: str, default: float, least: float, most: float) -> float:
    text = request.args.get(name)
    if text is None:
        return default
    if not re.fullmatch(pattern, text, re.ASCII) or not least <= float(text) <= most:
        raise BadInput(f"{name} must be a number from {least:g} to {most:g}, not {text!r}", name)
    return float(text)


def time_in(name: str) -> float | None:
    """Return the ISO 8601 time in the flag `name`, in seconds since the epoch; None where there is no such flag."""
    return time_of(name, request.args.get(name))


def time_of(name: str, text: str | None) -> float | None:
    """Return the time that an ISO 8601 text says, in UTC where it names no zone; None for None."""
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a + in a query is a space
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadInput(f"{name} must be a time like 2026-01-31T12:00:00Z, not {text!r}", name) from None


def prefers_async() -> bool:
    """Tell whether the request says `Prefer: respond-async` (RFC 7240)."""
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    return any(preference.split(";")[0].strip().lower() == "respond-async" for preference in preferences)


def idempotency_key() -> str | None:
    """Return the Idempotency-Key header; None where there is none.

    A key compares the same on every database: MySQL ignores blanks at the end of a text, so that none may be there.
    """
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (re.fullmatch(r"[\x20-\x7e]{1,255}", key) and key == key.strip()):
        what = "1 to 255 printable ASCII characters, neither the first nor the last of them a blank"
        raise BadInput(f"the header Idempotency-Key must be {what}", "Idempotency-Key")
    return key


def last_event_id() -> int | None:
    """Return the Last-Event-ID header, which a subscriber sends when it connects again; None where there is none."""
    last_seen = request.headers.get("Last-Event-ID")
    if last_seen is None:
        return None
    if not re.fullmatch(r"[0-9]{1,18}", last_seen):
        raise BadInput("the header Last-Event-ID must be the id of an event of this stream", "Last-Event-ID")
    return int(last_seen)


def status_in(arguments: Mapping[str, str]) -> tuple[list[State], bool | None]:
    """Return the states that the public status in `status` stands for, and whether the sagas that have it are readable.

    The status may be in upper or lower case. Without one there are no states, and None for readable or not.
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


def query_in(arguments: Mapping[str, str], most: int) -> SagaQuery:
    """The query that the arguments of a list of sagas say; no more than `most` are to be found."""
    states, readable = status_in(arguments)
    return SagaQuery(
        states=states,
        readable=readable,
        name=arguments.get("saga", ""),
        q=arguments.get("q", ""),
        before=before_in(arguments),
        most=most,
        mode=_one_of("mode", arguments, MODES),
        engine=_one_of("engine", arguments, ENGINES),
        step=arguments.get("step", ""),
        kind=_one_of("kind", arguments, KINDS),
        since=time_of("since", arguments.get("since")),
        until=time_of("until", arguments.get("until")),
        sort=_one_of("sort", arguments, SORTS) or NEWEST,
    )


def _one_of(name: str, arguments: Mapping[str, str], known: Collection[str]) -> str:
    value = arguments.get(name, "")
    if value and value not in known:
        raise BadInput(f"{name} must be {', '.join(known)}, not {value!r}", name)
    return value


def before_in(arguments: Mapping[str, str]) -> str:
    """Return the saga id in `before`, after which the next page of a list begins; empty where there is none."""
    before = arguments.get("before", "")
    if before and not _SAGA_ID.fullmatch(before.lower()):
        raise BadInput(f"before must be the saga_id that a page of the list ended with, not {before!r}", "before")
    return before.lower()


def attention_in(arguments: Mapping[str, str]) -> bool:
    """Tell whether only sagas that need attention are asked for."""
    attention = arguments.get("attention", "")
    if attention not in ("", "1"):
        raise BadInput(f"attention must be 1 or left out, not {attention!r}", "attention")
    return attention == "1"
