"""The time axis of a chart: from seconds to hundredths of a percent of its width, and its round marks. Pure.

It is linear, always: a bar that is twice as long took twice as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from orchestrator.dashboard.formatting import length

WIDTH = 10_000  # whole numbers, so that bars meet exactly
MARKS = 6  # at most
APART = 500  # at least, between two marks

_TICKS = (
    *(figure * 10**power for power in range(-3, 1) for figure in (1, 2, 5)),
    10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400,
    *(figure * 10**power * 86_400 for power in range(4) for figure in (2, 5, 10)),
)  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A stretch of time, in seconds since the epoch, and the number of the log's line that tells of it."""

    kind: str
    begin: float
    end: float
    title: str
    outcome: str = ""
    seq: int | None = None

    @property
    def length(self) -> float:
        """The length of the stretch in seconds."""
        return self.end - self.begin


@dataclass(frozen=True)
class Tick:
    """A round mark on the axis, in time since the start."""

    left: float
    label: str


@dataclass(frozen=True)
class Scale:
    """Maps seconds since the epoch to hundredths of a percent."""

    start: float
    end: float

    def at(self, time: float) -> int:
        """The position of a time on the axis, from 0 to WIDTH."""
        whole = self.end - self.start
        return round(WIDTH * min(1.0, max(0.0, (time - self.start) / whole))) if whole > 0 else 0

    def ticks(self) -> Iterator[Tick]:
        """The marks: round numbers."""
        whole = self.end - self.start
        step = next((step for step in _TICKS if whole / step < MARKS), whole / MARKS or 1.0)
        drawn, told = -APART, ""
        for number in range(math.floor(whole / step) + 1):
            left, label = self.at(self.start + number * step), length(number * step, 3) if number else "0"
            if left >= drawn + APART and label != told:
                drawn, told = left, label
                yield Tick(left / 100, label)
