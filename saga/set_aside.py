"""`SetAside` remembers the sagas that this process cannot read: each is logged once, counted, and left alone.

Nothing of this is in the database. What one version cannot read, another may, and it must find the saga as it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto

from saga.unreadable import Unreadable

logger = logging.getLogger("saga")

REST_SECONDS = 60.0  # after which a saga is looked at again, doubling: somebody may have mended it
REST_SECONDS_AT_MOST = 600.0


class Cause(Enum):
    """Which part of a saga cannot be read."""

    ROW = auto()
    LINE = auto()  # its row can be read, and one of its lines cannot
    LOG = auto()  # all of it can be read, and does not make sense together


@dataclass(frozen=True)
class _Entry:
    saga: Unreadable
    cause: Cause
    until: float  # it need not be looked at before
    rest: float


class SetAside:
    """The sagas that are set aside; shared by all that read the log in this process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._entries: dict[str, _Entry] = {}
        self._lock = threading.Lock()

    def put(self, saga: Unreadable, cause: Cause = Cause.ROW) -> None:
        """Set a saga aside that cannot be read. It is logged unless the same reason is known of it."""
        with self._lock:
            known = self._entries.get(saga.id)
            if known and saga.state is None:
                saga = replace(saga, state=known.saga.state)
            now, rest = self._clock(), known.rest if known else REST_SECONDS
            if known and known.until <= now:
                rest = min(2 * rest, REST_SECONDS_AT_MOST)
            until = known.until if known and known.until > now else now + rest
            self._entries[saga.id] = _Entry(saga, cause, until, rest)
        if known is None or known.saga.reason != saga.reason:
            logger.error("event=saga_unreadable saga_id=%s: %s", saga.id, saga.reason)

    def drop(self, saga_id: str, cause: Cause | None = None) -> None:
        """Take a saga back that can be read, or is gone; where a cause is given, only if it was set aside for that."""
        if saga_id in self._entries:
            with self._lock:
                entry = self._entries.get(saga_id)
                if entry and cause in (None, entry.cause):
                    self._entries.pop(saga_id, None)

    def resting(self) -> frozenset[str]:
        """Return the ids of the sagas that nobody need look at now."""
        if not self._entries:
            return frozenset()
        now = self._clock()
        with self._lock:
            return frozenset(saga_id for saga_id, entry in self._entries.items() if entry.until > now)

    def despite_its_row(self, saga_id: str, bare: bool = False) -> tuple[str, Cause] | None:
        """Return why a saga cannot be read though its row can; None where nothing is known, or a look is due.

        `bare`: the row was read without its input and its results, so that what is wrong may be in those.
        """
        entry = self._entries.get(saga_id)
        if entry is None or (entry.cause is Cause.ROW and not bare) or entry.until <= self._clock():
            return None
        return entry.saga.reason, entry.cause

    def ids(self, most: int) -> list[str]:
        """Return the ids of at most `most` sagas, those that were set aside last."""
        with self._lock:
            return list(self._entries)[-most:]

    def states(self) -> list[str]:
        """Return the states that their rows name, one for each saga whose state can be read."""
        with self._lock:
            return [entry.saga.state for entry in self._entries.values() if entry.saga.state]

    def __len__(self) -> int:
        return len(self._entries)
