"""What an operator may do to a saga: cancel, resume, resolve. Durable and in the log before the answer.

Each takes the saga away from its driver by raising its epoch, so that of an operator and a driver exactly one wins.
"""

from __future__ import annotations

from typing import Protocol

from saga import course
from saga.engine import Engine
from saga.errors import BadInput, Conflict, EngineUnavailable
from saga.log import Record
from saga.machine import CANCEL_REQUESTED, STALLED, Event
from saga.verbs import CANCELLABLE, REFUSALS, WAITING_FOR_THE_PIVOT, refusal

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
        if engine.read(saga_id).context.cancelled:
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

    def resolve(self, saga_id: str, note: str) -> None:
        """Go on as if the call that stalled the saga had succeeded: somebody has seen to it by hand, says `note`."""
        if not note.strip():
            raise BadInput("note is required: what was done by hand, and by whom", "note")
        if len(note) > NOTE_AT_MOST:
            raise BadInput(f"note must not be longer than {NOTE_AT_MOST} characters", "note")
        if self._told(saga_id, "resolve", note):
            return
        driver = self._engine.take(saga_id, STALLED, REFUSALS["resolve"])
        try:
            driver.record_event(Event.RESOLVED, detail={"by": "operator", "note": note})
        finally:
            self._engine.accept(driver)

    def _told(self, saga_id: str, verb: str, note: str | None = None) -> bool:
        """Whether a workflow drives the saga, which then has been told; Conflict where nobody is in charge of it."""
        record = self._engine.read(saga_id)
        if record.definition.choreographed:
            raise Conflict("nobody is in charge of a choreographed saga: its services tell each other what to do")
        if not record.definition.on_temporal:
            return False
        if record.ended and (why := refusal(verb, record)):
            raise Conflict(why)
        if self._elsewhere is None:
            raise EngineUnavailable(f"this saga is on Temporal: to reach it this orchestrator needs {self._lacking}")
        self._elsewhere.tell(record, verb, note)
        return True
