"""Claims what is due, at start and at every interval: stalled sagas, and those whose lease has run out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from saga.bulkhead import service_of
from saga.engine import Engine
from saga.errors import LeaseLost, LogUnavailable
from saga.lease_watch import LeaseWatch
from saga.log import Record
from saga.machine import STALLED, State
from saga.retry import jittered

logger = logging.getLogger("saga")

BATCH = 32  # sagas claimed in one go, so that several orchestrators share the work
WATCHED = 500  # leases of others
BREATH = 0.02  # seconds between two looks while there is more than may be claimed


class Recovery:
    """One thread that looks for sagas without a driver, and gives them to the engine."""

    def __init__(self, engine: Engine, interval: float, overdue: Callable[[Record], None] = lambda record: None):
        self._engine = engine
        self._interval = interval  # seconds
        self._overdue = overdue  # told of a choreographed saga whose deadline has passed
        self._freed = False
        self._opened_at, self._opened = round(engine.around.clock(), 6), engine.around.monotonic()
        self._watch = LeaseWatch(engine.around.lease)
        self._watched_at = float("-inf")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recovery", daemon=True)

    def open(self) -> None:
        """Start looking."""
        self._thread.start()

    def close(self) -> None:
        """Claim nothing more."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def look(self) -> bool:
        """Claim at most one batch of what is due; gives whether more may be due. May raise LogUnavailable."""
        around, engine = self._engine.around, self._engine
        if not self._freed:  # at start: what a process of our name held, it holds no more
            now = around.clock()
            opened_at = min(self._opened_at, now - (around.monotonic() - self._opened))  # should it have been set back
            around.log.free(around.owner, now, before=opened_at + around.lease)
            self._freed = True
        places = min(BATCH, engine.places_for_recovered)
        if not places:
            return True
        due: list[tuple[str, int, float | None]] = [
            (saga_id, epoch, None) for saga_id, epoch in around.log.due(around.clock(), places, around.owner)
        ]
        due += self._overdue_leases()[: places - len(due)]
        records = around.log.find_many((saga_id for saga_id, _, _ in due), bare=True) if due else {}
        postponed: dict[tuple[str, int], float] = {}
        for saga_id, epoch, seen in due:
            if engine.holds(saga_id):  # our own clock was set, and its lease is about to be renewed
                continue
            record = records.get(saga_id)
            if record and record.definition.choreographed:
                self._mark(record)
                continue
            service = self._retried_service(record)
            if service and not engine.breakers.permits(service):
                rest = engine.breakers.rest(service)  # spread, so that they do not all come back at once
                postponed[saga_id, epoch] = around.clock() + rest + jittered(rest, around.random)
            elif not self._claim(saga_id, epoch, service, seen) and service:
                engine.breakers.withdraw(service)
        around.log.postpone(postponed)
        return len(due) == places

    def _mark(self, record: Record) -> None:
        with suppress(LeaseLost):  # it has moved on, and is looked at again
            self._overdue(record)

    def _overdue_leases(self) -> list[tuple[str, int, float | None]]:
        """What others hold no more, and what is due so late that nobody can have meant it: (id, epoch, due time)."""
        around = self._engine.around
        now, since = around.clock(), around.monotonic()
        if since < self._watched_at + self._interval:
            return []
        self._watched_at = since
        slack = self._interval / 2  # of clocks that agree
        found = around.log.doubted(
            around.owner,
            soon=now + around.lease / 2,
            longest_lease=now + around.lease + slack,
            longest_rest=now + around.stall_max + slack,
            most=WATCHED,
        )
        missing = self._watch.watched - {saga_id for saga_id, _, _ in found}
        return list(self._watch.over(found, around.log.due_times(missing), now, since))

    def _claim(self, saga_id: str, epoch: int, trying: str | None, seen: float | None) -> bool:
        try:
            self._engine.claim(saga_id, epoch, trying, seen)
        except LeaseLost:
            return False  # another orchestrator was quicker
        return True

    def _retried_service(self, record: Record | None) -> str | None:
        """The service that a stalled saga would try again."""
        if record is None or record.state not in STALLED:
            return None
        step = record.definition.steps[record.cursor]
        backward = record.state in (State.STALLED_SEALING, State.STALLED_COMPENSATING)
        url = step.compensation if backward else step.action
        return service_of(url) if url else None

    def _run(self) -> None:
        while not self._closed.is_set():
            more = False
            try:
                more = self.look()
            except LogUnavailable as error:
                logger.warning("log_unavailable: %s", error)
            except Exception:
                logger.exception("recovery_failed")
            self._closed.wait(min(BREATH, self._interval) if more else self._interval)
