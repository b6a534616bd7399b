"""Starts sagas, drives them in a bounded pool of threads, and keeps their leases."""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import Any

from saga.choreography import outbox
from saga.choreography.events import EventKind, started, subject
from saga.choreography.observer import Waiting
from saga.context import Context
from saga.definition import CHOREOGRAPHY, ORCHESTRATION, TEMPORAL, SagaDefinition
from saga.driver import Claim, Driver, DriverDeps, Phase
from saga.errors import (
    BadInput,
    KeyReused,
    LeaseLost,
    LogUnavailable,
    NoSuchSaga,
    Overloaded,
    WriteRefused,
)
from saga.machine import STALLED, STARTED, Line, State, begin
from saga.payload import digest
from saga.retry import longest
from saga.runtime.bulkhead import Breakers, Bulkhead, service_of
from saga.saga_log import Record, Stored
from saga.unreadable import Unreadable

logger = logging.getLogger("saga")

DRIVERS = 192  # threads; half of them at the most drive sagas that were recovered,
RECOVERED_MOVING = 8  # and so many of these have moved on lately: the rest of the machine is for new sagas
LATELY = 1.0  # seconds
WAITERS = 128  # callers of wait(); who finds no place is answered at once
IN_FLIGHT = 2000  # sagas in the hands of this process; beyond it, none is accepted
PATIENCE = 1.0  # seconds that a caller waits for a saga which stands in line
POLL = 0.2  # seconds between two looks at a saga that another process drives
POLL_TOLD = 1.0  # ... whose end this process is told of, as a rule


class Engine:
    """The sagas in the hands of this process."""

    def __init__(self, deps: DriverDeps, new_id: Callable[[], str], stop: threading.Event):
        self.deps = deps
        self.breakers = Breakers(rest=min(deps.stall_max, 4 * deps.stall_base))
        self.waiting = Waiting()  # for news of choreographed sagas
        self.notify_relay: Callable[[], None] = lambda: None  # there are events in the outbox
        self.start_workflow: Callable[[Record, float], None] = lambda record, seconds: (
            None
        )  # a new saga, to its workflow
        self._new_id = new_id
        self._closed = stop
        self._drivers: dict[str, Driver] = {}
        self._trials: dict[Driver, str] = {}  # the service that a driver tries again, after its saga has stalled there
        self._bulkhead: Bulkhead[Driver] = Bulkhead()
        self._ready: queue.SimpleQueue[Driver] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._free_wait_slots = WAITERS
        self._threads = [threading.Thread(target=self._work, name=f"driver-{n}", daemon=True) for n in range(DRIVERS)]
        self._threads.append(threading.Thread(target=self._keep_leases, name="leases", daemon=True))

    def open(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self, grace: float = 1.0) -> None:
        """Take no more, hand over what is between two calls, and after `grace` seconds the rest as well."""
        self._closed.set()
        for driver in self._bulkhead.waiting():
            with suppress(LeaseLost, LogUnavailable):
                driver.release()
        deadline = self.deps.monotonic() + grace
        for driver in list(self._drivers.values()):
            driver.finished.wait(max(0.0, deadline - self.deps.monotonic()))
            with suppress(LeaseLost, LogUnavailable):
                driver.give_up()

    @property
    def in_flight(self) -> int:
        """How many sagas it has in its hands."""
        return len(self._drivers)

    @property
    def places_for_recovered(self) -> int:
        """How many more sagas recovery may bring, so that they leave room for new ones."""
        recovered = [
            driver for driver in list(self._drivers.values()) if driver.claim and driver.phase is not Phase.QUEUED
        ]
        lately = self.deps.monotonic() - LATELY
        moving = sum(driver.moved_at > lately for driver in recovered)
        room = min(RECOVERED_MOVING - moving, DRIVERS // 2 - len(recovered), IN_FLIGHT - len(self._drivers))
        return 0 if self._closed.is_set() else max(0, room)

    def start(self, definition: SagaDefinition, input: Mapping[str, Any], key: str | None = None) -> str:
        """Make a new saga durable and drive it; gives its id. With a known key: the id of that saga.

        BadInput where the input does not fit, or the log cannot store it; KeyReused where the key came before with
        another saga, mode or body; Overloaded, LogUnavailable (then nothing was started).
        """
        saga_id, driver = self._begin(definition, input, key, 0.0)
        if driver:
            self.accept(driver)
        return saga_id

    def run(
        self, definition: SagaDefinition, input: Mapping[str, Any], key: str | None = None, seconds: float = 0.0
    ) -> Stored:
        """Start a saga as `start` does, then `wait` for it.

        As long as no call can outlast `seconds`, the caller's own thread drives it: two threads need not wake each
        other for it.
        """
        until = self.deps.monotonic() + seconds
        saga_id, driver = self._begin(definition, input, key, seconds)
        has_slot = seconds > 0 and self._take_wait_slot()
        try:
            if driver and has_slot:
                self._drivers[saga_id] = driver
                self._work_on(driver, until)
                if driver.record.ended:
                    return driver.record
            elif driver:
                self.accept(driver)
            return self._wait(saga_id, until) if has_slot else self.read(saga_id)
        finally:
            self._leave_wait_slot(has_slot)

    def _begin(
        self, definition: SagaDefinition, input: Mapping[str, Any], key: str | None, seconds: float
    ) -> tuple[str, Driver | None]:
        """A new saga's id and driver; the id alone where the key is known, or nobody drives it."""
        try:
            definition.check_input(input)
        except BadInput:
            if key is not None and (known := self.deps.log.find_by_key(key)):  # it fitted once, or is another body
                return _same(known, definition, digest(input), key).id, None
            raise
        if self._closed.is_set() or len(self._drivers) >= IN_FLIGHT:
            raise Overloaded(f"{len(self._drivers)} sagas are in flight here: try again later")
        now, since = round(self.deps.clock(), 6), self.deps.monotonic()  # as the log keeps it
        deadline = now + definition.deadline if definition.deadline else None
        saga, line = begin(definition, input), Line(1, now, STARTED, detail=_mode(definition))
        request_hash = digest(input)
        record = Record(
            id=self._new_id(),
            definition=definition,
            input=input,
            state=saga.state,
            cursor=saga.cursor,
            context=Context().after(line, saga, saga),
            epoch=1,
            owner=self._owner(definition),
            due_at=deadline if definition.choreographed else now + self.deps.lease,
            rounds=0,
            idempotency_key=key,
            request_hash=request_hash,
            error=None,
            started_at=now,
            ended_at=None,
            deadline_at=deadline,
        )
        events = started(definition, record.id, input, now) if definition.choreographed else []
        also = outbox.written(events, self.deps.log.database.engine)
        try:
            known = self.deps.log.begin(record, [line], also)
        except WriteRefused as error:  # all else of a new saga is small, and ours
            raise BadInput(f"input: {error}. Nothing was started", "input") from error
        if known is None:
            self.deps.observe(record, line)
            if definition.choreographed:
                self.notify_relay()
                return record.id, None
            if definition.on_temporal:
                self.start_workflow(record, seconds)
                return record.id, None
            return record.id, Driver(record, self.deps, since=since)
        return _same(known, definition, request_hash, key).id, None

    def _owner(self, definition: SagaDefinition) -> str | None:
        if definition.choreographed:
            return None
        return TEMPORAL if definition.on_temporal else self.deps.owner

    def holds(self, saga_id: str) -> bool:
        """Whether a driver of this process has it for certain, whatever the clock says."""
        driver = self._drivers.get(saga_id)
        return driver is not None and driver.holds

    def claim(self, saga_id: str, epoch: int, trying: str | None = None, seen: float | None = None) -> None:
        """Take over a saga that is due, and drive it; LeaseLost where somebody else was quicker.

        `trying`: the service that it tries again, with the breaker's permission. `seen`: the due time that it had when
        it was looked at, where that is not to be believed.
        """
        deps = self.deps
        now, since = deps.clock(), deps.monotonic()
        due_at = now + deps.lease
        record, held = deps.log.claim(saga_id, epoch, deps.owner, due_by=now, due_at=due_at, seen=seen)
        driver = Driver(record, deps, Claim(held), since)
        if trying:
            self._trials[driver] = trying
        self.accept(driver)

    def preempt(self, record: Record, why: str) -> Driver | None:
        """Take a saga away from whoever drives it; None where it has moved on since `record` was read.

        Its driver, wherever it is, finds its next write refused. The caller writes, then gives the new one to
        `accept`; the log says `why` it was taken over.
        """
        deps = self.deps
        due_at, since = deps.clock() + deps.lease, deps.monotonic()
        try:
            record, held = deps.log.preempt(record.id, record.epoch, record.state, deps.owner, due_at)
        except LeaseLost:
            return None
        before = self._drivers.get(record.id)
        if before and before.record.epoch == record.epoch - 1:  # it is ours to know whether there is a call under way
            held = before.preempt()
        return Driver(record, deps, Claim(held, why), since)

    def note(self, record: Record, states: Collection[State], event: str, detail: Mapping[str, Any]) -> bool:
        """Say something in a saga's log, once, while it is in one of `states`; its driver goes on. False elsewhere."""
        step = record.definition.steps[record.cursor].name
        line = Line(0, round(self.deps.clock(), 6), event, step, detail=detail)
        noted = self.deps.log.note(record.id, states, line)
        if noted:
            self.deps.observe(record, noted)
        return noted is not None

    def accept(self, driver: Driver) -> None:
        """Drive a saga that this process owns."""
        self._drivers[driver.record.id] = driver
        self._ready.put(driver)

    def wait(self, saga_id: str, seconds: float) -> Stored:
        """The saga once it has ended; or as it is after `seconds`, or when all places to wait are taken,
        or when it still stands in line for a service that is slow."""
        has_slot = seconds > 0 and self._take_wait_slot()
        try:
            return self._wait(saga_id, self.deps.monotonic() + seconds) if has_slot else self.read(saga_id)
        finally:
            self._leave_wait_slot(has_slot)

    def _take_wait_slot(self) -> bool:
        with self._lock:
            free = self._free_wait_slots > 0
            self._free_wait_slots -= free
            return free

    def _leave_wait_slot(self, has_slot: bool) -> None:
        with self._lock:
            self._free_wait_slots += has_slot

    def _wait(self, saga_id: str, until: float) -> Stored:
        known: Stored | None = None
        in_line, patience = 0, self._patience()
        while True:
            told = self.waiting.expect(saga_id)
            driver = self._drivers.get(saga_id)
            if driver:
                driver.finished.wait(max(0.0, min(POLL, until - self.deps.monotonic())))
                known = driver.record
                in_line = in_line + 1 if driver.phase is Phase.QUEUED else 0
                if driver.record.ended or in_line > patience:
                    return known
                if not driver.finished.is_set() and self.deps.monotonic() < until:
                    continue
            try:
                known = self.read(saga_id)
            except LogUnavailable:
                if known is None:
                    raise
            late = self.deps.monotonic() >= until or self._closed.is_set()
            if isinstance(known, Unreadable) or known.ended or late:
                return known
            if saga_id not in self._drivers:
                poll = POLL_TOLD if known.definition.on_temporal else POLL
                told.wait(min(poll, max(0.0, until - self.deps.monotonic())))

    def _patience(self) -> int:
        """How often in a row a waiter looks at a saga that stands in line: less, the fewer places to wait are free."""
        return self._free_wait_slots * int(PATIENCE / POLL) // WAITERS

    def read(self, saga_id: str) -> Stored:
        """The saga as the log has it; NoSuchSaga where there is none."""
        found = self.deps.log.read(saga_id)
        if found is None:
            raise NoSuchSaga(f"there is no saga {saga_id!r}")
        return found

    def _work(self) -> None:
        while True:
            self._work_on(self._ready.get())

    def _work_on(self, driver: Driver, until: float | None = None) -> None:
        try:
            if not self._drive(driver, until):
                return
        except LeaseLost:
            pass  # its new owner goes on with it
        except LogUnavailable as error:
            logger.warning("log_unavailable: %s", error)
        except WriteRefused as error:  # not even without a result: the saga keeps its lease, and is tried again
            logger.error("event=write_refused saga_id=%s: %s", driver.record.id, error)
        except Exception:  # a bug: say so; the saga keeps its lease, and is tried again when that ends
            logger.exception("driver_failed saga_id=%s", driver.record.id)
        self._end_trial(driver)
        if self._drivers.get(driver.record.id) is driver:
            del self._drivers[driver.record.id]
        driver.finished.set()

    def _end_trial(self, driver: Driver) -> None:
        if service := self._trials.pop(driver, None):
            self.breakers.withdraw(service)

    def _drive(self, driver: Driver, until: float | None) -> bool:
        """Call by call, until the saga ends, stalls, is lost or handed over: True. False where it must stand in line.

        Another thread goes on with it where the next call might go on past `until`, which is False as well.
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
                    self.breakers.report(trial, driver.record.state not in STALLED)
            finally:
                self._end_trial(driver)
                if (first := self._bulkhead.leave(service)) is not None:
                    self._ready.put(first)
        return True

    def _keep_leases(self) -> None:
        while not self._closed.wait(self.deps.lease / 12):
            for driver in list(self._drivers.values()):
                try:
                    driver.renew_when_old()
                except (LeaseLost, LogUnavailable):
                    continue  # the driver finds out at its next write, or by its own clock
                except Exception:
                    logger.exception("renewal_failed saga_id=%s", driver.record.id)


def _same(known: Stored, definition: SagaDefinition, request_hash: str, key: str | None) -> Stored:
    """The saga that is known by an idempotency key; KeyReused where the key now comes with something else.

    What cannot be read of an unreadable saga counts as the same: it is never started a second time.
    """
    if isinstance(known, Unreadable):
        name, mode = known.name, (known.snapshot or {}).get("mode")
        digest_of_it = known.request_hash if re.fullmatch("[0-9a-f]{64}", known.request_hash or "") else request_hash
    else:
        name, mode, digest_of_it = known.definition.name, known.definition.mode, str(known.request_hash)
    asked = {
        "for another saga": name in (None, definition.name),
        "in another mode": mode == definition.mode or mode not in (ORCHESTRATION, CHOREOGRAPHY),
        "with another body": digest_of_it == request_hash,
    }
    if other := [what for what, same in asked.items() if not same]:
        raise KeyReused(
            f"the Idempotency-Key {key!r} was used {' and '.join(other)}: it belongs to the saga {known.id}"
        )
    return known


def _mode(definition: SagaDefinition) -> dict[str, Any] | None:
    if not definition.choreographed:
        return None
    return {"mode": definition.mode, "subject": subject(definition.name, EventKind.STARTED)}
