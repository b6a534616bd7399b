"""A `StepSummary` says how far one step has come: it is the part of a saga's context that is about this step. Pure.

`StepSummary.after` adds one line of the log to it, so that a step can be shown without its lines being read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from saga.machine import ATTEMPT, GIVE_UP_FAILED, NOTES, AttemptsSoFar, Direction, Event, Line, Saga, State

# The status and the effect that the API shows of a step after an event.
_STATUS_AND_EFFECT: Mapping[Event, tuple[str, str]] = {
    Event.ACTION_DONE: ("DONE", "applied"),
    Event.ACTION_REFUSED: ("REFUSED", "none"),
    Event.ACTION_UNKNOWN: ("UNKNOWN", "unknown"),
    Event.COMPENSATION_DONE: ("COMPENSATED", "undone"),
}
_EFFECTS = {"done": "applied", "unknown": "unknown"}  # the effect that a step may have, by an attempt's verdict


@dataclass(frozen=True)
class StepSummary:
    """How far a step has come, as its attempts and events in the log tell it. Times are in seconds since the epoch."""

    status: str = "PENDING"
    effect: str = "none"
    attempts: int = 0  # of its action
    started_at: float | None = None  # when the first attempt of its action began
    ended_at: float | None = None  # when the last attempt of its action was answered
    error: str | None = None  # the message of the last attempt that failed
    why: str | None = None  # why its action failed: `error` again, once its compensation has succeeded
    gave_up: int = 0  # the last attempt after which a choreographed step failed to undo its own action

    def after(self, line: Line, before: Saga, after: Saga) -> StepSummary:
        """Return the progress after a line of this step; `before` and `after` are the saga on both sides of it."""
        detail = line.facts
        if line.event == ATTEMPT:
            return self._attempted(line, detail)
        if line.event == GIVE_UP_FAILED:
            return replace(self, error=detail.get("message"), gave_up=max(self.gave_up, line.attempt or 0))
        return self if line.event in NOTES else self._moved(Event(line.event), before, after)

    def interrupted(self, calls: AttemptsSoFar, reached_at: float) -> StepSummary:
        """Return the progress after the driver of its action has vanished.

        The call may have been under way since the saga reached the step, so it counts as an attempt whose effect is
        unknown.
        """
        effect = "unknown" if self.effect == "none" else self.effect
        started_at = reached_at if self.started_at is None else self.started_at
        return replace(self, attempts=calls.attempts, effect=effect, started_at=started_at)

    def _attempted(self, line: Line, detail: Mapping[str, Any]) -> StepSummary:
        message = detail.get("message")
        if detail.get("call") != Direction.ACTION:
            return replace(self, error=message)
        return StepSummary(
            self.status,
            _EFFECTS.get(str(detail.get("verdict")), self.effect),
            line.attempt or 0,
            round(line.at - (line.duration_ms or 0) / 1000, 6) if self.started_at is None else self.started_at,
            line.at,
            error=message,
            why=message,
            gave_up=self.gave_up,
        )

    def _moved(self, event: Event, before: Saga, after: Saga) -> StepSummary:
        if event is Event.RESOLVED:
            event = Event.ACTION_DONE if after.cursor > before.cursor else Event.COMPENSATION_DONE
        if event is Event.COMPENSATION_REFUSED and before.state is State.SEALING:
            event = Event.ACTION_DONE  # the pivot has answered that its action took effect
        status, effect, error, why = self.status, self.effect, self.error, self.why
        if event in (Event.CANCELLED, Event.DEADLINE_PASSED) and before.calls.attempts:
            status, effect = "UNKNOWN", "unknown" if effect == "none" else effect
        status, effect = _STATUS_AND_EFFECT.get(event, (status, effect))
        if event is Event.ACTION_DONE:
            error = why = None
        elif event is Event.COMPENSATION_DONE:
            error = why
        return replace(self, status=status, effect=effect, error=error, why=why)
