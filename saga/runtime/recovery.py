"""Claims what is due, at start and at every interval: stalled sagas, and those whose lease has run out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from saga.errors import LeaseLost, LogUnavailable, SagaUnreadable
from saga.machine import STALLED, State
from saga.record import Record
from saga.retry import jittered
from saga.runtime.bulkhead import service_of
from saga.runtime.coordinator import Coordinator
from saga.runtime.driver_pool import DriverPool
from saga.runtime.due_sagas import DueSagas
from saga.runtime.lease_watch import LeaseWatch
from saga.set_aside import Cause
from saga.unreadable import Unreadable

logger = logging.getLogger("saga")

BATCH = 32  # sagas claimed in one go, so that several orchestrators share the work
WATCHED = 500  # leases of others
SIFTED = 256  # looked through at once where some of those that are due cannot be read
BREATH = 0.02  # seconds between two looks while there is more than may be claimed


_Due = tuple[str, int, float | None, Record | None]  # id, epoch, the due time that is not believed, and its row


class Recovery:
    """One thread that looks for sagas without a driver, and gives them to the pool of drivers."""

    def __init__(self, pool: DriverPool, coordinators: Mapping[str, Coordinator], interval: float):
        self._pool = pool
        self._deps = pool.deps
        self._coordinators = coordinators
        self._interval = interval  # seconds
        self._due_sagas = DueSagas(pool.deps.log)
        self._freed = False
        self._opened_at, self._opened = round(pool.deps.clock(), 6), pool.deps.monotonic()
        self._watch = LeaseWatch(pool.deps.lease)
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
        deps, pool = self._deps, self._pool
        if not self._freed:  # at start: what a process of our name held, it holds no more
            now = deps.clock()
            opened_at = min(self._opened_at, now - (deps.monotonic() - self._opened))  # should it have been set back
            self._due_sagas.free(deps.owner, now, before=opened_at + deps.lease)
            self._freed = True
        places = min(BATCH, pool.places_for_recovered)
        if not places:
            return True
        due, more = self._due(places)
        postponed: dict[tuple[str, int], float] = {}
        for saga_id, epoch, seen, record in due:
            if pool.holds(saga_id):  # our own clock was set, and its lease is about to be renewed
                continue
            try:
                self._see_to(saga_id, epoch, seen, record, postponed)
            except (LogUnavailable, LeaseLost):
                raise
            except Exception as error:  # a bug, which must not stop the others; this one is left alone for a while
                logger.exception("recovery_failed saga_id=%s", saga_id)
                deps.log.aside.put(Unreadable(saga_id, f"recovery fails at it ({type(error).__name__})"), Cause.LOG)
        self._due_sagas.postpone(postponed)
        return more

    def _due(self, places: int) -> tuple[list[_Due], bool]:
        """At most `places` sagas that are due and can be read, and whether there may be more.

        The log sets aside those that cannot, and gives others in their stead: they take up no places.
        """
        deps, most = self._deps, places
        leases = self._overdue_leases()
        while True:
            due: list[tuple[str, int, float | None]] = [
                (saga_id, epoch, None) for saga_id, epoch in self._due_sagas.due(deps.clock(), most, deps.owner)
            ]
            full = len(due) == most
            due += leases[: most - len(due)]
            found = deps.log.find_many((saga_id for saga_id, _, _ in due), bare=True) if due else {}
            sagas = [(*each, found.get(each[0])) for each in due]
            readable: list[_Due] = [(*each, saga) for *each, saga in sagas if not isinstance(saga, Unreadable)]  # type: ignore[misc]
            if len(readable) in (len(due), places) or len(readable) > places or self._closed.is_set():
                return readable[:places], full
            most = max(places, SIFTED)

    def _see_to(
        self,
        saga_id: str,
        epoch: int,
        seen: float | None,
        record: Record | None,
        postponed: dict[tuple[str, int], float],
    ) -> None:
        """One saga that is due."""
        deps, pool = self._deps, self._pool
        if record and self._coordinators[record.definition.coordinator].when_due(record):
            return
        service = self._retried_service(record)
        if service and not pool.breakers.permits(service):
            rest = pool.breakers.rest(service)  # spread, so that they do not all come back at once
            postponed[saga_id, epoch] = deps.clock() + rest + jittered(rest, deps.random)
            return
        claimed = False
        try:
            claimed = self._claim(saga_id, epoch, service, seen)
        finally:
            if service and not claimed:
                pool.breakers.withdraw(service)

    def _overdue_leases(self) -> list[tuple[str, int, float | None]]:
        """What others hold no more, and what is due so late that nobody can have meant it: (id, epoch, due time)."""
        deps = self._deps
        now, since = deps.clock(), deps.monotonic()
        if since < self._watched_at + self._interval:
            return []
        self._watched_at = since
        slack = self._interval / 2  # of clocks that agree
        found = self._due_sagas.doubted(
            deps.owner,
            soon=now + deps.lease / 2,
            longest_lease=now + deps.lease + slack,
            longest_rest=now + deps.stall_max + slack,
            most=WATCHED,
        )
        missing = self._watch.watched - {saga_id for saga_id, _, _ in found}
        return list(self._watch.over(found, self._due_sagas.due_times(missing), now, since))

    def _claim(self, saga_id: str, epoch: int, trying: str | None, seen: float | None) -> bool:
        try:
            self._pool.claim(saga_id, epoch, trying, seen)
        except LeaseLost:
            return False  # another orchestrator was quicker
        except SagaUnreadable:
            return False  # for one of its lines: set aside by the log
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
