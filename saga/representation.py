"""A saga as the API shows it: its one representation, folded from its row and its lines. Pure; secrets are masked."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from saga.errors import IllegalEvent
from saga.log import Record, Stored
from saga.machine import (
    ATTEMPT,
    BACKWARD,
    ENDED,
    FORWARD,
    GIVE_UP_FAILED,
    NOTES,
    OVERDUE,
    PARKED,
    REPLAYED,
    STALLED,
    Direction,
    Event,
    Line,
    Saga,
    State,
    begin,
    fold,
)
from saga.payload import iso, mask, secret_texts
from saga.unreadable import UNREADABLE, Unreadable, UnreadableLine, misread

NEEDS_ATTENTION_AFTER = 10  # rounds

PUBLIC_STATUS: Mapping[State, str] = {
    **dict.fromkeys(FORWARD, "RUNNING"),
    **dict.fromkeys(BACKWARD, "COMPENSATING"),
    **dict.fromkeys(STALLED, "STALLED"),
    State.COMPLETED: "COMPLETED",
    State.COMPENSATED: "COMPENSATED",
}
STATUSES = (*dict.fromkeys(PUBLIC_STATUS.values()), UNREADABLE)  # all that a saga may be shown with

# What is said of a line though it is not known which fields of its saga are secret.
_OPEN = frozenset({"state", "call", "verdict", "by", "interrupted", "epoch", "fault", "letter", "unreadable"})

# What an event makes of the step it happened to: its status and its effect.
_AFTERWARDS: Mapping[Event, tuple[str, str]] = {
    Event.ACTION_DONE: ("DONE", "applied"),
    Event.ACTION_REFUSED: ("REFUSED", "none"),
    Event.ACTION_UNKNOWN: ("UNKNOWN", "unknown"),
    Event.COMPENSATION_DONE: ("COMPENSATED", "undone"),
}


def represent(saga: Stored, lines: Sequence[Line]) -> dict[str, Any]:
    """The object that every answer about a saga holds (times in ISO 8601, UTC)."""
    if isinstance(saga, Unreadable):
        return _represent_unreadable(saga)
    if bad := next((line for line in lines if isinstance(line, UnreadableLine)), None):
        return _represent_unreadable(misread(saga, f"line {bad.seq}: {bad.reason}"))
    try:
        return _represent(saga, lines)
    except IllegalEvent as error:
        return _represent_unreadable(misread(saga, f"its lines do not follow from each other: {error}"))


def _represent_unreadable(saga: Unreadable) -> dict[str, Any]:
    """The same keys for a saga that this version cannot read: what it is, as far as that is known, and why not more."""
    snapshot = saga.snapshot or {}
    mode, engine = (snapshot.get(name) if isinstance(snapshot.get(name), str) else None for name in ("mode", "engine"))
    return {
        "saga_id": saga.id,
        "saga": saga.name,
        "mode": mode,
        "engine": engine,
        "status": UNREADABLE,
        "input": {} if saga.input is None or saga.secret is None else mask(saga.input, saga.secret),
        "result": {},
        "error": {"step": None, "kind": "unreadable", "status_code": None, "message": saga.reason},
        "steps": [],
        "started_at": iso(saga.started_at),
        "ended_at": iso(saga.ended_at),
        "due_at": iso(saga.due_at),
        "overdue": False,
        "needs_attention": not saga.ended,
    }


def _represent(record: Record, lines: Sequence[Line]) -> dict[str, Any]:
    definition, secret, echoes = record.definition, record.definition.secret, secrets_of(record)
    result: dict[str, Any] = {}
    for step in definition.steps:
        result.update(record.context.get(step.name, {}))
    overdue = not record.ended and any(line.event == OVERDUE for line in lines)
    stuck = record.rounds >= NEEDS_ATTENTION_AFTER or bool(parked(lines))
    return {
        "saga_id": record.id,
        "saga": definition.name,
        "mode": definition.mode,
        "engine": definition.engine,
        "status": PUBLIC_STATUS[record.state],
        "input": mask(record.input, secret),
        "result": mask(result, secret, echoes),
        "error": record.error and _cause(record.error, secret, echoes),
        "steps": [{**step, "error": mask(step["error"], secret, echoes)} for step in _steps(record, lines)],
        "started_at": iso(record.started_at),
        "ended_at": iso(record.ended_at),
        "due_at": iso(record.due_at),
        "overdue": overdue,
        "needs_attention": overdue or (stuck and not record.ended),
    }


def _cause(error: Mapping[str, Any], secret: Sequence[str], echoes: Iterable[str]) -> dict[str, Any]:
    names = ("step", "kind", "status_code", "message")
    return {**{name: error.get(name) for name in names}, "message": mask(error.get("message"), secret, echoes)}


def parked(lines: Sequence[Line]) -> list[int]:
    """The dead letters that a choreographed saga waits for, as their numbers."""
    waiting: dict[int, None] = {}
    for line in lines:
        letter = int((line.detail or {}).get("letter", 0))
        if line.event == PARKED:
            waiting[letter] = None
        elif line.event == REPLAYED:
            waiting.pop(letter, None)
    return list(waiting)


def represent_line(line: Line, saga: Stored | None) -> dict[str, Any]:
    """One line of the log, masked by what its saga keeps secret; where that is not known, only what never is."""
    detail = line.detail
    if detail and isinstance(saga, Unreadable) and saga.secret != ():
        detail = {name: value for name, value in detail.items() if name in _OPEN}
    elif detail and isinstance(saga, Record):
        detail = mask(detail, saga.definition.secret, secrets_of(saga))
    return {**vars(line), "at": None if math.isnan(line.at) else iso(line.at), "detail": detail}


def secrets_of(record: Record) -> frozenset[str]:
    """The texts of a saga that nobody is shown."""
    secret = record.definition.secret
    return secret_texts(record.input, secret).union(*(secret_texts(part, secret) for part in record.context.values()))


def _steps(record: Record, lines: Sequence[Line]) -> list[dict[str, Any]]:
    steps = {step.name: _Step(step.name) for step in record.definition.steps}
    saga = begin(record.definition, record.input)
    reached_at = record.started_at
    for line in lines:
        before, saga = saga, fold(saga, line, record.context)
        if line.step in steps:
            steps[line.step].after(line, before, saga)
        if line.event not in NOTES:
            reached_at = line.at
    current = saga.step
    if current and saga.state not in ENDED:
        steps[current.name].now(saga, reached_at)
    for index, step in enumerate(record.definition.steps):
        if saga.state in _TURNED_BACK and index > saga.cursor and step.compensation is None:
            steps[step.name].skipped()
    return [step.shown() for step in steps.values()]


_TURNED_BACK = frozenset({State.COMPENSATING, State.STALLED_COMPENSATING, State.COMPENSATED})


class _Step:
    """What is shown of one step, line by line."""

    def __init__(self, name: str):
        self.name = name
        self.status, self.effect = "PENDING", "none"
        self.attempts = 0
        self.started_at: float | None = None
        self.ended_at: float | None = None
        self.error: str | None = None
        self._why: str | None = None  # why its action failed: shown again once its compensation has succeeded

    def after(self, line: Line, before: Saga, after: Saga) -> None:
        detail = line.detail or {}
        if line.event == ATTEMPT:
            self.error = detail.get("message")
            if detail.get("call") == Direction.ACTION:
                self.attempts = line.attempt or 0
                self.effect = {"done": "applied", "unknown": "unknown"}.get(str(detail.get("verdict")), self.effect)
                self.started_at = self.started_at or line.at - (line.duration_ms or 0) / 1000
                self.ended_at = line.at
                self._why = self.error
            return
        if line.event == GIVE_UP_FAILED:
            self.error = detail.get("message")
        if line.event in NOTES:
            return
        event = Event(line.event)
        if event is Event.RESOLVED:
            event = Event.ACTION_DONE if after.cursor > before.cursor else Event.COMPENSATION_DONE
        if event is Event.COMPENSATION_REFUSED and before.state is State.SEALING:
            event = Event.ACTION_DONE  # the pivot says that it has committed
        if event in (Event.CANCELLED, Event.DEADLINE_PASSED) and before.calls.attempts:
            self.status = "UNKNOWN"
            self.effect = "unknown" if self.effect == "none" else self.effect
        self.status, self.effect = _AFTERWARDS.get(event, (self.status, self.effect))
        if event is Event.ACTION_DONE:
            self.error = self._why = None
        elif event is Event.COMPENSATION_DONE:
            self.error = self._why

    def now(self, saga: Saga, reached_at: float) -> None:
        if saga.state in FORWARD:
            self.status = "RUNNING"
            self.started_at = self.started_at or reached_at
            self.ended_at = None
            if saga.calls.uncertain and self.effect == "none":
                self.effect = "unknown"
        elif saga.state in BACKWARD or saga.state in (State.STALLED_SEALING, State.STALLED_COMPENSATING):
            self.status = "COMPENSATING"

    def skipped(self) -> None:
        if self.status in ("DONE", "UNKNOWN"):
            self.status = "SKIPPED"

    def shown(self) -> dict[str, Any]:
        done = self.started_at is not None and self.ended_at is not None
        return {
            "name": self.name,
            "status": self.status,
            "attempts": self.attempts,
            "effect": self.effect,
            "started_at": iso(self.started_at),
            "ended_at": iso(self.ended_at),
            "duration_ms": round((self.ended_at - self.started_at) * 1000, 1) if done else None,  # type: ignore[operator]
            "error": self.error,
        }
