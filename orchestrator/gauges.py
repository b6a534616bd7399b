"""Gauges of what waits: stalled sagas, dead letters and the like, as the saga log and the broker know them.

They are found out when somebody asks, but not more often than every few seconds, however many ask. A log or a broker
that does not answer keeps no answer back: its gauges are left out, and another one says that it is away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from typing import Generic, TypeVar

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from saga.errors import BrokerUnavailable, LogUnavailable
from saga.saga_log import SagaLog
from saga.views.backlog import Backlog, backlog
from saga.views.representation import NEEDS_ATTENTION_AFTER_ROUNDS

logger = logging.getLogger("saga")

FRESH = 5.0  # seconds
WITHIN = 2.0  # seconds: less than those that Prometheus waits
COUNTED = 10_000  # at the most: who has more of them stalled need not know how many

T = TypeVar("T")


class Gauges(Collector):
    """Collects the gauges at a scrape; `letters` counts the dead letters, and is None where choreography is off."""

    def __init__(
        self,
        log: SagaLog,
        letters: Callable[[], int] | None,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        within: float = WITHIN,
    ):
        self._backlog = Asked(lambda: backlog(log, clock(), COUNTED), monotonic, within)
        self._letters = Asked(letters, monotonic, within) if letters else None

    def describe(self) -> list[Metric]:
        """No metric: the registry need not ask the log and the broker before it accepts this collector."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges, without those of a log or a broker that does not answer."""
        backlog = self._backlog.value()
        yield _gauge("saga_log_up", "1 where the saga log answers, else 0.", backlog is not None)
        if backlog:
            yield from _of(backlog)
        if self._letters:
            letters = self._letters.value()
            yield _gauge(
                "saga_broker_up", "1 where the broker of choreographed sagas answers, else 0.", letters is not None
            )
            if letters is not None:
                yield _gauge("saga_dead_letters", "Events that wait, parked, until an operator replays them.", letters)


def _of(backlog: Backlog) -> Iterator[Metric]:
    yield _gauge("saga_stalled", f"Sagas that are stalled, counted up to {COUNTED}.", backlog.stalled)
    attention = f"Sagas that have not ended, and have stalled {NEEDS_ATTENTION_AFTER_ROUNDS} times or are overdue."
    yield _gauge("saga_needs_attention", attention, backlog.needs_attention)
    yield _gauge("saga_overdue", "Choreographed sagas that have not ended by their deadline.", backlog.overdue)
    oldest = "Seconds since the oldest saga that is due became so; 0 where none is due."
    yield _gauge("saga_oldest_due_seconds", oldest, backlog.oldest_due)


def _gauge(name: str, means: str, value: float) -> Metric:
    return GaugeMetricFamily(name, means, value=float(value))


class Asked(Generic[T]):
    """A value that is asked for on a thread of its own, so that no scrape waits longer than `within` seconds for it."""

    def __init__(self, ask: Callable[[], T], monotonic: Callable[[], float], within: float):
        self._ask = ask
        self._monotonic = monotonic
        self._within = within
        self._lock = threading.Lock()
        self._asked: Future[T | None] | None = None
        self._answered_at = float("-inf")

    def value(self) -> T | None:
        """Return the last answer, asked for again where it is older than FRESH; None where none comes in time."""
        with self._lock:
            asked = self._asked
            if asked is None or (asked.done() and self._monotonic() - self._answered_at > FRESH):
                asked = self._asked = Future()
                threading.Thread(target=self._find_out, args=(asked,), name="gauges", daemon=True).start()
        try:
            return asked.result(self._within)
        except NotYet:
            return None

    def _find_out(self, asked: Future[T | None]) -> None:
        value = None
        try:
            value = self._ask()
        except (LogUnavailable, BrokerUnavailable) as error:
            logger.warning("event=no_gauges: %s", error)
        except Exception:  # a bug: say so; what else is measured is still to be had
            logger.exception("event=gauges_failed")
        self._answered_at = self._monotonic()
        asked.set_result(value)
