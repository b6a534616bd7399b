"""Draws spans of time as the bars of one row of a chart: to scale, none too narrow to see, none on another. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.dashboard.formatting import length
from orchestrator.dashboard.time_axis import WIDTH, Scale, Span

NARROWEST = 40  # hundredths of a percent
ROOM_FOR_COUNT = 350  # hundredths of a percent that a bar's count takes
ATTEMPTS = ("attempt", "lost", "cut")  # the kinds of spans that are always seen; the others give way to them


@dataclass(frozen=True)
class Bar:
    """A stretch of a row; `outcome` is done, refused, unknown or empty.

    `kind`: attempt, wait, stalled, running; lost: an attempt whose answer is not recorded, in which the orchestrator
    was gone; cut: one that an operator did not wait for. `count`: the attempts that are drawn as one, `counted` where
    there is room to say so. `seq` is the number of the log's line that tells of it. A bar that goes on has `until`:
    the time at which it would reach the end of the axis; it grows from `since`, both as the API writes times.
    """

    kind: str
    left: float
    width: float
    title: str
    outcome: str = ""
    count: int = 1
    counted: str = ""
    seq: int | None = None
    since: str = ""
    until: str = ""


@dataclass
class _Drawn:
    """A bar while its row is drawn: from `left` to `right`, in hundredths of a percent, and the spans it stands for."""

    left: int
    right: int
    spans: list[Span]

    @property
    def attempts(self) -> list[Span]:
        return [span for span in self.spans if span.kind in ATTEMPTS]

    @property
    def answered(self) -> bool:
        """Whether it stands for an attempt that began and ended at known times, and so cannot be shortened."""
        return any(span.kind == "attempt" for span in self.spans)


def bars(spans: Sequence[Span], scale: Scale) -> Iterator[Bar]:
    """A row's bars, each where it was in time.

    What is too narrow to see is drawn wider. Attempts that would then lie on each other are one bar, which counts
    them; a wait or a stall is shortened, or left out, where it would lie on an attempt.
    """
    drawn: list[_Drawn] = []
    for span in spans:
        _add(drawn, span, min(scale.at(span.begin), WIDTH - NARROWEST), scale.at(span.end))
    edges = [each.left for each in drawn[1:]] + [WIDTH]
    for each, edge in zip(drawn, edges, strict=False):
        yield _bar(each, edge - each.right)


def _add(drawn: list[_Drawn], span: Span, left: int, right: int) -> None:
    last = drawn[-1] if drawn else None
    if last is None or left >= last.right:
        drawn.append(_Drawn(left, max(right, left + NARROWEST), [span]))
    elif span.kind not in ATTEMPTS and right - last.right >= NARROWEST:
        drawn.append(_Drawn(last.right, right, [span]))
    elif span.kind in ATTEMPTS and not last.answered and left - last.left >= NARROWEST:
        last.right = left
        drawn.append(_Drawn(left, max(right, left + NARROWEST), [span]))
    else:
        last.spans.append(span)
        last.right = max(last.right, right)


def _bar(drawn: _Drawn, room: int) -> Bar:
    """The bar of these spans; `room` is what is free behind it, in hundredths of a percent."""
    left, width = drawn.left / 100, (drawn.right - drawn.left) / 100
    first, attempts = drawn.spans[0], drawn.attempts
    if not attempts:
        return Bar(first.kind, left, width, first.title, first.outcome, seq=first.seq)
    last, count = attempts[-1], len(attempts)
    if count == 1:
        return Bar(last.kind, left, width, last.title, last.outcome, seq=last.seq)
    outcomes = Counter(span.outcome or "not recorded" for span in attempts)
    came_to = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.items())
    title = f"{count} attempts in {length(drawn.spans[-1].end - first.begin)}: {came_to}; the last: {last.title}"
    counted = f"×{count}" if room >= ROOM_FOR_COUNT or drawn.right - drawn.left >= ROOM_FOR_COUNT else ""
    return Bar(last.kind, left, width, title, last.outcome, count, counted, last.seq)
