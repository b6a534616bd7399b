"""The lease keeper is one thread that renews the leases of the sagas which this process drives."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping

from saga.driver import Driver
from saga.errors import LeaseLost, LogUnavailable

logger = logging.getLogger("saga")

LOOKS_PER_LEASE = 12  # each driver renews its lease at the first look after a third of it is gone


class LeaseKeeper:
    """One thread that has every driver renew its lease in time."""

    def __init__(self, drivers: Mapping[str, Driver], lease: float, stop: threading.Event):
        self._drivers = drivers
        self._interval = lease / LOOKS_PER_LEASE
        self._stop = stop
        self._thread = threading.Thread(target=self._run, name="leases", daemon=True)

    def open(self) -> None:
        """Start the thread; it ends once `stop` is set."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._interval):
            for driver in list(self._drivers.values()):
                try:
                    driver.renew_when_old()
                except (LeaseLost, LogUnavailable):
                    continue  # the driver finds out at its next write, or by its own clock
                except Exception:
                    logger.exception("renewal_failed saga_id=%s", driver.row.id)
