"""The check of an event's body: its fields must have the shapes that docs/participants.md gives. Pure.

Any service may publish events, in any language, so nothing about them is taken for granted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from saga.errors import BadInput
from saga.payload import LEVELS_ADDED, LEVELS_AT_MOST, parse_object

# A shape in words, for the message, and the test whether a value has it.
Shape = tuple[str, Callable[[Any], bool]]

END_OF_TIME = 253_402_300_799  # 9999-12-31, in seconds since the epoch
MOST = 2**31 - 1  # the largest number that a column of the log takes


def _number(value: Any, least: int, most: int) -> bool:
    return type(value) in (int, float, Decimal) and bool(least <= value <= most)


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MOST


def _senders(value: Any) -> bool:
    lists = value.values() if isinstance(value, dict) else (None,)
    return all(isinstance(senders, list) and all(type(sender) is int for sender in senders) for senders in lists)


def _flags(value: Any) -> bool:
    """Return whether this is {"B": {"action": [["fail", "after"]]}}, or the like."""
    if not isinstance(value, dict) or not all(isinstance(calls, dict) for calls in value.values()):
        return False
    flags = [flags for calls in value.values() for flags in calls.values()]
    return all(isinstance(pairs, list) and all(_TEXTS[1](pair) and len(pair) == 2 for pair in pairs) for pairs in flags)


def _or_null(shape: Shape) -> Shape:
    words, fits = shape
    return f"{words} or null", lambda value: value is None or fits(value)


def _one_of(*values: str) -> Shape:
    return " or ".join(values), lambda value: isinstance(value, str) and value in values


_OBJECT: Shape = ("an object", lambda value: isinstance(value, dict))
_TEXT: Shape = ("a string", lambda value: isinstance(value, str))
_TEXTS: Shape = ("an array of strings", lambda value: isinstance(value, list) and all(map(_TEXT[1], value)))
_WHOLE: Shape = ("a whole number", _whole)
_STATUS, _MESSAGE = _or_null(_WHOLE), _or_null(_TEXT)
_ATTEMPT: Mapping[str, Shape] = {
    "call": _one_of("action", "compensation"),
    "number": _WHOLE,
    "verdict": _one_of("done", "refused", "unknown"),
    "status_code": _STATUS,
    "duration_ms": _or_null(("a number of milliseconds", lambda value: _number(value, -MOST, MOST))),
    "message": _MESSAGE,
}
_ERROR: Mapping[str, Shape] = {
    "kind": _one_of("refused", "failed", "timeout", "cancelled"),
    "status_code": _STATUS,
    "message": _MESSAGE,
}
_EVENT: Mapping[str, Shape] = {
    "at": _or_null(("a number of seconds since the epoch", lambda value: _number(value, 0, END_OF_TIME))),
    "fields": _OBJECT,
    "given": ("an object of arrays of whole numbers", _senders),
    "faults": ("an object of each step's injected flags", _flags),
    "steps": _TEXTS,
    "result": _or_null(_OBJECT),
    "attempt": _or_null(_OBJECT),
    "error": _or_null(_OBJECT),
    **_ATTEMPT,
}


def check(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of an event, its times as floats, which have all the digits that a time needs.

    Raises BadInput, naming the field, where a field has another shape than it must.
    """
    _check(body, _EVENT, "")
    _check(body.get("attempt") or {}, _ATTEMPT, "attempt.")
    _check(body.get("error") or {}, _ERROR, "error.")
    timed = _in_doubles(body)
    if body.get("attempt"):
        timed["attempt"] = _in_doubles(body["attempt"])
    return timed


def _in_doubles(part: Mapping[str, Any]) -> dict[str, Any]:
    times = {name: float(part[name]) for name in ("at", "duration_ms") if isinstance(part.get(name), Decimal)}
    return {**part, **times}


def _check(part: Mapping[str, Any], shapes: Mapping[str, Shape], path: str) -> None:
    for name, (words, fits) in shapes.items():
        if name in part and not fits(part[name]):
            raise BadInput(f"{path}{name} must be {words}", f"{path}{name}")


def saga_id_of(payload: bytes) -> str | None:
    """Return the saga id that a payload names; None where it names none, as it may be no event at all."""
    try:
        found = parse_object(payload, depth=LEVELS_AT_MOST + LEVELS_ADDED, strict=False).get("saga_id")
    except BadInput:
        return None
    return found if isinstance(found, str) else None
