"""Recovery claims what is due, at the start and at every interval: stalled sagas, and those whose lease has ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import NamedTuple

from saga.errors import LeaseLost, LogUnavailable, SagaUnreadable
from saga.machine import STALLED, State
from saga.retry import jittered
from saga.runtime.bulkhead import service_of
from saga.runtime.coordinator import Coordinator
from saga.runtime.driver_pool import DriverPool
from saga.runtime.due_sagas import DueSagas
from saga.runtime.lease_watch import LeaseWatch
from saga.saga_row import SagaRow
from saga.set_aside import Cause
from saga.unreadable import Unreadable

logger = logging.getLogger("saga")

CLAIMS_PER_LOOK = 32  # so few that several orchestrators share the work
LEASES_WATCHED_AT_MOST = 500  # of other processes
SAGAS_SIFTED_AT_ONCE = 256  # sagas looked through at once where some of those that are due cannot be read
PAUSE_SECONDS = 0.02  # between two looks while there is more than may be claimed


class _Due(NamedTuple):
    """A saga that is due."""

    saga_id: str
    epoch: int
    seen: float | None = None  # its due time, where that is not to be believed
    row: SagaRow | None = None  # its row, read bare


class Recovery:
    """One thread that looks for sagas without a driver, and gives them to the pool of drivers."""

    def __init__(self, pool: DriverPool, coordinators: Mapping[str, Coordinator], interval: float):
        self._pool = pool
        self._deps = pool.deps
        self._coordinators = coordinators
        self._interval = interval  # seconds
        self._due_sagas = DueSagas(pool.deps.log)
        self._freed = False  # what an earlier process of our name held
        self._opened_at, self._opened = round(pool.deps.clock(), 6), pool.deps.monotonic()
        self._watch = LeaseWatch(pool.deps.lease)
        self._watched_at = float("-inf")
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recovery", daemon=True)

    def open(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Claim nothing more."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def look(self) -> bool:
        """Claim at most one batch of what is due; return whether more may be due. Raises LogUnavailable."""
        deps, pool = self._deps, self._pool
        if not self._freed:
            now = deps.clock()
            # The clock may have been set back since this process began.
            opened_at = min(self._opened_at, now - (deps.monotonic() - self._opened))
            self._due_sagas.free(deps.owner, now, before=opened_at + deps.lease)
            self._freed = True
        places = min(CLAIMS_PER_LOOK, pool.places_for_recovered)
        if not places:
            return True
        due, more = self._due(places)
        postponed: dict[tuple[str, int], float] = {}
        for saga in due:
            if pool.holds(saga.saga_id):  # our own clock was set, and its lease is about to be renewed
                continue
            try:
                self._handle(saga, postponed)
            except (LogUnavailable, LeaseLost):
                raise
            except Exception as error:  # a bug, which must not stop the others; this one is left alone for a while
                logger.exception("recovery_failed saga_id=%s", saga.saga_id)
                reason = f"recovery fails at it ({type(error).__name__})"
                deps.log.aside.put(Unreadable(saga.saga_id, reason), Cause.LOG)
        self._due_sagas.postpone(postponed)
        return more

    def _due(self, places: int) -> tuple[list[_Due], bool]:
        """Return at most `places` sagas that are due and can be read, and whether there may be more.

        The log sets aside those that cannot be read, and gives others in their place.
        """
        deps, most = self._deps, places
        leases = self._overdue_leases()
        while True:
            due = [_Due(*each) for each in self._due_sagas.due(deps.clock(), most, deps.owner)]
            full = len(due) == most
            due += leases[: most - len(due)]
            found = deps.log.find_many((each.saga_id for each in due), bare=True) if due else {}
            rows = ((each, found.get(each.saga_id)) for each in due)
            readable = [each._replace(row=row) for each, row in rows if not isinstance(row, Unreadable)]
            if len(readable) in (len(due), places) or len(readable) > places or self._closed.is_set():
                return readable[:places], full
            most = max(places, SAGAS_SIFTED_AT_ONCE)

    def _handle(self, saga: _Due, postponed: dict[tuple[str, int], float]) -> None:
        """Claim a saga that is due, unless its coordinator has another way, or its service had better be left alone.

        In the latter case it adds the time until which the saga is to rest to `postponed`.
        """
        deps, pool, row = self._deps, self._pool, saga.row
        if row and self._coordinators[row.definition.coordinator].when_due(row):
            return
        service = self._retried_service(row)
        if service and not pool.breakers.permits(service):
            rest = pool.breakers.rest(service)  # spread, so that they do not all come back at once
            postponed[saga.saga_id, saga.epoch] = deps.clock() + rest + jittered(rest, deps.random)
            return
        claimed = False
        try:
            claimed = self._claim(saga, service)
        finally:
            if service and not claimed:
                pool.breakers.withdraw(service)

    def _overdue_leases(self) -> list[_Due]:
        """Return sagas that their owners hold no more, and those with a due time that no owner can have meant."""
        deps = self._deps
        now, since = deps.clock(), deps.monotonic()
        if since < self._watched_at + self._interval:
            return []
        self._watched_at = since
        slack = self._interval / 2  # by which clocks that agree may differ
        found = self._due_sagas.doubted(
            deps.owner,
            soon=now + deps.lease / 2,
            longest_lease=now + deps.lease + slack,
            longest_rest=now + deps.stall_max + slack,
            most=LEASES_WATCHED_AT_MOST,
        )
        missing = self._watch.watched - {saga_id for saga_id, _, _ in found}
        ended = self._watch.over(found, self._due_sagas.due_times(missing), now, since)
        return [_Due(*each) for each in ended]

    def _claim(self, saga: _Due, trial_of: str | None) -> bool:
        """Have the pool claim a saga; False where it does not get it."""
        try:
            self._pool.claim(saga.saga_id, saga.epoch, trial_of, saga.seen)
        except LeaseLost:
            return False  # another orchestrator was quicker
        except SagaUnreadable:
            return False  # one of its lines cannot be read: the log has set it aside
        return True

    def _retried_service(self, row: SagaRow | None) -> str | None:
        """Return the service that a stalled saga would call again; None where there is none to call."""
        if row is None or row.state not in STALLED:
            return None
        step = row.definition.steps[row.cursor]
        backward = row.state in (State.STALLED_SEALING, State.STALLED_COMPENSATING)
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
            self._closed.wait(min(PAUSE_SECONDS, self._interval) if more else self._interval)
