"""What an operator may do to a saga: cancel, resume, resolve. Durable and in the log before the answer.

Each takes the saga away from its driver by raising its epoch, so that of an operator and a driver exactly one wins;
only a cancel while the pivot is called leaves it with its driver, and is noted beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from saga import progress
from saga.driver import Driver
from saga.errors import BadInput, Conflict, EngineUnavailable, LeaseLost, SagaUnreadable
from saga.machine import CANCEL_REQUESTED, ENDED, STALLED, Event, State
from saga.payload import compact
from saga.runtime.end_unreadable import end_unreadable
from saga.runtime.engine import Engine
from saga.runtime.permitted_commands import (
    BY,
    REFUSALS,
    WAITING_FOR_THE_PIVOT,
    instead,
    refusal,
    resolved_by_hand,
    takes_no_result,
)
from saga.saga_log import Record
from saga.unreadable import Unreadable

NOTE_AT_MOST = 1000  # characters
RESULT_AT_MOST = 1 << 20  # bytes, as of a participant's answer
TRIES = 20  # at a saga whose driver is busy writing


def check_note(note: str, what: str) -> None:
    """Raise BadInput unless an operator's note says something; `what` it should say."""
    if not note.strip():
        raise BadInput(f"note is required: {what}", "note")
    if len(note) > NOTE_AT_MOST:
        raise BadInput(f"note must not be longer than {NOTE_AT_MOST} characters", "note")


class Elsewhere(Protocol):
    """Where sagas are that a workflow drives."""

    def tell(
        self, record: Record, command: str, note: str | None = None, result: Mapping[str, Any] | None = None
    ) -> None:
        """Pass an operator's word on. Conflict, BadInput, EngineUnavailable."""


class Operator:
    """The commands; each raises NoSuchSaga, or Conflict where the saga's state forbids it."""

    def __init__(self, engine: Engine, elsewhere: Elsewhere | None = None, lacking: str = "TEMPORAL_ADDRESS"):
        self._engine = engine
        self._elsewhere = elsewhere
        self._lacking = lacking  # where nothing is elsewhere

    def cancel(self, saga_id: str) -> None:
        """Roll the saga back. While the pivot's outcome is open it decides, and the wish is only noted."""
        if self._told(saga_id, "cancel"):
            return
        for record in self._tries(saga_id, "cancel"):
            cause = progress.cancelled(record)
            if cause is None:
                if self._engine.note(record, WAITING_FOR_THE_PIVOT, CANCEL_REQUESTED, BY):
                    return
            elif driver := self._engine.preempt(record, why=Event.CANCELLED):
                self._say(driver, Event.CANCELLED, cause=cause, detail=BY)
                return

    def resume(self, saga_id: str) -> None:
        """Make the call that stalled the saga again, now."""
        if self._told(saga_id, "resume"):
            return
        self._say(self._preempt(saga_id, "resume", Event.RESUMED), Event.RESUMED, detail=BY)

    def resolve(
        self, saga_id: str, note: str, result: Mapping[str, Any] | None = None, outcome: str | None = None
    ) -> None:
        """Go on as if the call that stalled the saga had succeeded: somebody has seen to it by hand, says `note`.

        `result`: what its action would have answered, for later steps; BadInput where the call is a compensation.
        A saga that cannot be read is ended by it, and `outcome` ("completed", "compensated") says how.
        """
        check_note(note, "what was done by hand, and by whom")
        if result is not None and len(compact(result).encode()) > RESULT_AT_MOST:
            raise BadInput(f"result must not be larger than {RESULT_AT_MOST} bytes", "result")
        saga = self._engine.read(saga_id)
        if isinstance(saga, Unreadable):
            self._end(saga, note, outcome)
            return
        if outcome is not None and saga.state in STALLED:
            raise BadInput("outcome is only for a saga that cannot be read: this one knows its own", "outcome")
        if self._told(saga_id, "resolve", note, result):
            return
        driver = self._preempt(saga_id, "resolve", Event.RESOLVED, result)
        self._say(driver, Event.RESOLVED, detail=resolved_by_hand(note, result), result=result)

    def _read(self, saga_id: str, command: str) -> Record:
        saga = self._engine.read(saga_id)
        if isinstance(saga, Unreadable):
            raise SagaUnreadable(f"{REFUSALS[command]}: it cannot be read: {saga.reason}")
        return saga

    def _tries(self, saga_id: str, command: str, result: Mapping[str, Any] | None = None) -> Iterator[Record]:
        """The saga as it is now, for each try; Conflict where its state forbids it, or it moves on at every try."""
        for _ in range(TRIES):
            record = self._read(saga_id, command)
            if why := refusal(command, record):
                raise Conflict(why)
            if result is not None and (why := takes_no_result(record)):
                raise BadInput(why, "result")
            yield record
        raise Conflict(f"{REFUSALS[command]}: it is moving too fast, try again")

    def _preempt(self, saga_id: str, command: str, why: Event, result: Mapping[str, Any] | None = None) -> Driver:
        tries = self._tries(saga_id, command, result)
        return next(driver for record in tries if (driver := self._engine.preempt(record, why)))

    def _say(self, driver: Driver, event: Event, **said: Any) -> None:
        try:
            driver.record_event(event, **said)
        finally:
            self._engine.accept(driver)

    def _end(self, saga: Unreadable, note: str, outcome: str | None) -> None:
        """End a saga that cannot be read."""
        if saga.ended:
            raise Conflict(f"{REFUSALS['resolve']}: it has ended")
        if outcome not in ENDED:
            states = " or ".join(sorted(ENDED))
            raise BadInput(
                f"outcome is required of a saga that cannot be read: {states}, as you have left it", "outcome"
            )
        state = State(outcome)
        log, now = self._engine.deps.log, round(self._engine.deps.clock(), 6)
        try:
            end_unreadable(log, saga.id, state, now, {**BY, "note": note, "state": state})
        except LeaseLost:
            raise Conflict(f"{REFUSALS['resolve']}: it has ended") from None

    def _told(
        self, saga_id: str, command: str, note: str | None = None, result: Mapping[str, Any] | None = None
    ) -> bool:
        """Whether a workflow drives the saga, which then has been told; Conflict where nobody is in charge of it."""
        record = self._read(saga_id, command)
        if record.definition.choreographed:
            raise Conflict(instead(record))
        if not record.definition.on_temporal:
            return False
        if record.ended and (why := refusal(command, record)):
            raise Conflict(why)
        if self._elsewhere is None:
            raise EngineUnavailable(f"this saga is on Temporal: to reach it this orchestrator needs {self._lacking}")
        self._elsewhere.tell(record, command, note, result)
        return True
