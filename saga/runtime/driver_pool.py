"""The driver pool drives sagas in a bounded number of threads, and says which thread works on which saga.

A saga is in the pool from its start or its claim until it ends, stalls, or is lost. A thread works on it call by call;
where its next call finds no place at the service, the saga waits in line there, and the thread takes another one.
"""

from __future__ import annotations

import logging
import queue
import threading
from contextlib import suppress

from saga.driver import Claim, Driver, DriverDeps, Phase
from saga.errors import LeaseLost, LogUnavailable, WriteRefused
from saga.machine import STALLED
from saga.retry import longest
from saga.runtime.bulkhead import Breakers, Bulkhead, service_of
from saga.runtime.lease_keeper import LeaseKeeper
from saga.saga_row import SagaRow

logger = logging.getLogger("saga")

DRIVER_THREADS = 192  # at most half of them drive sagas that were recovered
# At most so many recovered sagas have moved on within LATELY_SECONDS: the rest of the machine is for new sagas.
RECOVERED_MOVING_AT_MOST = 8
LATELY_SECONDS = 1.0
SAGAS_IN_FLIGHT_AT_MOST = 2000  # in the pool; while there are as many, none is started


class DriverPool:
    """The sagas that this process drives, and its threads."""

    def __init__(self, deps: DriverDeps, stop: threading.Event):
        self.deps = deps
        self.stop = stop  # is set once the process takes no more
        self.breakers = Breakers(rest=min(deps.stall_max, 4 * deps.stall_base))
        self.drivers: dict[str, Driver] = {}  # by the saga's id
        self._trials: dict[Driver, str] = {}  # the service that a driver tries again, after its saga has stalled there
        self._bulkhead: Bulkhead[Driver] = Bulkhead()
        self._ready: queue.SimpleQueue[Driver] = queue.SimpleQueue()
        names = [f"driver-{number}" for number in range(DRIVER_THREADS)]
        self._threads = [threading.Thread(target=self._run, name=name, daemon=True) for name in names]
        self._leases = LeaseKeeper(self.drivers, deps.lease, stop)

    def open(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()
        self._leases.open()

    def close(self, grace: float = 1.0) -> None:
        """Take no more, hand over what is between two calls, and after `grace` seconds the rest as well."""
        self.stop.set()
        for driver in self._bulkhead.waiting():
            with suppress(LeaseLost, LogUnavailable):
                driver.release()
        deadline = self.deps.monotonic() + grace
        for driver in list(self.drivers.values()):
            driver.finished.wait(max(0.0, deadline - self.deps.monotonic()))
            with suppress(LeaseLost, LogUnavailable):
                driver.give_up()

    @property
    def in_flight(self) -> int:
        """How many sagas are in the pool."""
        return len(self.drivers)

    @property
    def takes_more(self) -> bool:
        """Whether a new saga may be started here."""
        return not self.stop.is_set() and len(self.drivers) < SAGAS_IN_FLIGHT_AT_MOST

    @property
    def places_for_recovered(self) -> int:
        """How many more sagas recovery may bring, so that they leave room for new ones."""
        drivers = list(self.drivers.values())
        recovered = [driver for driver in drivers if driver.claim and driver.phase is not Phase.QUEUED]
        lately = self.deps.monotonic() - LATELY_SECONDS
        moving = sum(driver.moved_at > lately for driver in recovered)
        room = min(
            RECOVERED_MOVING_AT_MOST - moving,
            DRIVER_THREADS // 2 - len(recovered),
            SAGAS_IN_FLIGHT_AT_MOST - len(drivers),
        )
        return 0 if self.stop.is_set() else max(0, room)

    def holds(self, saga_id: str) -> bool:
        """Return whether a driver of this pool certainly has the saga, whatever the time of day is."""
        driver = self.drivers.get(saga_id)
        return driver is not None and driver.holds

    def accept(self, driver: Driver) -> None:
        """Have a thread of the pool drive a saga that this process owns."""
        self.drivers[driver.row.id] = driver
        self._ready.put(driver)

    def drive_here(self, driver: Driver, until: float) -> None:
        """Drive a saga that this process owns in the calling thread.

        A thread of the pool takes over before the first call that might go on past `until`, by the monotonic clock.
        """
        self.drivers[driver.row.id] = driver
        self.work_on(driver, until)

    def claim(self, saga_id: str, epoch: int, trial_of: str | None = None, seen: float | None = None) -> None:
        """Take over a saga that is due, and drive it.

        `trial_of`: the service that its next call tries again, with the breaker's permission. `seen`: the due time that
        the saga had when it was looked at, where that is not to be believed. Raises LeaseLost where somebody else was
        quicker, SagaUnreadable, and LogUnavailable.
        """
        deps = self.deps
        now, since = deps.clock(), deps.monotonic()
        due_at = now + deps.lease
        row, held = deps.log.claim(saga_id, epoch, deps.owner, due_by=now, due_at=due_at, seen=seen)
        driver = Driver(row, deps, Claim(held), since)
        if trial_of:
            self._trials[driver] = trial_of
        self.accept(driver)

    def preempt(self, row: SagaRow, why: str) -> Driver | None:
        """Take a saga away from whoever drives it; return None where it has moved on since `row` was read.

        Its driver, wherever it is, finds its next write refused. The caller writes with the new driver, and then gives
        it to `accept`; the log says `why` the saga was taken over.
        """
        deps = self.deps
        due_at, since = deps.clock() + deps.lease, deps.monotonic()
        try:
            row, held = deps.log.preempt(row.id, row.epoch, row.state, deps.owner, due_at)
        except LeaseLost:
            return None
        before = self.drivers.get(row.id)
        if before and before.row.epoch == row.epoch - 1:  # it is ours to know whether there is a call under way
            held = before.preempt()
        return Driver(row, deps, Claim(held, why), since)

    def _run(self) -> None:
        while True:
            self.work_on(self._ready.get())

    def work_on(self, driver: Driver, until: float | None = None) -> None:
        """Drive a saga until it ends, stalls, is lost, or waits in line; no error of it harms the thread."""
        try:
            if not self._drive(driver, until):
                return
        except LeaseLost:
            pass  # its new owner goes on with it
        except LogUnavailable as error:
            logger.warning("log_unavailable: %s", error)
        except WriteRefused as error:  # not even without a result: the saga keeps its lease, and is tried again
            logger.error("event=write_refused saga_id=%s: %s", driver.row.id, error)
        except Exception:  # a bug: say so; the saga keeps its lease, and is tried again when that ends
            logger.exception("driver_failed saga_id=%s", driver.row.id)
        self._end_trial(driver)
        if self.drivers.get(driver.row.id) is driver:
            del self.drivers[driver.row.id]
        driver.finished.set()

    def _drive(self, driver: Driver, until: float | None) -> bool:
        """Make call after call; return True once the saga ends or rests.

        Returns False where the saga waits for a place or for a thread: then the line or the queue has its driver.
        """
        while (call := driver.next_call()) is not None:
            step, service = call.step, service_of(call.url)
            driver.queue()  # before another thread can be given it
            if until and self.deps.monotonic() + longest(step.timeout, step.retries, step.backoff) > until:
                self._ready.put(driver)
                return False
            if not self._bulkhead.enter(service, driver):
                return False
            try:
                driver.make(call)
                if trial := self._trials.get(driver):
                    self.breakers.report(trial, driver.row.state not in STALLED)
            finally:
                self._end_trial(driver)
                if (first := self._bulkhead.leave(service)) is not None:
                    self._ready.put(first)
        return True

    def _end_trial(self, driver: Driver) -> None:
        if service := self._trials.pop(driver, None):
            self.breakers.withdraw(service)
