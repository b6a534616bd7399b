"""A bulkhead keeps a bad service from taking all threads and all time: it bounds calls to each service, and retries.

Bulkhead and circuit breaker are Nygard's ("Release It!"). The breaker holds back only the calls that stalled sagas make
again. A new saga's action is always called, so that a service that is back is seen to be back at once.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from contextlib import suppress
from functools import lru_cache
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from circuitbreaker import CircuitBreaker

CALLS_PER_SERVICE = 64  # at a time
FAILURES_TO_OPEN = 5

T = TypeVar("T")


@lru_cache(maxsize=1024)
def service_of(url: str) -> str:
    """Return the service that a URL belongs to: its scheme, host and port, without a user and a password."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class Bulkhead(Generic[T]):
    """Has a number of places for the calls to each service. Who finds no place waits in line, without a thread."""

    def __init__(self, places: int = CALLS_PER_SERVICE):
        self._places = places
        self._taken: dict[str, int] = defaultdict(int)
        self._lines: dict[str, deque[T]] = defaultdict(deque)
        self._lock = threading.Lock()

    def enter(self, service: str, who: T) -> bool:
        """Take a place and return True; where there is none, put `who` in line for `leave`, and return False."""
        with self._lock:
            if self._taken[service] < self._places:
                self._taken[service] += 1
                return True
            self._lines[service].append(who)
            return False

    def leave(self, service: str) -> T | None:
        """Free a place, and return the first in line, which may now try again; None where nobody waits."""
        with self._lock:
            self._taken[service] -= 1
            line = self._lines[service]
            return line.popleft() if line else None

    def waiting(self) -> list[T]:
        """Return all that wait in line, at whichever service."""
        with self._lock:
            return [who for line in self._lines.values() for who in line]


class Breakers:
    """Says for each service whether stalled sagas may try it now. Times are in seconds."""

    def __init__(self, rest: float):
        self._rest = rest
        self._breakers: dict[str, CircuitBreaker] = {}
        self._trying: dict[str, int] = defaultdict(int)
        self._trusted: set[str] = set()  # services whose latest answer was good
        self._lock = threading.Lock()

    def permits(self, service: str) -> bool:
        """Return whether one more stalled saga may try the service; if so, the service counts as being tried.

        A few may at a time; where they failed, one after a rest; and all once it has succeeded. Whoever is permitted
        tells `report` what came of the try, and calls `withdraw` in any case.
        """
        with self._lock:
            breaker = self._breaker(service)
            at_once = FAILURES_TO_OPEN if breaker.closed else 0 if breaker.opened else 1
            permitted = service in self._trusted or self._trying[service] < at_once
            self._trying[service] += permitted
            return permitted

    def report(self, service: str, succeeded: bool) -> None:
        """Take note of what came of a try."""
        with self._lock, suppress(_Failed), self._breaker(service):
            if succeeded:
                self._trusted.add(service)
            else:
                self._trusted.discard(service)
                raise _Failed

    def withdraw(self, service: str) -> None:
        """Take note that a try has ended, or did not take place."""
        with self._lock:
            self._trying[service] -= 1

    def rest(self, service: str) -> float:
        """Return how many seconds pass until another try makes sense."""
        with self._lock:
            return max(self._rest / 2, float(self._breaker(service).open_remaining))

    def _breaker(self, service: str) -> CircuitBreaker:
        if service not in self._breakers:
            self._breakers[service] = CircuitBreaker(FAILURES_TO_OPEN, self._rest, expected_exception=_Failed)
        return self._breakers[service]


class _Failed(Exception):
    pass
