"""Claims what is due, at start and at every interval: stalled sagas, and those whose lease has run out."""

from __future__ import annotations

import logging
import threading

from saga.engine import Engine
from saga.errors import LeaseLost, LogUnavailable

logger = logging.getLogger("saga")

BATCH = 32  # sagas claimed in one go, so that several orchestrators share the work


class Recovery:
    """One thread that looks for sagas without a driver, and gives them to the engine."""

    def __init__(self, engine: Engine, interval: float):
        self._engine = engine
        self._interval = interval  # seconds
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

    def look(self) -> int:
        """Claim at most one batch of what is due; gives how many were due."""
        around = self._engine.around
        due = around.log.due(around.clock(), min(BATCH, self._engine.free_places))
        for saga_id, epoch in due:
            if self._closed.is_set():
                break
            try:
                self._engine.claim(saga_id, epoch)
            except LeaseLost:
                continue  # another orchestrator was quicker
        return len(due)

    def _run(self) -> None:
        freed = False
        while not self._closed.is_set():
            found = 0
            try:
                if not freed:
                    around = self._engine.around
                    around.log.free(around.owner, around.clock())
                    freed = True
                found = self.look()
            except LogUnavailable as error:
                logger.warning("log_unavailable: %s", error)
            except Exception:
                logger.exception("recovery_failed")
            if found < BATCH:
                self._closed.wait(self._interval)
