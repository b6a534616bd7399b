"""The built-in coordinator has this process's own drivers drive its sagas, call by call.

A command takes the saga away from its driver by raising its epoch, so that of an operator and a driver exactly one
wins. Only a cancel while the pivot is called leaves it with its driver: a line is added beside the driver's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from saga import progress
from saga.definition import SagaDefinition
from saga.driver import Driver
from saga.errors import BadInput, Conflict, LeaseLost
from saga.machine import CANCEL_REQUESTED, Event, Line
from saga.runtime.coordinator import WaitingCaller, begin
from saga.runtime.driver_pool import DriverPool
from saga.runtime.permitted_commands import (
    BY_OPERATOR,
    REFUSALS,
    WAITING_FOR_THE_PIVOT,
    permitted_commands,
    readable,
    refusal,
    resolved_by_hand,
    takes_no_result,
)
from saga.runtime.waiting_callers import read_saga
from saga.saga_row import SagaRow, Stored

PREEMPT_TRIES = 20  # at a saga whose driver is busy writing


class BuiltInCoordinator:
    """Starts sagas in the pool, and preempts their drivers for an operator."""

    poll_interval = 0.2  # seconds: another process that drives the saga does not tell this one of its end

    def __init__(self, pool: DriverPool):
        self._pool = pool
        self._deps = pool.deps

    def check_start(self, definition: SagaDefinition, key: str | None = None) -> None:
        """Accept every saga: it needs nobody but this process."""

    def start(self, row: SagaRow, line: Line, caller: WaitingCaller) -> Stored:
        """Write a new saga, and drive it: in the caller's own thread where the caller waits for it.

        So two threads need not wake each other, as long as no call can outlast the caller's patience.
        """
        since = self._deps.monotonic()
        row = replace(row, owner=self._deps.owner, due_at=row.started_at + self._deps.lease)
        if known := begin(self._deps, row, line):
            return known
        driver = Driver(row, self._deps, since=since)
        if caller.waits():
            self._pool.drive_here(driver, caller.until)
        else:
            self._pool.accept(driver)
        return driver.row

    def permitted_commands(self, row: SagaRow) -> set[str]:
        """Return the commands that the saga's state permits an operator now."""
        return permitted_commands(row)

    def cancel(self, row: SagaRow) -> None:
        """Roll the saga back. While the pivot's outcome is open that outcome decides, and the wish is only logged."""
        for current in self._tries(row, "cancel"):
            cause = progress.cancelled(current)
            if cause is None:
                if self._log_wish_to_cancel(current):
                    return
            elif self._preempt(current, Event.CANCELLED, cause=cause, detail=BY_OPERATOR):
                return

    def resume(self, row: SagaRow) -> None:
        """Make the call again that stalled the saga."""
        for current in self._tries(row, "resume"):
            if self._preempt(current, Event.RESUMED, detail=BY_OPERATOR):
                return

    def resolve(self, row: SagaRow, note: str, result: Mapping[str, Any] | None = None) -> None:
        """Go on as if the call that stalled the saga had succeeded.

        `result` is what the action would have answered. Raises BadInput where the call is a compensation and there is
        a result all the same.
        """
        for current in self._tries(row, "resolve", result):
            if self._preempt(current, Event.RESOLVED, detail=resolved_by_hand(note, result), result=result):
                return

    def abandon(self, row: SagaRow, note: str) -> None:
        """Raise Conflict: a saga that is driven is cancelled instead."""
        raise Conflict(refusal("abandon", row))

    def when_due(self, row: SagaRow) -> bool:
        """Leave it to recovery, which claims it."""
        return False

    def _tries(self, row: SagaRow, command: str, result: Mapping[str, Any] | None = None) -> Iterator[SagaRow]:
        """Yield the saga as it is at each try.

        Raises Conflict where its state forbids the command, or where it has moved on at every try.
        """
        for number in range(PREEMPT_TRIES):
            current = readable(read_saga(self._deps.log, row.id), command) if number else row
            if why := refusal(command, current):
                raise Conflict(why)
            if result is not None and (why := takes_no_result(current)):
                raise BadInput(why, "result")
            yield current
        raise Conflict(f"{REFUSALS[command]}: it is moving too fast, try again")

    def _preempt(self, row: SagaRow, event: Event, **said: Any) -> bool:
        """Take the saga away from its driver, write down what the operator decided, and let the pool go on with it.

        The pool goes on with the saga even where the log did not take the decision. Returns False where the saga has
        moved on since `row` was read, or another operator was quicker: then nothing was written.
        """
        driver = self._pool.preempt(row, why=event)
        if driver is None:
            return False
        try:
            driver.record_event(event, **said)
        except LeaseLost:
            return False  # the saga is another driver's, so the pool must not have this one
        except Exception:
            self._pool.accept(driver)
            raise
        self._pool.accept(driver)
        return True

    def _log_wish_to_cancel(self, row: SagaRow) -> bool:
        """Add a line to the saga's log while its pivot is open, once; its driver goes on. False where it is not."""
        step = row.definition.steps[row.cursor].name
        line = Line(0, round(self._deps.clock(), 6), CANCEL_REQUESTED, step, detail=BY_OPERATOR)
        added = self._deps.log.add_line(row.id, WAITING_FOR_THE_PIVOT, line)
        if added:
            self._deps.observe(row, added)
        return added is not None
