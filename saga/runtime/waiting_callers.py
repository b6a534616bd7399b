"""This module has the callers that wait for a saga's end: how many may, how long, and how they learn of it."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from saga.driver import Phase
from saga.errors import LogUnavailable, NoSuchSaga
from saga.runtime.coordinator import Coordinator
from saga.runtime.driver_pool import DriverPool
from saga.runtime.end_signals import EndSignals
from saga.saga_log import SagaLog
from saga.saga_row import Stored
from saga.unreadable import Unreadable

WAIT_SLOTS = 128  # callers that wait at the same time; whoever finds no slot is answered at once
QUEUED_SECONDS_AT_MOST = 1.0  # how long a caller waits for a saga that stands in line for a service
LOOK_EVERY_SECONDS = 0.2  # how often a caller looks at a driver of this process


class Caller:
    """Somebody who may wait for a saga's end: until a time, and as long as a slot is free when it begins to wait."""

    def __init__(self, waiting: WaitingCallers, seconds: float, until: float):
        self.seconds = seconds
        self.until = until  # by the monotonic clock
        self._waiting = waiting
        self._has_slot: bool | None = None  # None: it has not asked for one

    def waits(self) -> bool:
        """Return whether the caller waits: it has a slot, or takes one now."""
        if self._has_slot is None:
            self._has_slot = self.seconds > 0 and self._waiting.take_slot()
        return self._has_slot

    def leave(self) -> None:
        """Give the slot back, where the caller has one."""
        if self._has_slot:
            self._waiting.leave_slot()
        self._has_slot = False


class WaitingCallers:
    """Hands out the slots in which callers wait, and waits for the ends of their sagas."""

    def __init__(self, pool: DriverPool, end_signals: EndSignals, coordinators: Mapping[str, Coordinator]):
        self._pool = pool
        self._end_signals = end_signals
        self._coordinators = coordinators
        self._lock = threading.Lock()
        self._free_wait_slots = WAIT_SLOTS

    def caller(self, seconds: float) -> Caller:
        """Return a caller who is willing to wait for so many seconds, from now on."""
        return Caller(self, seconds, self._pool.deps.monotonic() + seconds)

    def take_slot(self) -> bool:
        """Take a slot to wait in; False where there is none."""
        with self._lock:
            free = self._free_wait_slots > 0
            self._free_wait_slots -= free
            return free

    def leave_slot(self) -> None:
        """Give a slot back."""
        with self._lock:
            self._free_wait_slots += 1

    def wait(self, saga_id: str, until: float) -> Stored:
        """Return the saga once it has ended; or as it is at `until`, or once it has waited for a service too long.

        Raises NoSuchSaga, and LogUnavailable where nothing is known of the saga.
        """
        monotonic = self._pool.deps.monotonic
        known: Stored | None = None
        looks_in_line, most_in_line = 0, self._most_looks_in_line()
        while True:
            ended = self._end_signals.signal_of(saga_id)
            driver = self._pool.drivers.get(saga_id)
            if driver:
                driver.finished.wait(max(0.0, min(LOOK_EVERY_SECONDS, until - monotonic())))
                known = driver.row
                looks_in_line = looks_in_line + 1 if driver.phase is Phase.QUEUED else 0
                if driver.row.ended or looks_in_line > most_in_line:
                    return known
                if not driver.finished.is_set() and monotonic() < until:
                    continue
            try:
                known = read_saga(self._pool.deps.log, saga_id)
            except LogUnavailable:
                if known is None:
                    raise
            if isinstance(known, Unreadable) or known.ended or monotonic() >= until or self._pool.stop.is_set():
                return known
            if saga_id not in self._pool.drivers:
                interval = self._coordinators[known.definition.coordinator].poll_interval
                ended.wait(min(interval, max(0.0, until - monotonic())))

    def _most_looks_in_line(self) -> int:
        """Return at how many looks in a row a caller may find its saga in line before it waits no more.

        It is fewer, the fewer slots are free.
        """
        return self._free_wait_slots * int(QUEUED_SECONDS_AT_MOST / LOOK_EVERY_SECONDS) // WAIT_SLOTS


def read_saga(log: SagaLog, saga_id: str) -> Stored:
    """Return the saga as the log has it. Raises NoSuchSaga where there is none, and LogUnavailable."""
    found = log.read(saga_id)
    if found is None:
        raise NoSuchSaga(f"there is no saga {saga_id!r}")
    return found
