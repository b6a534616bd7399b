"""Claims what is due, at start and at every interval: stalled sagas, and those whose lease has run out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress

from saga.bulkhead import service_of
from saga.engine import Engine
from saga.errors import LeaseLost, LogUnavailable
from saga.log import Record
from saga.machine import STALLED, State
from saga.retry import jittered

logger = logging.getLogger("saga")

BATCH = 32  # sagas claimed in one go, so that several orchestrators share the work
BREATH = 0.02  # seconds between two looks while there is more than may be claimed


class Recovery:
    """One thread that looks for sagas without a driver, and gives them to the engine."""

    def __init__(self, engine: Engine, interval: float, overdue: Callable[[Record], None] = lambda record: None):
        self._engine = engine
        self._interval = interval  # seconds
        self._overdue = overdue  # told of a choreographed saga whose deadline has passed
        self._freed = False
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
            around.log.free(around.owner, around.clock())
            self._freed = True
        places = min(BATCH, engine.places_for_recovered)
        if not places:
            return True
        due = around.log.due(around.clock(), places)
        records = around.log.find_many((saga_id for saga_id, _ in due), bare=True) if due else {}
        postponed: dict[tuple[str, int], float] = {}
        for saga_id, epoch in due:
            record = records.get(saga_id)
            if record and record.definition.choreographed:
                self._mark(record)
                continue
            service = self._retried_service(record)
            if service and not engine.breakers.permits(service):
                rest = engine.breakers.rest(service)  # spread, so that they do not all come back at once
                postponed[saga_id, epoch] = around.clock() + rest + jittered(rest, around.random)
            elif not self._claim(saga_id, epoch, service) and service:
                engine.breakers.withdraw(service)
        around.log.postpone(postponed)
        return len(due) == places

    def _mark(self, record: Record) -> None:
        with suppress(LeaseLost):  # it has moved on, and is looked at again
            self._overdue(record)

    def _claim(self, saga_id: str, epoch: int, trying: str | None) -> bool:
        try:
            self._engine.claim(saga_id, epoch, trying)
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
        return service_of(url or step.action)

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
