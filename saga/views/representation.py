"""`represent` makes the one representation of a saga that the API gives, and `represent_lines` that of its log. Pure.

A saga's representation is made from its row alone, so that a list of sagas needs no lines. Secrets are masked.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from saga.machine import BACKWARD, FORWARD, STALLED, STALLED_AT_A_COMPENSATION, Line, Saga, State, cannot_undo
from saga.payload import iso, mask
from saga.progress import secrets_of
from saga.saga_row import SagaRow, Stored
from saga.step_summary import StepSummary
from saga.unreadable import UNREADABLE, Unreadable

NEEDS_ATTENTION_AFTER_ROUNDS = 10  # rounds

PUBLIC_STATUS: Mapping[State, str] = {
    **dict.fromkeys(FORWARD, "RUNNING"),
    **dict.fromkeys(BACKWARD, "COMPENSATING"),
    **dict.fromkeys(STALLED, "STALLED"),
    State.COMPLETED: "COMPLETED",
    State.COMPENSATED: "COMPENSATED",
}
STATUSES = (*dict.fromkeys(PUBLIC_STATUS.values()), UNREADABLE)  # every status that a saga can be shown with

# These parts of a line's detail are shown even where it is not known which fields of its saga are secret.
_OPEN = frozenset({"state", "call", "verdict", "by", "interrupted", "epoch", "fault", "letter", "unreadable"})

_UNDOING = BACKWARD | STALLED_AT_A_COMPENSATION
_TURNED_BACK = frozenset({State.COMPENSATING, State.STALLED_COMPENSATING, State.COMPENSATED})


def represent(saga: Stored) -> dict[str, Any]:
    """Return the object that every answer about a saga holds; times are in ISO 8601, UTC."""
    if isinstance(saga, Unreadable):
        return _represent_unreadable(saga)
    return _represent(saga)


def _represent_unreadable(saga: Unreadable) -> dict[str, Any]:
    """Return the same keys for a saga that this version cannot read: what is known of it, and why as its error."""
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


def _represent(row: SagaRow) -> dict[str, Any]:
    definition, secret, echoes = row.definition, row.definition.secret, secrets_of(row)
    result: dict[str, Any] = {}
    for step in definition.steps:
        result.update(row.results.get(step.name, {}))
    overdue = not row.ended and row.context.overdue
    stuck = row.rounds >= NEEDS_ATTENTION_AFTER_ROUNDS or bool(row.context.parked)
    return {
        "saga_id": row.id,
        "saga": definition.name,
        "mode": definition.mode,
        "engine": definition.engine,
        "status": PUBLIC_STATUS[row.state],
        "input": mask(row.input, secret),
        "result": mask(result, secret, echoes),
        "error": row.error and _cause(row.error, secret, echoes),
        "steps": [{**step, "error": mask(step["error"], secret, echoes)} for step in _steps(row)],
        "started_at": iso(row.started_at),
        "ended_at": iso(row.ended_at),
        "due_at": iso(row.due_at),
        "overdue": overdue,
        "needs_attention": overdue or (stuck and not row.ended),
    }


def _cause(error: Mapping[str, Any], secret: Sequence[str], echoes: Iterable[str]) -> dict[str, Any]:
    names = ("step", "kind", "status_code", "message")
    return {**{name: error.get(name) for name in names}, "message": mask(error.get("message"), secret, echoes)}


def represent_lines(lines: Iterable[Line], saga: Stored | None) -> list[dict[str, Any]]:
    """Return lines of one saga's log as the API shows them, with its secrets masked.

    Where it is not known what the saga keeps secret, a detail holds only what can never be secret.
    """
    secret, echoes = (saga.definition.secret, secrets_of(saga)) if isinstance(saga, SagaRow) else ((), frozenset[str]())
    withheld = isinstance(saga, Unreadable) and saga.secret != ()

    def shown(detail: Mapping[str, Any] | None) -> Any:
        if detail and withheld:
            return {name: value for name, value in detail.items() if name in _OPEN}
        return mask(detail, secret, echoes)

    return [
        {**vars(line), "at": None if math.isnan(line.at) else iso(line.at), "detail": shown(line.detail)}
        for line in lines
    ]


def under_way(row: SagaRow) -> bool:
    """Return whether an attempt of an action may be under way now.

    The log cannot know for certain, because no line is written before a call is sent. So an attempt may be under way
    as soon as the saga has reached the step and has an owner. A choreographed saga has none: its step acts once it
    has heard of the saga, unless the event that tells it is parked.
    """
    held = not row.context.parked if row.definition.choreographed else row.owner is not None
    return row.state in FORWARD and held


def _steps(row: SagaRow) -> list[dict[str, Any]]:
    """Return the representation's "steps", in the definition's order."""
    saga, shown = row.saga, []
    for index, step in enumerate(row.definition.steps):
        progress = row.context.step(step.name)
        if index == saga.cursor and not row.ended:
            progress = _at_the_cursor(progress, row, saga)
        passed_over = saga.state in _TURNED_BACK and index > saga.cursor and step.compensation is None
        if passed_over and progress.status in ("DONE", "UNKNOWN"):
            progress = replace(progress, status="SKIPPED")
        shown.append(_shown(step.name, progress))
    return shown


def _at_the_cursor(progress: StepSummary, row: SagaRow, saga: Saga) -> StepSummary:
    """Return the progress of the step at the cursor, with the call that is being made there."""
    if saga.state in _UNDOING:
        return replace(progress, status="COMPENSATING", error=cannot_undo(saga) or progress.error)
    if saga.state not in FORWARD:
        return progress
    calling = under_way(row)
    doubtful = progress.effect == "none" and (saga.calls.uncertain or calling)
    return replace(
        progress,
        status="RUNNING",
        attempts=max(progress.attempts, saga.calls.attempts) + calling,
        effect="unknown" if doubtful else progress.effect,
        started_at=row.context.reached_at if progress.started_at is None else progress.started_at,
        ended_at=None,
    )


def _shown(name: str, progress: StepSummary) -> dict[str, Any]:
    began, ended = progress.started_at, progress.ended_at
    return {
        "name": name,
        "status": progress.status,
        "attempts": progress.attempts,
        "effect": progress.effect,
        "started_at": iso(began),
        "ended_at": iso(ended),
        "duration_ms": None if began is None or ended is None else round((ended - began) * 1000, 1),
        "error": progress.error,
    }
