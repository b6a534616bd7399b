"""A saga's time as a Gantt chart: a row for each step and direction, a bar for each attempt, wait and stall. Pure.

Positions are percentages of the whole width, and to scale. What is too narrow to see is drawn as wide as can be seen;
attempts that would then lie on each other become one bar that counts them. None is moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from orchestrator.dashboard.attempts import answer_of
from orchestrator.dashboard.formatting import length
from orchestrator.dashboard.log_reader import LEFT_OUT, by_operator, cut_short
from orchestrator.dashboard.time_axis import Scale, Span, Tick
from orchestrator.dashboard.timeline_bars import NARROWEST, Bar, bars
from saga.machine import ATTEMPT, CLAIMED, ENDED, NOTES, STALLED, STALLED_AT_A_COMPENSATION, Direction, Event
from saga.payload import iso
from saga.views.lines import detail_of
from saga.views.now import TRIED_WHEN_DUE
from saga.views.phrasing import Phrases

BARS_AT_MOST = 100  # in a row; all before them become one

_OUTCOMES = ("done", "refused", "unknown")


@dataclass(frozen=True)
class Band:
    """A stretch of the whole chart in which the saga had no orchestrator."""

    left: float
    width: float
    label: str


@dataclass(frozen=True)
class TimelineRow:
    """A step's action ("B") or its compensation ("undo B"); the bars are in order and do not overlap."""

    label: str
    bars: tuple[Bar, ...]
    step: str = ""


@dataclass(frozen=True)
class Timeline:
    """What to draw; `start` and `end` are in seconds since the epoch."""

    start: float
    end: float
    ticks: tuple[Tick, ...]
    rows: tuple[TimelineRow, ...]
    bands: tuple[Band, ...] = ()
    now: float | None = None  # where it is on the axis, of a saga that has not ended


def timeline(
    saga: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
    now: float | None,
    timeouts: Mapping[str, float] | None = None,
) -> Timeline:
    """The chart of a saga's representation and its log; one that has not ended goes on to `now`, where that is given.

    Every step has a row, also one that was never called; those of compensations follow in the order of their calls.
    `timeouts` are the seconds that an attempt of each step may take: the axis has room for the one under way.
    """
    reading = _Reading([step["name"] for step in saga["steps"]], Phrases(saga["mode"]))
    for index, line in enumerate(lines):
        if line["event"] == CLAIMED and detail_of(line).get("interrupted"):
            following = lines[index + 1]["event"] if index + 1 < len(lines) else ""
            reading.taken(line, cut_short(saga, lines, index), by_operator(line, following))
        else:
            reading.take(line)
    if now is not None:
        reading.go_on_to(now, saga, timeouts or {})
    scale = Scale(reading.start, reading.horizon or reading.until)
    drawn = tuple(
        TimelineRow(label, tuple(bars(_shortened(spans), scale)), reading.step_of.get(label, label))
        for label, spans in reading.rows.items()
    )
    if reading.horizon:
        drawn = tuple(replace(row, bars=_growing(row, reading, scale)) for row in drawn)
    bands = tuple(_band(begin, end, scale, reading.say) for begin, end in reading.gone)
    at = scale.at(now) / 100 if now is not None and reading.horizon else None
    return Timeline(reading.start, scale.end, tuple(scale.ticks()), drawn, bands, at)


class _Reading:
    """The log, line by line, as spans of time. A saga makes one call at a time, so no two of them overlap."""

    def __init__(self, steps: Sequence[str], say: Phrases):
        self.say = say
        self.rows: dict[str, list[Span]] = {step: [] for step in steps}
        self.step_of: dict[str, str] = {}  # of the rows
        self.gone: list[tuple[float, float]] = []  # when no orchestrator had the saga
        self.start = self.until = 0.0
        self.horizon = 0.0  # where the axis of a saga ends that has not ended; 0: it ends with the last bar
        self.goes_on = ""  # the row whose last bar does
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
        if not by_operator and at > self.until:
            self.gone.append((self.until, at))
        if call:
            step, undoing = call
            name = "bar: not awaited" if by_operator else "bar: never recorded"
            direction = Direction.COMPENSATION if undoing else Direction.ACTION
            title = self.say(name, step=step, call=direction, number=self._attempt, time="{}")
            kind, outcome = ("cut", "unknown") if by_operator else ("lost", "")
            self._add(self._label(step, undoing), kind, at, title, outcome, line["seq"])
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

    def _label(self, step: str, undoing: bool) -> str:
        label = self.say("label of an undo" if undoing else "label of a call", step=step)
        self.step_of[label] = step
        return label

    def _left_out(self, detail: Mapping[str, Any]) -> None:
        """Lines that are not shown: what happened meanwhile is one bar, in the row of the call before them."""
        until = datetime.fromisoformat(detail["until"]).timestamp()
        row = self._stalled or next((label for label in reversed(self.rows) if self.rows[label]), "")
        if row:
            self._add(row, "stalled", until, f"{detail['lines']} lines of the log are left out here: {{}}")
        self.until, self._waits, self._stalled, self._told_all = max(self.until, until), None, "", False

    def _attempted(self, line: Mapping[str, Any], detail: Mapping[str, Any], at: float) -> None:
        call, verdict = detail.get("call"), str(detail.get("verdict"))
        label = self._label(str(line["step"]), call == Direction.COMPENSATION)
        self._attempt = line["attempt"] or 0
        seconds = (line["duration_ms"] or 0) / 1000
        begin = max(self.until, at - seconds)
        if self._waits is not None:
            self._add(label, "wait", begin, f"waited {{}} before attempt {self._attempt}{self._waits}")
        title = self.say(
            "bar: attempt",
            step=line["step"],
            call=call,
            number=self._attempt,
            answer=answer_of(line, self.say),
            time=length(seconds),
            verdict=verdict,
        )
        self.until, self._waits = begin, ""
        self._add(label, "attempt", at, title, verdict if verdict in _OUTCOMES else "", line["seq"])

    def _moved(self, line: Mapping[str, Any], state: str, at: float) -> None:
        if self._stalled:
            self._add(self._stalled, "stalled", at, f"stalled {{}}{self._round}")
        self._state, self.until, self._waits, self._stalled = state, at, None, ""
        if state in STALLED:
            self._rounds += 1
            self._stalled = self._label(line["step"], state in STALLED_AT_A_COMPENSATION)
        elif line["event"] != Event.RESUMED:
            self._rounds = self._attempt = 0
            self._told_all = True

    @property
    def _round(self) -> str:
        """The number of the round, in brackets; empty where lines are left out that would tell it."""
        return f" (round {self._rounds})" if self._told_all else ""

    def go_on_to(self, now: float, saga: Mapping[str, Any], timeouts: Mapping[str, float]) -> None:
        """Add what is going on now, if the saga has not ended; the axis has room for what may follow."""
        if not self.start or self._state in ENDED or saga["ended_at"]:
            return
        begun, now = self.until, max(now, self.until)
        room = max(now - self.start, 1.0) / 10
        if self._stalled:
            self._add(self._stalled, "stalled", now, f"stalled {{}} so far{self._round}")
            self.goes_on = self._stalled
            comes = saga["due_at"] and TRIED_WHEN_DUE[saga["mode"]]  # else its service knows when
            due = datetime.fromisoformat(saga["due_at"]).timestamp() if comes else 0.0
            room = max(room, min(due - now, now - self.start))
        for step in saga["steps"] if not self._stalled else ():
            if step["status"] in ("RUNNING", "COMPENSATING"):
                undoing = step["status"] == "COMPENSATING"
                call = Direction.COMPENSATION if undoing else Direction.ACTION
                title = self.say("bar: running", step=step["name"], call=call, number=self._attempt + 1)
                self.goes_on = self._label(step["name"], undoing)
                self._add(self.goes_on, "running", now, title)
                room = max(room, begun + timeouts.get(step["name"], 0.0) - now)
        self.until, self.horizon = now, now + room

    def _add(self, label: str, kind: str, end: float, title: str, outcome: str = "", seq: int | None = None) -> None:
        """A span from the end of the last one; `{}` in its title is its length."""
        if end > self.until or kind == "attempt":
            title = title.replace("{}", length(end - self.until), 1)
            self.rows.setdefault(label, []).append(Span(kind, self.until, end, title, outcome, seq))
        self.until = max(self.until, end)


def _shortened(spans: list[Span]) -> list[Span]:
    """The spans of a row, with those before the last BARS_AT_MOST put together as one."""
    old, rest = spans[: 1 - BARS_AT_MOST], spans[1 - BARS_AT_MOST :]
    if len(spans) <= BARS_AT_MOST:
        return spans
    attempts = sum(span.kind == "attempt" for span in old)
    title = f"{attempts} earlier attempts, and the waits between them: {length(old[-1].end - old[0].begin)}"
    return [Span("stalled", old[0].begin, old[-1].end, title), *rest]


def _growing(row: TimelineRow, reading: _Reading, scale: Scale) -> tuple[Bar, ...]:
    """The row's bars; the last one grows from where it begins to the end of the axis, where it is what goes on."""
    if row.label != reading.goes_on or not row.bars or row.bars[-1].kind not in ("running", "stalled"):
        return row.bars
    *others, last = row.bars
    begin = scale.start + last.left / 100 * (scale.end - scale.start)
    return (*others, replace(last, since=str(iso(begin)), until=str(iso(scale.end))))


def _band(begin: float, end: float, scale: Scale, say: Phrases) -> Band:
    left, right = scale.at(begin), scale.at(end)
    label = say("orchestrator gone", time=length(end - begin, 0))
    return Band(left / 100, max(NARROWEST, right - left) / 100, label)
