"""The rows of a sequence diagram, and the attempts of a log put together into as few rows as tell all of it. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from orchestrator.dashboard.attempts import answer_of
from orchestrator.dashboard.formatting import length
from orchestrator.dashboard.log_reader import LEFT_OUT
from saga.machine import ATTEMPT, CANCEL_REQUESTED, FAULT, OVERDUE, RELEASED, STALLED, Direction, Event
from saga.views.lines import ShownLine, detail_of
from saga.views.phrasing import Phrases

NOW = "now"
NOTES = (FAULT, RELEASED, CANCEL_REQUESTED, Event.CANCELLED, Event.DEADLINE_PASSED, Event.RESOLVED, OVERDUE)


@dataclass(frozen=True)
class DiagramRow:
    """One row; `source` and `target` are numbers of lanes, 0 is the orchestrator's. `title` says the row in words.

    `kind`: a call goes there and back, with an `answer`; a lost call only goes there, since no answer is recorded; an
    event goes to the lane that it concerns, if to any; an attempt and a note are at one lane; gone is the time without
    an orchestrator, across all lanes. `heard`: the orchestrator, which only listens, hears of it. `outcome`: done,
    refused, unknown, running, cancelled or empty. `step` and `seq` are the step and the number of the log's line that
    the row tells of.
    """

    kind: str
    source: int
    label: str
    title: str
    target: int | None = None
    answer: str = ""
    outcome: str = ""
    heard: bool = False
    at: str = ""
    y: int = 0
    step: str = ""
    seq: int | None = None


@dataclass
class AttemptGroup:
    """Attempts of a call that follow each other, over all its rounds, and came to the same."""

    step: str
    undoing: bool
    answer: str
    outcome: str
    at: str
    first: int
    last: int
    rounds: int = 0
    seq: int | None = None  # of the line of the last one

    @property
    def count(self) -> int:
        """How many attempts these are."""
        return self.last - self.first + 1

    @property
    def by(self) -> str:
        """How a label counts them."""
        return f" ×{self.count}" if self.count > 1 else ""

    def numbers(self, say: Phrases) -> str:
        """Their numbers, as a sentence has them."""
        name = "one attempt" if self.count == 1 else "several attempts"
        return say(name, first=self.first, last=self.last)

    def in_rounds(self, numbers: str, say: Phrases) -> str:
        """The same with the number of rounds, where it is more than one."""
        return say("in rounds", attempts=numbers, count=self.rounds) if self.rounds > 1 else numbers


def grouped(lines: Sequence[ShownLine], say: Phrases) -> Iterator[tuple[int, AttemptGroup | ShownLine]]:
    """The log with its attempts in groups; each item with the number of its line, or of the line that ends the group.

    Left out are the lines of stalls and of resumptions, which only part the rounds.
    """
    group: AttemptGroup | None = None
    for index, line in enumerate(lines):
        event, state = line["event"], detail_of(line).get("state")
        if event == ATTEMPT:
            attempt = _attempt(line, say)
            if group and _follows(group, attempt):
                group.last, group.seq = attempt.last, attempt.seq
                continue
            if group:
                yield index, group
            group = attempt
        elif event != LEFT_OUT and state in STALLED:
            if group:
                group.rounds += 1
        elif event != Event.RESUMED:
            if group:
                yield index, group
            group = None
            yield index, line
    if group:
        yield len(lines), group


def _attempt(line: ShownLine, say: Phrases) -> AttemptGroup:
    detail, number = detail_of(line), line["attempt"] or 0
    undoing = detail.get("call") == Direction.COMPENSATION
    verdict = str(detail.get("verdict"))
    step, answer = str(line["step"]), answer_of(line, say)
    return AttemptGroup(step, undoing, answer, verdict, line["at"], number, number, seq=line["seq"])


def _follows(group: AttemptGroup, attempt: AttemptGroup) -> bool:
    same = (group.step, group.undoing, group.answer, group.outcome)
    return same == (attempt.step, attempt.undoing, attempt.answer, attempt.outcome) and attempt.first == group.last + 1


class Rows:
    """The rows so far, for the lanes with these names; the times are those since the first line."""

    def __init__(self, names: Sequence[str], lines: Sequence[ShownLine], say: Phrases):
        self.rows: list[DiagramRow] = []
        self._names = names
        self._began = lines[0]["at"] if lines else ""
        self._say = say

    def lane(self, name: str | None) -> int:
        """The number of a step's lane; the orchestrator's where there is no such step."""
        return self._names.index(str(name)) if name in self._names else 0

    def add(self, row: DiagramRow, at: str | None, instead: str = "") -> None:
        """Add a row that happened at this time, or beside which `instead` stands for a time."""
        self.rows.append(replace(row, at=length(seconds_between(self._began, at), 0) if at else instead))

    def note(
        self,
        name: str,
        at: str | None,
        lane: int = 0,
        outcome: str = "",
        kind: str = "note",
        seq: int | None = None,
        **facts: Any,
    ) -> None:
        """Add the note called `name` in the table of phrases."""
        label, title = self._say(f"note: {name}", **facts), self._say(f"note: {name}, in words", **facts)
        step = self._names[lane] if lane else ""
        self.add(DiagramRow(kind, lane, label, title, outcome=outcome, step=step, seq=seq), at)

    def left_out(self, line: ShownLine) -> None:
        """Add a note that says how many lines of the log are left out."""
        more = self._say("lines left out", count=line["detail"]["lines"])
        self.add(DiagramRow("note", 0, more, more), line["at"])


def under_way(saga: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The steps that a saga is at now, each with whether it is being undone; none after its end."""
    for step in saga["steps"] if saga["ended_at"] is None else ():
        if step["status"] in ("RUNNING", "COMPENSATING"):
            yield step["name"], step["status"] == "COMPENSATING"


def seconds_between(begin: str, end: str) -> float:
    """The seconds between two of the API's times; 0 where the second one is earlier."""
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds())
