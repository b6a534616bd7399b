"""A saga's time as a Gantt chart: a row for each step and direction, a bar for each attempt, wait and stall. Pure.

Positions are percentages of the whole width. A very long wait or stall is cut (see `axis`) and says so
(`compressed`); its title tells how long it truly was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.dashboard.attempts import answer_of
from orchestrator.dashboard.formatting import length
from orchestrator.dashboard.log_reader import LEFT_OUT, by_operator, cut_short
from orchestrator.dashboard.time_axis import WIDTH, Scale, Span, Tick
from saga.machine import ATTEMPT, CLAIMED, ENDED, NOTES, STALLED, Direction, Event, State
from saga.views.lines import detail_of
from saga.views.phrasing import Phrases

NARROWEST = 40  # hundredths of a percent
BARS_AT_MOST = 100  # in a row; all before them become one

_OUTCOMES = ("done", "refused", "unknown")
_UNDOING = (State.STALLED_SEALING, State.STALLED_COMPENSATING)


@dataclass(frozen=True)
class Bar:
    """A stretch of a row; `outcome` is done, refused, unknown or empty.

    `kind`: attempt, wait, stalled, running; cut: an operator took the saga meanwhile; gone: its orchestrator was.
    """

    kind: str
    left: float
    width: float
    title: str
    outcome: str = ""
    compressed: bool = False


@dataclass(frozen=True)
class TimelineRow:
    """A step's action ("B") or its compensation ("undo B"); the bars are in order and do not overlap."""

    label: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Timeline:
    """What to draw; `start` and `end` are in seconds since the epoch."""

    start: float
    end: float
    ticks: tuple[Tick, ...]
    rows: tuple[TimelineRow, ...]


def timeline(saga: Mapping[str, Any], lines: Sequence[Mapping[str, Any]], now: float | None) -> Timeline:
    """The chart of a saga's representation and its log; one that has not ended goes on to `now`, where that is given.

    Every step has a row, also one that was never called; those of compensations follow in the order of their calls.
    """
    reading = _Reading([step["name"] for step in saga["steps"]], Phrases(saga["mode"]))
    for index, line in enumerate(lines):
        if line["event"] == CLAIMED and detail_of(line).get("interrupted"):
            following = lines[index + 1]["event"] if index + 1 < len(lines) else ""
            reading.taken(line, cut_short(saga, lines, index), by_operator(line, following))
        else:
            reading.take(line)
    if now is not None:
        reading.go_on_to(now, saga)
    rows = {label: _merged(spans) for label, spans in reading.rows.items()}
    scale = Scale(reading.start, reading.until, [span for spans in rows.values() for span in spans])
    drawn = tuple(TimelineRow(label, tuple(_bars(spans, scale))) for label, spans in rows.items())
    return Timeline(reading.start, reading.until, tuple(scale.ticks()), drawn)


class _Reading:
    """The log, line by line, as spans of time. A saga makes one call at a time, so no two of them overlap."""

    def __init__(self, steps: Sequence[str], say: Phrases):
        self._say = say
        self.rows: dict[str, list[Span]] = {step: [] for step in steps}
        self.start = self.until = 0.0
        self._state = ""
        self._stalled = ""  # the row of the call that stalled
        self._rounds = 0  # that the present call has failed in
        self._attempt = 0  # the last one of the present call
        self._told_all = True  # all lines of the present call
        self._waits: str | None = None  # not None: the time before its next attempt is a wait, of this kind

    def _time(self, line: Mapping[str, Any]) -> float:
        at = datetime.fromisoformat(line["at"]).timestamp()
        if not self.start:
            self.start = self.until = at - (line["duration_ms"] or 0) / 1000
        return max(self.until, at)  # several clocks may have written it

    def taken(self, line: Mapping[str, Any], call: tuple[str, bool] | None, by_operator: bool) -> None:
        """The line of a claim that took the saga from its driver, perhaps in the middle of this call."""
        at = self._time(line)
        self._attempt += 1
        if call:
            step, undoing = call
            words = f"{step} {Direction.COMPENSATION if undoing else Direction.ACTION}, attempt {self._attempt}"
            why = "an operator took the saga" if by_operator else "the orchestrator was gone, and another took over"
            kind, outcome = ("cut", "unknown") if by_operator else ("gone", "")
            title = f"{words}: no answer is recorded; after {{}} {why}"
            self._add(f"undo {step}" if undoing else step, kind, at, title, outcome)
        self._waits = None
        self.until = at

    def take(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        at = self._time(line)
        event, detail = line["event"], detail_of(line)
        if event == LEFT_OUT:
            self._left_out(detail)
        elif event == ATTEMPT:
            self._attempted(line, detail, at)
        elif event == CLAIMED:
            self._waits = ", taken over meanwhile"
        elif event not in NOTES:
            self._moved(line, str(detail.get("state")), at)

    def _left_out(self, detail: Mapping[str, Any]) -> None:
        """Lines that are not shown: what happened meanwhile is one bar, in the row of the call before them."""
        until = datetime.fromisoformat(detail["until"]).timestamp()
        row = self._stalled or next((label for label in reversed(self.rows) if self.rows[label]), "")
        if row:
            self._add(row, "stalled", until, f"{detail['lines']} lines of the log are left out here: {{}}")
        self.until, self._waits, self._stalled, self._told_all = max(self.until, until), None, "", False

    def _attempted(self, line: Mapping[str, Any], detail: Mapping[str, Any], at: float) -> None:
        call, verdict = detail.get("call"), str(detail.get("verdict"))
        label = f"undo {line['step']}" if call == Direction.COMPENSATION else str(line["step"])
        self._attempt = line["attempt"] or 0
        seconds = (line["duration_ms"] or 0) / 1000
        begin = max(self.until, at - seconds)
        if self._waits is not None:
            self._add(label, "wait", begin, f"waited {{}} before attempt {self._attempt}{self._waits}")
        title = self._say(
            "bar: attempt",
            step=line["step"],
            call=call,
            number=self._attempt,
            answer=answer_of(line, self._say),
            time=length(seconds),
            verdict=verdict,
        )
        self.until, self._waits = begin, ""
        self._add(label, "attempt", at, title, verdict if verdict in _OUTCOMES else "")

    def _moved(self, line: Mapping[str, Any], state: str, at: float) -> None:
        if self._stalled:
            self._add(self._stalled, "stalled", at, f"stalled {{}}{self._round}")
        self._state, self.until, self._waits, self._stalled = state, at, None, ""
        if state in STALLED:
            self._rounds += 1
            self._stalled = f"undo {line['step']}" if state in _UNDOING else line["step"]
        elif line["event"] != Event.RESUMED:
            self._rounds = self._attempt = 0
            self._told_all = True

    @property
    def _round(self) -> str:
        """The number of the round, in brackets; empty where lines are left out that would tell it."""
        return f" (round {self._rounds})" if self._told_all else ""

    def go_on_to(self, now: float, saga: Mapping[str, Any]) -> None:
        """Add what is going on now, if the saga has not ended."""
        if not self.start or self._state in ENDED or saga["ended_at"]:
            return
        if self._stalled:
            self._add(self._stalled, "stalled", now, f"stalled {{}} so far{self._round}")
        for step in saga["steps"] if not self._stalled else ():
            if step["status"] in ("RUNNING", "COMPENSATING"):
                label, call = (step["name"], Direction.ACTION)
                if step["status"] == "COMPENSATING":
                    label, call = f"undo {label}", Direction.COMPENSATION
                title = self._say("bar: running", step=step["name"], call=call, number=self._attempt + 1)
                self._add(label, "running", now, title)
        self.until = max(self.until, now)

    def _add(self, label: str, kind: str, end: float, title: str, outcome: str = "") -> None:
        """A span from the end of the last one; `{}` in its title is its length."""
        if end > self.until or kind == "attempt":
            title = title.replace("{}", length(end - self.until), 1)
            self.rows.setdefault(label, []).append(Span(kind, self.until, end, title, outcome))
        self.until = max(self.until, end)


def _merged(spans: list[Span]) -> list[Span]:
    """The spans of a row, with those before the last BARS_AT_MOST put together as one."""
    old, rest = spans[: 1 - BARS_AT_MOST], spans[1 - BARS_AT_MOST :]
    if len(spans) <= BARS_AT_MOST:
        return spans
    attempts = sum(span.kind == "attempt" for span in old)
    title = f"{attempts} earlier attempts, and the waits between them: {length(old[-1].end - old[0].begin)}"
    return [Span("stalled", old[0].begin, old[-1].end, title), *rest]


def _bars(spans: Sequence[Span], scale: Scale) -> Iterator[Bar]:
    """A row's bars: none too narrow to see, so that some give way to their neighbours, in the order of the spans."""
    edges: list[tuple[int, int]] = []
    free, limit = 0, WIDTH
    for span in spans:
        left = max(free, round(scale.at(span.begin)))
        free = max(left + NARROWEST, round(scale.at(span.end)))
        edges.append((left, free))
    for index, (left, right) in reversed(list(enumerate(edges))):
        right = min(right, limit)
        limit = min(left, right - NARROWEST)
        edges[index] = limit, right
    for span, (left, right) in zip(spans, edges, strict=True):
        yield Bar(span.kind, left / 100, (right - left) / 100, span.title, span.outcome, span in scale.cut)
