"""Starts sagas, drives them in a bounded pool of threads, and keeps their leases."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from saga.definition import SagaDefinition
from saga.driver import Driver, Surroundings
from saga.errors import KeyReused, LeaseLost, LogUnavailable, NoSuchSaga
from saga.log import Record
from saga.machine import STARTED, Line, begin
from saga.payload import digest

logger = logging.getLogger("saga")

POLL = 0.2  # seconds between two looks at a saga that another process drives


class Engine:
    """The sagas in the hands of this process."""

    def __init__(self, around: Surroundings, new_id: Callable[[], str], stop: threading.Event, drivers: int = 64):
        self.around = around
        self._new_id = new_id
        self._places = drivers
        self._drivers: dict[str, Driver] = {}
        self._waiting: queue.SimpleQueue[tuple[Driver, bool | None] | None] = queue.SimpleQueue()
        self._closed = stop
        self._threads = [threading.Thread(target=self._work, name=f"driver-{n}", daemon=True) for n in range(drivers)]
        self._threads.append(threading.Thread(target=self._keep_leases, name="leases", daemon=True))

    def open(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self, grace: float = 1.0) -> None:
        """Take no more, hand over what is between two calls, and after `grace` seconds the rest as well."""
        self._closed.set()
        deadline = self.around.clock() + grace
        for driver in list(self._drivers.values()):
            driver.finished.wait(max(0.0, deadline - self.around.clock()))
            if not driver.finished.is_set():
                with suppress(LeaseLost, LogUnavailable):
                    driver.give_up()

    @property
    def free_places(self) -> int:
        """How many more sagas a thread is free for."""
        return 0 if self._closed.is_set() else max(0, self._places - len(self._drivers))

    @property
    def in_flight(self) -> int:
        """How many sagas it drives."""
        return len(self._drivers)

    def start(self, definition: SagaDefinition, input: Mapping[str, Any], key: str | None = None) -> str:
        """Make a new saga durable and drive it; gives its id. With a known key: the id of that saga.

        BadInput where the input does not fit; KeyReused; LogUnavailable (then nothing was started).
        """
        definition.check_input(input)
        now = self.around.clock()
        saga = begin(definition, input)
        request_hash = digest(input)
        record = Record(
            id=self._new_id(),
            definition=definition,
            input=input,
            state=saga.state,
            cursor=saga.cursor,
            context={},
            epoch=1,
            owner=self.around.owner,
            due_at=now + self.around.lease,
            rounds=0,
            idempotency_key=key,
            request_hash=request_hash,
            error=None,
            started_at=now,
            ended_at=None,
            deadline_at=now + definition.deadline if definition.deadline else None,
        )
        lines = [Line(1, now, STARTED)]
        known = self.around.log.begin(record, lines)
        if known is None:
            self.around.observe(record, lines[0])
            self._accept(Driver(record, lines, self.around), None)
            return record.id
        if known.request_hash != request_hash:
            raise KeyReused(f"the Idempotency-Key {key!r} was used with another body, for the saga {known.id}")
        return known.id

    def claim(self, saga_id: str, epoch: int) -> None:
        """Take over a saga that is due, and drive it; LeaseLost where somebody else was quicker."""
        around = self.around
        if saga_id in self._drivers:
            return
        now = around.clock()
        record, was_driven = around.log.claim(saga_id, epoch, around.owner, due_by=now, due_at=now + around.lease)
        self._accept(Driver(record, around.log.lines(saga_id), around), was_driven)

    def wait(self, saga_id: str, seconds: float) -> tuple[Record, list[Line]]:
        """The saga once it has ended, or as it is after `seconds`."""
        until = self.around.clock() + seconds
        known: tuple[Record, list[Line]] | None = None
        while True:
            driver = self._drivers.get(saga_id)
            if driver:
                driver.finished.wait(max(0.0, until - self.around.clock()))
                known = driver.record, driver.lines
                if driver.record.ended:
                    return known
            try:
                known = self._read(saga_id)
            except LogUnavailable:
                if known is None:
                    raise
            if known[0].ended or self.around.clock() >= until or self._closed.is_set():
                return known
            if saga_id not in self._drivers:
                self._closed.wait(min(POLL, max(0.0, until - self.around.clock())))

    def _read(self, saga_id: str) -> tuple[Record, list[Line]]:
        record = self.around.log.find(saga_id)
        if record is None:
            raise NoSuchSaga(f"there is no saga {saga_id!r}")
        return record, self.around.log.lines(saga_id)

    def _accept(self, driver: Driver, was_driven: bool | None) -> None:
        self._drivers[driver.record.id] = driver
        self._waiting.put((driver, was_driven))

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            driver, was_driven = item
            try:
                if was_driven is not None:
                    driver.take_over(was_driven)
                driver.drive()
            except LeaseLost:
                pass
            except LogUnavailable as error:
                logger.warning("log_unavailable: %s", error, extra={"saga_id": driver.record.id})
            except Exception:  # a bug: say so; the saga keeps its lease, and is tried again when that ends
                logger.exception("driver_failed", extra={"saga_id": driver.record.id})
            finally:
                self._drivers.pop(driver.record.id, None)
                driver.finished.set()

    def _keep_leases(self) -> None:
        while not self._closed.wait(self.around.lease / 12):
            for driver in list(self._drivers.values()):
                try:
                    driver.renew_when_old()
                except (LeaseLost, LogUnavailable):
                    continue  # the driver finds out at its next write, or by its own clock
                except Exception:
                    logger.exception("renewal_failed", extra={"saga_id": driver.record.id})
