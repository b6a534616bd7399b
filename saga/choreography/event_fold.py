"""How an observer writes the events of a choreographed saga into its log, as events of the state machine. Pure.

Services publish what a step has come to, several events of the state machine at once: a `refused` may say that the
action was unknown and that its compensation is done. `_FOLDS` says which kind of event means what, going forward and
going back. An event that is known already changes nothing; one that was delivered before its time raises Early.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from saga import progress
from saga.choreography.events import EventKind, SagaEvent, subject
from saga.context import Context
from saga.machine import (
    ABANDONED,
    ATTEMPT,
    BACKWARD,
    ENDED,
    FORWARD,
    GIVE_UP_FAILED,
    STALLED,
    Direction,
    Event,
    Line,
    Saga,
    State,
)
from saga.saga_row import SagaRow
from saga.views.representation import NEEDS_ATTENTION_AFTER_ROUNDS

MESSAGE_AT_MOST = 500  # characters, where an event is too large for the log


class Early(Exception):
    """The event follows from another one that has not been heard yet: it has to be delivered again, later."""


def fold_event(row: SagaRow, heard: SagaEvent, remark: str | None = None) -> tuple[SagaRow, list[Line]]:
    """Return the saga after an event, and the new lines of its log: none where it is known already. Raises Early.

    `remark` is added as a message to the line that says that an action is done.
    """
    fold = _EventFold(row, heard, remark)
    fold.apply()
    return fold.result()


def abandon(row: SagaRow, note: str, now: float) -> tuple[SagaRow, list[Line]]:
    """Return a saga that no service has heard of as ended by an operator, and the new lines of its log."""
    saga = row.saga
    step, message = saga.step.name if saga.step else "", "abandoned by an operator: no service had heard of it"
    # At a pivot a cancel waits for an outcome. Here it is known: it had no effect, and never will have.
    event = Event.CANCELLED if saga.state is State.EXECUTING else Event.ACTION_REFUSED
    cause = progress.cause(step, "cancelled", message)
    noted = Line(row.context.lines + 1, now, ABANDONED, None, detail={"note": note, "by": "operator"})
    detail = {"by": "operator", "subject": subject(row.definition.name, EventKind.ABANDONED)}
    moved, turned = progress.after_event(row.after(noted), event, now, cause=cause, detail=detail)
    ended = progress.with_due_time(moved, now, owner=None, due_at=None, stalled=lambda rounds: (None, None))
    return replace(ended, error=cause), [noted, turned]


def shortened(heard: SagaEvent) -> SagaEvent:
    """Return an event without what can be large: without its result, and with 500 characters of each text."""

    def short(part: Any) -> Any:
        if not isinstance(part, Mapping):
            return part
        return {name: value[:MESSAGE_AT_MOST] if isinstance(value, str) else value for name, value in part.items()}

    body = {**short(heard.body), "result": {}, "attempt": short(heard.body.get("attempt"))}
    return replace(heard, body={**body, "error": short(heard.body.get("error"))})


class _EventFold:
    """A saga while one event is folded into it."""

    def __init__(self, row: SagaRow, heard: SagaEvent, remark: str | None = None):
        self.row = row
        self.heard = heard
        self.lines: list[Line] = []
        self._remark = remark
        self._at = round(heard.body.get("at") or row.context.at, 6)
        state = row.saga.state
        self._forward = state in FORWARD or state is State.STALLED_FINISHING
        self._past_the_pivot = state in (State.FINISHING, State.STALLED_FINISHING)

    @property
    def saga(self) -> Saga:
        return self.row.saga

    def apply(self) -> None:
        """Fold the event, if it says something new about the step that the saga is at."""
        names = [step.name for step in self.row.definition.steps]
        if self.heard.step not in names or self.saga.state in ENDED:
            return
        index, cursor = names.index(self.heard.step), self.saga.cursor
        self._check_not_early(index, cursor)
        fold = _FOLDS.get((self._forward, _kind_of(self.heard)))
        if fold and index == cursor:
            fold(self)

    def _check_not_early(self, index: int, cursor: int) -> None:
        kind, body = self.heard.kind, self.heard.body
        if kind is EventKind.GIVEN:
            return
        if self._forward and (index > cursor or kind is EventKind.UNDONE):
            raise Early
        # An attempt at a compensation that names an error belongs to the step's own giving up.
        undoing = body.get("call") == Direction.COMPENSATION and not body.get("error")
        if (kind is EventKind.UNDONE or undoing) and index < cursor and not self._past_the_pivot:
            raise Early  # what the saga turns back for has not been heard yet

    def result(self) -> tuple[SagaRow, list[Line]]:
        """Return the saga as it is now, and the lines that were added."""
        owner, due_at = self.row.owner, self.row.due_at
        moved = progress.with_due_time(
            self.row, self._at, owner=owner, due_at=due_at, stalled=lambda rounds: (owner, due_at)
        )
        return replace(moved, rounds=rounds_of(moved.rounds, moved.context)), self.lines

    def _attempt(self) -> None:
        """Log an attempt that failed; where the event says `stalls`, its round has failed, and the saga stalls."""
        body = self.heard.body
        if self.saga.step is None or self.saga.step.name != self.heard.step:
            return  # it has no compensation, and was passed over
        if body.get("number", 0) <= self.saga.calls.attempts:
            return
        self._resume()
        self._line(body)
        if body.get("stalls"):
            certain = body.get("verdict") == "refused" and self.saga.state is not State.SEALING
            self._add(Event(f"{body['call']}_{'refused' if certain else 'unknown'}"), body.get("message"))

    def _giving_up(self) -> None:
        """Log that a step gave its action up, and failed to undo it; it may still turn out to be done."""
        body = self.heard.body
        if not body.get("error"):
            raise Early  # a later step refused, before which this one was done
        if body.get("number", 0) > self.row.context.step(str(self.heard.step)).gave_up:
            self._line(body, GIVE_UP_FAILED)

    def _done(self) -> None:
        """Log that an action took effect; `in_doubt`: the step found that out when it tried to seal itself."""
        body = self.heard.body
        self._resume()
        if self._forward and self.saga.state is State.DECIDING and body.get("in_doubt") and self.saga.step:
            self._cause()
            self._add(Event.ACTION_UNKNOWN)
            self._resume()
        if self.saga.state is State.SEALING:
            self._line(body.get("attempt"))
            self._add(Event.COMPENSATION_REFUSED)
        elif self.saga.state in FORWARD:
            if not body.get("in_doubt"):
                self._line(body.get("attempt"))
            self._add(Event.ACTION_DONE, self._remark, body.get("result") or {})

    def _refused(self) -> None:
        """Log that a step has no effect; `uncertain`: it may have had one, and has undone it."""
        body = self.heard.body
        message = self._cause()
        undone = self.saga.step and self.saga.step.compensation  # without one it has sealed itself: nothing to undo
        if body.get("uncertain") and undone:
            self._add(Event.ACTION_UNKNOWN, message)
            self._undone()
            return
        if (body.get("attempt") or {}).get("call") == Direction.ACTION:
            self._line(body["attempt"])
        self._add(Event.ACTION_REFUSED, message)

    def _undone(self) -> None:
        """Log that a compensation is done."""
        self._resume()
        if self.saga.state in BACKWARD:
            self._line(self.heard.body.get("attempt"))
            self._add(Event.COMPENSATION_DONE)

    def _cause(self) -> str | None:
        """Keep the first cause of a roll-back."""
        error = self.heard.body.get("error") or {}
        message = error.get("message") or ""
        step, kind = str(self.heard.step), error.get("kind") or "failed"
        self.row = progress.with_first_cause(self.row, progress.cause(step, kind, message, error.get("status_code")))
        return message or None

    def _resume(self) -> None:
        if self.saga.state in STALLED:
            self._add(Event.RESUMED)

    def _line(self, attempt: Mapping[str, Any] | None, event: str = ATTEMPT) -> None:
        """Add the line of an attempt, as the step reported it; nothing where it reported none."""
        if attempt:
            detail = {name: attempt[name] for name in ("call", "verdict", "message") if attempt.get(name)}
            number, status = attempt.get("number"), attempt.get("status_code")
            line = Line(
                self.row.context.lines + 1, self._at, event, self.heard.step, number, status,
                attempt.get("duration_ms"), detail,
            )  # fmt: skip
            self.row = self.row.after(line)
            self.lines.append(line)

    def _add(self, event: Event, message: str | None = None, result: Mapping[str, Any] | None = None) -> None:
        """Add an event of the state machine.

        A step that nobody can undo is passed over: its service says itself what it does about it.
        """
        detail = {**({"message": message} if message else {}), "subject": self.heard.subject}
        self.row, line = progress.after_event(
            self.row, event, self._at, result, detail=detail, passes_over=lambda: True
        )
        self.lines.append(line)


# (the saga goes forward, the kind of event) -> what it means for the step that the saga is at. What is missing says
# nothing new.
_FOLDS: Mapping[tuple[bool, str], Callable[[_EventFold], None]] = {
    (True, "action attempt"): _EventFold._attempt,
    (True, "compensation attempt"): _EventFold._giving_up,
    (True, EventKind.DONE): _EventFold._done,
    (True, EventKind.REFUSED): _EventFold._refused,
    (False, "compensation attempt"): _EventFold._attempt,
    (False, EventKind.DONE): _EventFold._done,
    (False, EventKind.REFUSED): _EventFold._undone,
    (False, EventKind.UNDONE): _EventFold._undone,
}


def _kind_of(heard: SagaEvent) -> str:
    if heard.kind is not EventKind.ATTEMPT:
        return heard.kind
    return "compensation attempt" if heard.body.get("call") == Direction.COMPENSATION else "action attempt"


def rounds_of(rounds: int, context: Context) -> int:
    """Return the rounds of the present call; where its event is parked, so many that it needs attention."""
    return max(rounds, NEEDS_ATTENTION_AFTER_ROUNDS) if context.parked else rounds
