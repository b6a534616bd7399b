"""A saga as the API shows it: its one representation, made from its row alone. Pure; secrets are masked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from saga.context import StepProgress
from saga.course import saga_of, secrets_of
from saga.log import Record
from saga.machine import BACKWARD, FORWARD, STALLED, Line, Saga, State, nobody_undoes
from saga.payload import iso, mask

NEEDS_ATTENTION_AFTER = 10  # rounds

PUBLIC_STATUS: Mapping[State, str] = {
    **dict.fromkeys(FORWARD, "RUNNING"),
    **dict.fromkeys(BACKWARD, "COMPENSATING"),
    **dict.fromkeys(STALLED, "STALLED"),
    State.COMPLETED: "COMPLETED",
    State.COMPENSATED: "COMPENSATED",
}

_UNDOING = BACKWARD | {State.STALLED_SEALING, State.STALLED_COMPENSATING}
_TURNED_BACK = frozenset({State.COMPENSATING, State.STALLED_COMPENSATING, State.COMPENSATED})


def represent(record: Record) -> dict[str, Any]:
    """The object that every answer about a saga holds (times in ISO 8601, UTC)."""
    definition, secret, echoes = record.definition, record.definition.secret, secrets_of(record)
    result: dict[str, Any] = {}
    for step in definition.steps:
        result.update(record.results.get(step.name, {}))
    overdue = not record.ended and record.context.overdue
    stuck = record.rounds >= NEEDS_ATTENTION_AFTER or bool(record.context.parked)
    return {
        "saga_id": record.id,
        "saga": definition.name,
        "mode": definition.mode,
        "engine": definition.engine,
        "status": PUBLIC_STATUS[record.state],
        "input": mask(record.input, secret),
        "result": mask(result, secret, echoes),
        "error": record.error and {**record.error, "message": mask(record.error["message"], secret, echoes)},
        "steps": [{**step, "error": mask(step["error"], secret, echoes)} for step in _steps(record)],
        "started_at": iso(record.started_at),
        "ended_at": iso(record.ended_at),
        "due_at": iso(record.due_at),
        "overdue": overdue,
        "needs_attention": overdue or (stuck and not record.ended),
    }


def represent_line(line: Line, record: Record | None) -> dict[str, Any]:
    """One line of the log, masked by what its saga keeps secret."""
    return represent_lines([line], record)[0]


def represent_lines(lines: Iterable[Line], record: Record | None) -> list[dict[str, Any]]:
    """Lines of one saga's log, masked by what it keeps secret."""
    secret, echoes = (record.definition.secret, secrets_of(record)) if record else ((), frozenset[str]())
    return [{**vars(line), "at": iso(line.at), "detail": mask(line.detail, secret, echoes)} for line in lines]


def under_way(record: Record) -> bool:
    """Whether an attempt of an action may be under way now: the saga has reached its step, and is in somebody's hands.

    The log cannot know more: a call is sent without a line that says so first. Of a choreographed saga nobody is in
    charge: its step acts once it hears of it, unless that event is parked.
    """
    held = not record.context.parked if record.definition.choreographed else record.owner is not None
    return record.state in FORWARD and held


def _steps(record: Record) -> list[dict[str, Any]]:
    saga, shown = saga_of(record), []
    for index, step in enumerate(record.definition.steps):
        progress = record.context.step(step.name)
        if index == saga.cursor and not record.ended:
            progress = _now(progress, record, saga)
        passed_over = saga.state in _TURNED_BACK and index > saga.cursor and step.compensation is None
        if passed_over and progress.status in ("DONE", "UNKNOWN"):
            progress = replace(progress, status="SKIPPED")
        shown.append(_shown(step.name, progress))
    return shown


def _now(progress: StepProgress, record: Record, saga: Saga) -> StepProgress:
    """The step at the cursor, with what is going on there."""
    if saga.state in _UNDOING:
        return replace(progress, status="COMPENSATING", error=nobody_undoes(saga) or progress.error)
    if saga.state not in FORWARD:
        return progress
    calling = under_way(record)
    doubtful = progress.effect == "none" and (saga.calls.uncertain or calling)
    return replace(
        progress,
        status="RUNNING",
        attempts=max(progress.attempts, saga.calls.attempts) + calling,
        effect="unknown" if doubtful else progress.effect,
        started_at=record.context.reached_at if progress.started_at is None else progress.started_at,
        ended_at=None,
    )


def _shown(name: str, progress: StepProgress) -> dict[str, Any]:
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
