"""`Calls` counts a participant's calls, over HTTP or by an event, and how long they took, for Prometheus.

A service is one process with one worker (saga/process/server.py), so the numbers of that process are those of the
service. They begin at 0 each time it starts.
"""

from __future__ import annotations

from functools import cache

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from saga.barrier import Handled
from saga.machine import Direction

# A caller may send any name of a step and must not fill the memory with them: so many are counted by name, and all
# further ones under one name.
STEPS_COUNTED_BY_NAME = 50
OTHER_STEPS = "other"


class Calls:
    """The calls since the process started."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "saga_participant_calls",
            "Calls of a step's action or compensation, by how they were dealt with.",
            ["step", "call", "verdict"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "saga_participant_call_seconds",
            "How long the local transactions of calls took, with all that they waited for.",
            ["step", "call"],
            registry=self._registry,
        )
        self._steps: set[str] = set()
        self._count_of, self._seconds_of = cache(self._calls.labels), cache(self._seconds.labels)

    def count(self, step: str, call: Direction, handled: Handled, seconds: float) -> None:
        """Count one call of a step, and the seconds that it took."""
        step = self._known(step)
        self._count_of(step, call, handled).inc()
        self._seconds_of(step, call).observe(seconds)

    def metrics(self) -> bytes:
        """Give all numbers in the Prometheus text format."""
        return generate_latest(self._registry)

    def _known(self, step: str) -> str:
        """Return the name that a step is counted under."""
        if step not in self._steps:
            if len(self._steps) >= STEPS_COUNTED_BY_NAME:
                return OTHER_STEPS
            self._steps.add(step)
        return step
