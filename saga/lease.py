"""A lease is the time for which a driver may believe that nobody else drives its saga. It is kept by two clocks.

The lease's end is written into the saga's row (`due_at`), for other processes to read. So it is a time of day, by a
clock that somebody may set. The driver itself goes by the monotonic clock, which nobody can set: it makes no call once
that says that the lease may have ended. This is the lease of Gray and Cheriton, "Leases" (SOSP 1989), section 5. How
other processes judge a lease that they did not take is in saga/runtime/lease_watch.py.
"""

from __future__ import annotations

from collections.abc import Callable


class Lease:
    """The time for which one driver holds one saga. All times are in seconds; `clock` gives them since the epoch."""

    def __init__(
        self, seconds: float, clock: Callable[[], float], monotonic: Callable[[], float], due_at: float, since: float
    ):
        """Hold a lease that the saga's row says ends at `due_at`, and that began `since`, by the monotonic clock."""
        self.seconds = seconds
        self._clock = clock
        self._monotonic = monotonic
        self._due_at = due_at
        self._ends = since + seconds

    def prolong(self, due_at: float, since: float) -> None:
        """Note that the row now says `due_at`; `since` is the monotonic clock's reading before that was written."""
        self._due_at, self._ends = due_at, since + self.seconds

    @property
    def ended(self) -> bool:
        """Whether the lease may have ended: another driver may have the saga, so that no call may be made."""
        return self._monotonic() >= self._ends

    @property
    def looks_ended(self) -> bool:
        """Whether the lease has ended for a process that reads `due_at` by the clock, as where a clock was set."""
        return self._clock() >= self._due_at

    @property
    def is_old(self) -> bool:
        """Whether a third of the lease is gone by either clock, or the clock was set by as much, either way."""
        gone = max(abs(self._clock() + self.seconds - self._due_at), self._monotonic() + self.seconds - self._ends)
        return gone >= self.seconds / 3
