"""`LeaseWatch` tells recovery whether a lease that another process holds has ended. Pure: it is told the time.

The end of a lease is written by its owner's clock, which need not agree with ours: one of the two may have been set.
But a driver that lives renews its lease, so we watch the lease by a clock that nobody sets. It has ended

- once it has not been renewed for a whole lease: so long after its last renewal its driver stops by itself;
- at the time that is written, where that lay ahead when it was first seen and it has not been renewed for half a lease,
  which a driver that lives never lets pass. So where the clocks agree nothing is lost by watching.

The model is the lease that is timed by each side's own clock: Gray and Cheriton, "Leases" (SOSP 1989), section 5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Seen = tuple[str, int, float]  # a saga's id, its epoch, and when it is due


@dataclass(frozen=True)
class _First:
    """When a lease was first seen as it is now, by the monotonic clock; and whether its end lay ahead then."""

    at: float
    ahead: bool


class LeaseWatch:
    """The leases that it was shown the last time, each with when it was first seen so. Times are in seconds."""

    def __init__(self, lease: float):
        self._lease = lease
        self._first: dict[Seen, _First] = {}

    @property
    def watched(self) -> set[str]:
        """The ids of the sagas whose leases are being watched."""
        return {saga_id for saga_id, _, _ in self._first}

    def over(self, found: Iterable[Seen], others: Iterable[Seen], clock: float, monotonic: float) -> list[Seen]:
        """Return the leases that have ended, of those `found` and of those `others` that are watched and unchanged.

        From now on it watches these, and forgets all others. `clock` and `monotonic` are the clocks' readings now.
        """
        before, self._first, ended = self._first, {}, []
        for seen in [*found, *(each for each in others if each in before)]:
            first = self._first[seen] = before.get(seen) or _First(monotonic, ahead=seen[2] > clock)
            unchanged = monotonic - first.at
            as_written = first.ahead and seen[2] <= clock
            if unchanged >= self._lease or (as_written and unchanged >= self._lease / 2):
                ended.append(seen)
        return ended
