"""The Prometheus metrics of an orchestrator, and the lines of its output, both made from lines of the saga log."""

from __future__ import annotations

import logging
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from saga.call import Verdict
from saga.machine import ATTEMPT, ENDED, STARTED, Event, Line
from saga.runtime.driver_pool import DriverPool
from saga.saga_row import SagaRow

logger = logging.getLogger("saga")


class Telemetry:
    """Counts since the process started; a saga's details are in the log, not here."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._started = Counter("saga_started", "Sagas started.", ["saga"], registry=self.registry)
        self._ended = Counter("saga_ended", "Sagas ended.", ["saga", "state"], registry=self.registry)
        self._events = Counter("saga_events", "Events of sagas.", ["saga", "event"], registry=self.registry)
        self._attempts = Histogram(
            "saga_attempt_seconds",
            "Attempts of calls, by what they came to.",
            ["saga", "step", "call", "verdict"],
            registry=self.registry,
        )
        self._of_events, self._of_attempts = cache(self._events.labels), cache(self._attempts.labels)
        self._in_flight = Gauge("saga_in_flight", "Sagas that this process drives now.", registry=self.registry)
        self._unreadable = Gauge(
            "saga_unreadable", "Sagas that this process has found and cannot read.", registry=self.registry
        )

    def show_pool(self, pool: DriverPool) -> None:
        """Show how many sagas `pool` drives, and how many of its log cannot be read."""
        self._in_flight.set_function(lambda: pool.in_flight)
        self._unreadable.set_function(lambda: len(pool.deps.log.aside))

    def show_gauges(self, gauges: Collector) -> None:
        """Let a scrape collect these gauges as well."""
        self.registry.register(gauges)

    def observe(self, row: SagaRow, line: Line) -> None:
        """Count a line, and log it; called with every line once it is durable."""
        name, detail = row.definition.name, line.facts
        if line.event == ATTEMPT:
            attempts = self._of_attempts(name, line.step, detail.get("call"), detail.get("verdict"))
            attempts.observe((line.duration_ms or 0) / 1000)
        elif line.event == STARTED:
            self._started.labels(name).inc()
        else:
            self._of_events(name, line.event).inc()
            if detail.get("state") in ENDED:
                self._ended.labels(name, detail["state"]).inc()
        log_line(row.id, line)

    def metrics(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self.registry)


def log_line(saga_id: str, line: Line) -> None:
    """Write a line of the saga log to the process's output, without payload and message: both may be personal."""
    detail = line.facts
    went_well = detail.get("verdict") == Verdict.DONE if line.event == ATTEMPT else line.event == Event.ACTION_DONE
    if went_well and detail.get("state") not in ENDED:
        return  # the saga goes on as it should: its log tells that
    facts = {
        "saga_id": saga_id,
        "event": line.event,
        "step": line.step,
        "call": detail.get("call"),
        "verdict": detail.get("verdict"),
        "attempt": line.attempt,
        "status_code": line.status_code,
        "state": detail.get("state"),
    }
    logger.info(" ".join(f"{name}={value}" for name, value in facts.items() if value is not None))
