"""What an operator may do to a saga: cancel, resume, resolve. Durable and in the log before the answer.

Each takes the saga away from its driver by raising its epoch, so that of an operator and a driver exactly one wins;
only a cancel while the pivot is called leaves it with its driver, and is noted beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from saga import course
from saga.driver import Driver
from saga.engine import Engine
from saga.errors import BadInput, Conflict, EngineUnavailable
from saga.log import Record
from saga.machine import CANCEL_REQUESTED, Event
from saga.verbs import REFUSALS, WAITING_FOR_THE_PIVOT, refusal

NOTE_AT_MOST = 1000  # characters
TRIES = 20  # at a saga whose driver is busy writing
BY = {"by": "operator"}


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
        if self._told(saga_id, "cancel"):
            return
        for record in self._tries(saga_id, "cancel"):
            if record.state in WAITING_FOR_THE_PIVOT:
                if self._engine.note(record, WAITING_FOR_THE_PIVOT, CANCEL_REQUESTED, BY):
                    return
            elif driver := self._engine.take(record, why=Event.CANCELLED):
                cause = course.cancelled(record.definition.steps[record.cursor].name)
                self._say(driver, Event.CANCELLED, cause=cause, detail=BY)
                return

    def resume(self, saga_id: str) -> None:
        """Make the call that stalled the saga again, now."""
        if self._told(saga_id, "resume"):
            return
        self._say(self._take(saga_id, "resume", Event.RESUMED), Event.RESUMED, detail=BY)

    def resolve(self, saga_id: str, note: str) -> None:
        """Go on as if the call that stalled the saga had succeeded: somebody has seen to it by hand, says `note`."""
        if not note.strip():
            raise BadInput("note is required: what was done by hand, and by whom", "note")
        if len(note) > NOTE_AT_MOST:
            raise BadInput(f"note must not be longer than {NOTE_AT_MOST} characters", "note")
        if self._told(saga_id, "resolve", note):
            return
        self._say(self._take(saga_id, "resolve", Event.RESOLVED), Event.RESOLVED, detail={**BY, "note": note})

    def _tries(self, saga_id: str, verb: str) -> Iterator[Record]:
        """The saga as it is now, for each try; Conflict where its state forbids it, or it moves on at every try."""
        for _ in range(TRIES):
            record, lines = self._engine.read(saga_id)
            if why := refusal(verb, record, lines):
                raise Conflict(why)
            yield record
        raise Conflict(f"{REFUSALS[verb]}: it is moving too fast, try again")

    def _take(self, saga_id: str, verb: str, why: Event) -> Driver:
        tries = self._tries(saga_id, verb)
        return next(driver for record in tries if (driver := self._engine.take(record, why)))

    def _say(self, driver: Driver, event: Event, **said: Any) -> None:
        try:
            driver.record_event(event, **said)
        finally:
            self._engine.accept(driver)

    def _told(self, saga_id: str, verb: str, note: str | None = None) -> bool:
        """Whether a workflow drives the saga, which then has been told; Conflict where nobody is in charge of it."""
        record, lines = self._engine.read(saga_id)
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
