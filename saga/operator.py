"""What an operator may do to a saga: cancel, resume, resolve. Durable and in the log before the answer.

Each takes the saga away from its driver by raising its epoch, so that of an operator and a driver exactly one wins.
"""

from __future__ import annotations

from collections.abc import Sequence

from saga.driver import Driver
from saga.engine import Engine
from saga.errors import BadInput, Conflict
from saga.log import Record
from saga.machine import CANCEL_REQUESTED, STALLED, Event, Line, State
from saga.representation import parked

NOTE_AT_MOST = 1000  # characters

_WAITING_FOR_THE_PIVOT = (State.DECIDING, State.STALLED_DECIDING)
_CANCELLABLE = (State.EXECUTING, *_WAITING_FOR_THE_PIVOT)


def permitted(record: Record, lines: Sequence[Line]) -> set[str]:
    """The verbs that the state of a saga allows now."""
    if record.definition.choreographed:
        return {"resume"} if parked(lines) and not record.ended else set()
    verbs = {"resume", "resolve"} if record.state in STALLED else set()
    if record.state in _CANCELLABLE and not _cancelled(lines):
        verbs.add("cancel")
    return verbs


def _cancelled(lines: Sequence[Line]) -> bool:
    return any(line.event in (Event.CANCELLED, CANCEL_REQUESTED) for line in lines)


class Operator:
    """The verbs; each raises NoSuchSaga, or Conflict where the saga's state forbids it."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def cancel(self, saga_id: str) -> None:
        """Roll the saga back. While the pivot's outcome is open it decides, and the wish is only noted."""
        engine = self._engine
        self._driven(saga_id)
        _, lines = engine.read(saga_id)
        if _cancelled(lines):
            raise Conflict("it was cancelled before")
        driver = engine.take(saga_id, _CANCELLABLE, "it cannot be cancelled any more")
        try:
            if driver.record.state in _WAITING_FOR_THE_PIVOT:
                driver.note(CANCEL_REQUESTED, {"by": "operator"})
            else:
                step = driver.record.definition.steps[driver.record.cursor].name
                message = "cancelled by an operator"
                cause = {"step": step, "kind": "cancelled", "status_code": None, "message": message}
                driver.record_event(Event.CANCELLED, cause, {"by": "operator"})
        finally:
            engine.accept(driver)

    def resume(self, saga_id: str) -> None:
        """Make the call that stalled the saga again, now."""
        self._driven(saga_id)
        driver = self._take_stalled(saga_id, "there is nothing to resume")
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
        self._driven(saga_id)
        driver = self._take_stalled(saga_id, "there is nothing to resolve")
        try:
            driver.record_event(Event.RESOLVED, detail={"by": "operator", "note": note})
        finally:
            self._engine.accept(driver)

    def _driven(self, saga_id: str) -> None:
        """Conflict where nobody is in charge of the saga."""
        record, _ = self._engine.read(saga_id)
        if record.definition.choreographed:
            raise Conflict("nobody is in charge of a choreographed saga: its services tell each other what to do")

    def _take_stalled(self, saga_id: str, refusal: str) -> Driver:
        return self._engine.take(saga_id, STALLED, refusal)
