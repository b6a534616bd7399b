"""An `Unreadable` is a saga that this version cannot decode. It is a value, so that it stops no other saga. Pure.

It may have been written by a newer version (with a state, an event or a step's field that is unknown here), by hand,
or by a broken disk. Such a saga is left alone: it is shown with the reason and counted, and nobody drives it. A reason
names columns and types, never contents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import RowMapping

from saga.context import ContextError
from saga.definition import SagaDefinition, SnapshotError
from saga.machine import ENDED, NOTES, Event, Line, State
from saga.storage.column_types import Undecodable

UNREADABLE = "UNREADABLE"  # the public status, and the key of such a line's detail in lower case

Shape = tuple[str, Callable[[Any], bool]]  # (what a value must be, in words; whether a value is that)


@dataclass(frozen=True)
class Unreadable:
    """A saga whose row, or one of whose lines, cannot be decoded: the reason, and what could be read of it."""

    id: str
    reason: str
    name: str | None = None
    state: str | None = None  # as the column has it, also where this version does not know the state
    epoch: int | None = None
    owner: str | None = None
    due_at: float | None = None
    idempotency_key: str | None = None
    request_hash: str | None = None
    started_at: float | None = None
    ended_at: float | None = None
    snapshot: Mapping[str, Any] | None = None  # the definition, where it is a JSON object
    input: Mapping[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether its state is one in which nothing more happens to a saga."""
        return self.state in ENDED

    @property
    def secret(self) -> tuple[str, ...] | None:
        """The names of the fields that must not be shown; None where the snapshot does not say."""
        names = (self.snapshot or {}).get("secret")
        return (
            tuple(names) if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) else None
        )


@dataclass(frozen=True)
class UnreadableLine(Line):
    """A line that cannot be decoded. It has those fields that could be; `at` may be NaN, and `detail` says why."""

    @property
    def reason(self) -> str:
        """Why the line cannot be decoded."""
        return str(self.facts["unreadable"])


def _whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def _text(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _or_null(shape: Shape) -> Shape:
    return f"{shape[0]} or null", lambda value: value is None or shape[1](value)


_OBJECT: Shape = ("a JSON object", lambda value: isinstance(value, dict))
_TEXT: Shape = ("a text", _text)
_WHOLE: Shape = ("a whole number", _whole)
_TIME: Shape = ("a date and time", _number)
_FLAG: Shape = ("true or false", lambda value: isinstance(value, bool))

_COLUMNS: Mapping[str, Shape] = {
    "id": _TEXT,
    "name": _TEXT,
    "definition": _OBJECT,
    "input": _OBJECT,
    "state": _TEXT,
    "cursor": _WHOLE,
    "context": _OBJECT,
    "epoch": _WHOLE,
    "owner": _or_null(_TEXT),
    "due_at": _or_null(_TIME),
    "rounds": _WHOLE,
    "idempotency_key": _or_null(_TEXT),
    "request_hash": _or_null(_TEXT),
    "error": _or_null(_OBJECT),
    "started_at": _TIME,
    "ended_at": _or_null(_TIME),
    "deadline_at": _or_null(_TIME),
}
_CAUSE: Mapping[str, Shape] = {
    "step": _or_null(_TEXT),
    "kind": _TEXT,
    "status_code": _or_null(_WHOLE),
    "message": _or_null(_TEXT),
}
_LINE: Mapping[str, Shape] = {
    "seq": _WHOLE,
    "at": _TIME,
    "event": _TEXT,
    "step": _or_null(_TEXT),
    "attempt": _or_null(_WHOLE),
    "status_code": _or_null(_WHOLE),
    "duration_ms": _or_null(("a number", _number)),
    "detail": _or_null(_OBJECT),
}
_DETAIL: Mapping[str, Shape] = {
    **dict.fromkeys(("state", "call", "verdict", "fault", "subject", "note", "by", "service", "mode"), _TEXT),
    "message": _or_null(_TEXT),
    "interrupted": _FLAG,
    "letter": _WHOLE,
    "epoch": _WHOLE,
}
_EVENTS = frozenset({*Event, *NOTES})
_STATES = frozenset(State)


def row_problem(row: Mapping[str, Any]) -> str | None:
    """Return why the columns of a row of `sagas` cannot be read; None where they can."""
    reason = _misfit(row, _COLUMNS) or _misfit(row.get("error") or {}, _CAUSE, "error.")
    if reason:
        return reason
    if row["state"] not in _STATES:
        return f"the state {_quoted(row['state'])} is not known to this version"
    return None


def results_problem(results: Mapping[str, Any]) -> str | None:
    """Return why the results, by the step's name, cannot be read; None where they can."""
    return _misfit(results, dict.fromkeys(results, _OBJECT), "results.")


def position_problem(definition: SagaDefinition, state: State, cursor: int) -> str | None:
    """Return why no saga of this definition can be in this state at this cursor; None where one can."""
    steps = len(definition.steps)
    if state in ENDED:
        return None if -1 <= cursor <= steps else f"the cursor is {cursor}, of {steps} steps"
    return None if 0 <= cursor < steps else f"the cursor is {cursor}, of {steps} steps, and it has not ended"


_SHOWN_COLUMNS = (
    *(name for name in Unreadable.__dataclass_fields__ if name in _COLUMNS and name != "id"),
    "definition",
)


def unreadable(row: Mapping[str, Any], error: Exception | str) -> Unreadable:
    """Return what can be read of a row that cannot be decoded, with the reason."""
    kept: dict[str, Any] = {name: row[name] for name in _SHOWN_COLUMNS if name in row and _COLUMNS[name][1](row[name])}
    snapshot = kept.pop("definition", None)
    return Unreadable(id=str(row["id"]), reason=_said(error), snapshot=snapshot, **kept)


def unreadable_row(row: Any, reason: str) -> Unreadable:
    """Return the Unreadable of a saga whose row could be read (a SagaRow), though its results or lines could not."""
    names = [name for name in Unreadable.__dataclass_fields__ if name not in ("reason", "name", "snapshot")]
    known = {name: getattr(row, name) for name in names}
    return Unreadable(reason=reason, name=row.definition.name, snapshot=row.definition.snapshot, **known)


def _said(error: Exception | str) -> str:
    if isinstance(error, str | SnapshotError | ContextError):
        return str(error)
    return f"its columns do not fit together ({type(error).__name__})"


def line_of(row: RowMapping) -> Line:
    """Return the line in a row of `saga_log`; an UnreadableLine where it cannot be decoded."""
    values: dict[str, Any] = {name: row[name] for name in _LINE}
    reason = _misfit(values, _LINE) or _misfit(values["detail"] or {}, _DETAIL, "detail.")
    if reason is None and values["event"] not in _EVENTS:
        reason = f"the event {_quoted(values['event'])} is not known to this version"
    if reason is None:
        return Line(**values)
    fitting: dict[str, Any] = {"seq": 0, "at": math.nan, "event": "unreadable"}
    fitting |= {name: value for name, value in values.items() if _LINE[name][1](value)}
    return UnreadableLine(**{**fitting, "detail": {"unreadable": reason}})


def _misfit(values: Mapping[str, Any], shapes: Mapping[str, Shape], path: str = "") -> str | None:
    """Return which of the values is not what it must be; a value that is missing is not looked at."""
    for name, (words, fits) in shapes.items():
        if name in values and not fits(values[name]):
            value = values[name]
            if isinstance(value, Undecodable):
                return f"{path}{name}: {value.reason}"
            return f"{path}{name} must be {words}"
    return None


def _quoted(text: str) -> str:
    return repr(text if len(text) <= 64 else f"{text[:61]}...")
