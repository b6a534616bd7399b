"""The time axis of a chart: from seconds to hundredths of a percent of its width, and its round marks. Pure.

It is linear, with one exception, so that a long rest does not hide what happened around it. A wait, a stall or a time
without an orchestrator is cut where it is longer than 10 times all that is shorter together: the shorter ones of these,
and the time outside them; and so are those that are longer still. The cut ones share half of the width in equal parts,
whatever their length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.dashboard.formatting import length

WIDTH = 10_000  # whole numbers, so that bars meet exactly
CUT_FROM = 10  # times all that is shorter
MARKS = 6  # at most, where nothing is cut
SHORTEST = 0.001  # seconds: less than that beside the cut is nothing to show
APART = 500  # at least, between two marks

_TICKS = (
    *(figure * 10**power for power in range(-3, 1) for figure in (1, 2, 5)),
    10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400,
    *(figure * 10**power * 86_400 for power in range(4) for figure in (2, 5, 10)),
)  # fmt: skip


@dataclass(frozen=True)
class Span:
    """A stretch of time, in seconds since the epoch."""

    kind: str
    begin: float
    end: float
    title: str
    outcome: str = ""

    @property
    def length(self) -> float:
        """The length of the stretch in seconds."""
        return self.end - self.begin


@dataclass(frozen=True)
class Tick:
    """A round mark on the axis, in time since the start."""

    left: float
    label: str


class Scale:
    """Maps seconds since the epoch to hundredths of a percent; `cut` holds the spans that are cut."""

    def __init__(self, start: float, end: float, spans: Sequence[Span]):
        cut = _cut(end - start, [span for span in spans if span.kind in ("wait", "stalled", "gone")])
        self.cut = frozenset(cut)
        self.linear = end - start - sum(span.length for span in cut)  # seconds
        self._pieces: list[tuple[float, float, float]] = []  # begin, end, width
        share = WIDTH / 2 / len(cut) if cut else 0.0
        rate = (WIDTH - share * len(cut)) / self.linear if self.linear > 0 else 0.0
        for span in sorted(cut, key=lambda span: span.begin):
            self._pieces += [(start, span.begin, (span.begin - start) * rate), (span.begin, span.end, share)]
            start = span.end
        self._pieces.append((start, end, (end - start) * rate))

    def at(self, time: float) -> float:
        """The position of a time on the axis, from 0 to WIDTH."""
        begun = ((begin, end, width) for begin, end, width in self._pieces if time > begin)
        return sum(width * min(1.0, (time - begin) / (end - begin)) for begin, end, width in begun if end > begin)

    def ticks(self) -> Iterator[Tick]:
        """The marks: round numbers, at places that are not cut."""
        start = self._pieces[0][0]
        step = next((step for step in _TICKS if self.linear / step < MARKS), self.linear / MARKS or 1.0)
        drawn, told = -float(APART), ""
        for begin, end, _ in self._pieces[::2]:
            for number in range(math.ceil((begin - start) / step), math.floor((end - start) / step) + 1):
                left, label = self.at(start + number * step), length(number * step, 3) if number else "0"
                if left >= drawn + APART and label != told:
                    drawn, told = left, label
                    yield Tick(round(left / 100, 2), label)


def _cut(whole: float, rests: Sequence[Span]) -> list[Span]:
    """The waits and stalls that are cut; `whole` is the length of the axis in seconds."""
    ascending = sorted(rests, key=lambda span: span.length)
    shorter = whole - sum(span.length for span in rests)
    for index, span in enumerate(ascending):
        if shorter >= SHORTEST and span.length > CUT_FROM * shorter:
            return ascending[index:]
        shorter += span.length
    return []
