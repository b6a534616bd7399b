"""The tail follows the saga log as one stream of lines, and leaves none out. `GET /events` uses it.

A line gets its id when it is written, and is seen once its transaction has committed; so a line with a lower id may be
seen later. Therefore the tail stops before an id that is missing, until its line is there, or certainly never will be.
"""

from __future__ import annotations

from collections.abc import Callable

from saga.runtime.log_lines import LogLines

LOOK_BACK_LINES = 1000  # lines before the newest: longer than any transaction under way at the start can be behind
UNSEEN_SECONDS_AT_MOST = (
    1.0  # seconds between the moment that an id is given and that its row can be seen as uncommitted
)


class Tail:
    """Knows up to which id the log is settled: no line will be added at or below `position`."""

    def __init__(self, lines: LogLines, clock: Callable[[], float]):
        self._lines = lines
        self._clock = clock
        self._holes: dict[tuple[int, int], float] | None = None  # first and last missing id: when that was first seen
        self.position: int | None = None

    def advance(self, most: int = 5000) -> int:
        """Move over what is settled, at most `most` lines; return the new position. Raises LogUnavailable."""
        position = self.position if self.position is not None else max(0, self._lines.last_id() - LOOK_BACK_LINES)
        now = self._clock()
        known, holes = self._holes, {}
        settled = None
        for line_id in self._lines.ids(position, most):
            if line_id > position + 1:
                hole = (position + 1, line_id - 1)
                holes[hole] = now - UNSEEN_SECONDS_AT_MOST if known is None else known.get(hole, now)
                if settled is None and (now - holes[hole] < UNSEEN_SECONDS_AT_MOST or self._lines.any_between(*hole)):
                    settled = position
            position = line_id
        self._holes = holes
        self.position = position if settled is None else settled
        return self.position
