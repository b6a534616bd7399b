"""What an operator may do to a saga: cancel, resume, resolve. Durable and in the log before the answer.

Each takes the saga away from its driver by raising its epoch, so that of an operator and a driver exactly one wins.
"""

from __future__ import annotations

from typing import Protocol

from saga import course
from saga.engine import Engine
from saga.errors import BadInput, Conflict, EngineUnavailable, LeaseLost, SagaUnreadable
from saga.log import Record
from saga.machine import CANCEL_REQUESTED, ENDED, STALLED, Event, State
from saga.unreadable import Unreadable
from saga.verbs import CANCELLABLE, REFUSALS, WAITING_FOR_THE_PIVOT, cancelled, refusal

NOTE_AT_MOST = 1000  # characters


class Elsewhere(Protocol):
    """Where sagas are that a workflow drives."""

    def tell(self, record: Record, verb: str, note: str | None = None) -> None:
        """Pass an operator's word on. Conflict, EngineUnavailable."""


class Operator:
    """The verbs; each raises NoSuchSaga, or Conflict where the saga's state forbids it."""

    def __init__(self, engine: Engine, elsewhere: Elsewhere | None = None, lacking: str = "TEMPORAL_ADDRESS"):
        self._engine = engine
        self._elsewhere = elsewhere
        self._lacking = lacking  # where nothing is elsewhere

    def cancel(self, saga_id: str) -> None:
        """Roll the saga back. While the pivot's outcome is open it decides, and the wish is only noted."""
        engine = self._engine
        if self._told(saga_id, "cancel"):
            return
        _, lines = engine.read(saga_id)
        if cancelled(lines):
            raise Conflict("it was cancelled before")
        driver = engine.take(saga_id, CANCELLABLE, REFUSALS["cancel"])
        try:
            if driver.record.state in WAITING_FOR_THE_PIVOT:
                driver.note(CANCEL_REQUESTED, {"by": "operator"})
            else:
                record = driver.record
                cause = course.cancelled(record.definition.steps[record.cursor].name)
                driver.record_event(Event.CANCELLED, cause, {"by": "operator"})
        finally:
            engine.accept(driver)

    def resume(self, saga_id: str) -> None:
        """Make the call that stalled the saga again, now."""
        if self._told(saga_id, "resume"):
            return
        driver = self._engine.take(saga_id, STALLED, REFUSALS["resume"])
        try:
            driver.record_event(Event.RESUMED, detail={"by": "operator"})
        finally:
            self._engine.accept(driver)

    def resolve(self, saga_id: str, note: str, outcome: str | None = None) -> None:
        """Go on as if the call that stalled the saga had succeeded: somebody has seen to it by hand, says `note`.

        A saga that cannot be read is ended by it, `outcome` (completed, compensated) says how. BadInput.
        """
        if not note.strip():
            raise BadInput("note is required: what was done by hand, and by whom", "note")
        if len(note) > NOTE_AT_MOST:
            raise BadInput(f"note must not be longer than {NOTE_AT_MOST} characters", "note")
        try:
            if outcome is not None and self._engine.read(saga_id)[0].state in STALLED:
                raise BadInput("outcome is only for a saga that cannot be read: this one knows its own", "outcome")
            if self._told(saga_id, "resolve", note):
                return
            driver = self._engine.take(saga_id, STALLED, REFUSALS["resolve"])
        except SagaUnreadable:
            self._end(saga_id, note, outcome)
            return
        try:
            driver.record_event(Event.RESOLVED, detail={"by": "operator", "note": note})
        finally:
            self._engine.accept(driver)

    def _end(self, saga_id: str, note: str, outcome: str | None) -> None:
        """End a saga that cannot be read."""
        if self._engine.read(saga_id)[0].ended:
            raise Conflict(f"{REFUSALS['resolve']}: it has ended")
        if outcome not in ENDED:
            states = " or ".join(sorted(ENDED))
            raise BadInput(
                f"outcome is required of a saga that cannot be read: {states}, as you have left it", "outcome"
            )
        state = State(outcome)
        detail = {"by": "operator", "note": note, "state": state}
        try:
            self._engine.around.log.end_unreadable(saga_id, state, self._engine.around.clock(), detail)
        except LeaseLost:
            raise Conflict(f"{REFUSALS['resolve']}: it has ended") from None

    def _told(self, saga_id: str, verb: str, note: str | None = None) -> bool:
        """Whether a workflow drives the saga, which then has been told; Conflict where nobody is in charge of it."""
        record, lines = self._engine.read(saga_id)
        if isinstance(record, Unreadable):
            raise SagaUnreadable(f"{REFUSALS[verb]}: it cannot be read: {record.reason}")
        if record.definition.choreographed:
            raise Conflict("nobody is in charge of a choreographed saga: its services tell each other what to do")
        if not record.definition.on_temporal:
            return False
        if record.ended and (why := refusal(verb, record, lines)):
            raise Conflict(why)
        if self._elsewhere is None:
            raise EngineUnavailable(f"this saga is on Temporal: to reach it this orchestrator needs {self._lacking}")
        self._elsewhere.tell(record, verb, note)
        return True
