"""A saga's log as messages: each a row of a sequence diagram, with its words. Pure.

Nothing is a message that is not in the log. Attempts that follow each other and came to the same are one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from orchestrator.dashboard.formatting import length, times
from orchestrator.dashboard.log_reader import LEFT_OUT, by_operator, cut_short
from saga.choreography.events import EventKind
from saga.definition import CHOREOGRAPHY
from saga.machine import (
    ABANDONED,
    ATTEMPT,
    CANCEL_REQUESTED,
    CLAIMED,
    FAULT,
    OVERDUE,
    PARKED,
    RELEASED,
    REPLAYED,
    STALLED,
    STARTED,
    Direction,
    Event,
)
from saga.views.lines import ShownLine, detail_of

NOW = "now"

_NOTES = {  # at the orchestrator's lane
    FAULT: ("crashes", "the orchestrator crashes, as it was asked to"),
    RELEASED: ("it hands over", "an orchestrator that shuts down hands it over"),
    CANCEL_REQUESTED: ("cancel: the pivot decides", "an operator asks to cancel it, which is left to the pivot"),
    Event.CANCELLED: ("cancelled", "an operator cancels it"),
    Event.DEADLINE_PASSED: ("the deadline passes", "the deadline passes: it turns back"),
    Event.RESOLVED: ("done by hand", "an operator marks the call as done by hand"),
    OVERDUE: ("overdue", "its deadline has passed; it is not rolled back"),
}


@dataclass(frozen=True)
class DiagramRow:
    """One row; `source` and `target` are numbers of lanes, 0 the orchestrator's. `title` says it in words.

    call: there and back, with an `answer`. event: to whom it concerns, if anybody. attempt, note: at one lane.
    `heard`: the orchestrator, which only listens, hears of it. `outcome`: done, refused, unknown, running or empty.
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


def messages(names: Sequence[str], saga: Mapping[str, Any], lines: Sequence[ShownLine]) -> list[DiagramRow]:
    """The rows of a saga's representation and its log; `names` are those of the lanes."""
    reading = (_Heard if saga["mode"] == CHOREOGRAPHY else _Called)(names, saga, lines)
    for index, line in enumerate(lines):
        reading.take(line, index)
    reading.finish()
    return reading.rows


@dataclass
class _Attempts:
    """Attempts of a call that follow each other and came to the same."""

    step: int
    call: str
    came_to: tuple[str, str, str]  # label, words, outcome
    at: str
    first: int
    last: int
    rounds: int = 0

    @property
    def numbers(self) -> str:
        """As a sentence has them."""
        return f"attempt {self.first}" if self.first == self.last else f"attempts {self.first} to {self.last}"

    @property
    def by(self) -> str:
        """As a label has them."""
        return f" ×{self.last - self.first + 1}" if self.last > self.first else ""


class _Reading:
    """The log, line by line."""

    def __init__(self, names: Sequence[str], saga: Mapping[str, Any], lines: Sequence[ShownLine]):
        self.names = names
        self.saga = saga
        self.lines = lines
        self.rows: list[DiagramRow] = []
        self._began = lines[0]["at"] if lines else ""
        self._open: _Attempts | None = None

    def take(self, line: ShownLine, index: int) -> None:
        """One line more."""
        event, state = line["event"], str(detail_of(line).get("state"))
        if event == ATTEMPT:
            self._attempted(line)
        elif event == LEFT_OUT:
            self._close()
            more = f"… {line['detail']['lines']} lines of the log are left out here"
            self._add(DiagramRow("note", 0, more, more), str(line["at"]))
        elif state in STALLED:
            if self._open:
                self._open.rounds += 1
        elif event != Event.RESUMED:
            self._close()
            self._moved(line, index)

    def finish(self) -> None:
        """What is under way, if it has not ended."""
        self._close()
        if self.saga["ended_at"] is not None:
            return
        for step in self.saga["steps"]:
            if step["status"] in ("RUNNING", "COMPENSATING"):
                self._under_way(step["name"], undoing=step["status"] == "COMPENSATING")

    def _moved(self, line: ShownLine, index: int) -> None:
        if line["event"] in _NOTES:
            label, title = _NOTES[line["event"]]
            self._add(DiagramRow("note", 0, label, title), self._time_of_note(line))

    def _time_of_note(self, line: ShownLine) -> str | None:
        return str(line["at"])

    def _under_way(self, step: str, undoing: bool) -> None:
        raise NotImplementedError

    def _came_to(self, line: ShownLine) -> tuple[str, str, str]:
        raise NotImplementedError

    def _drawn(self, attempts: _Attempts) -> DiagramRow:
        raise NotImplementedError

    def _attempted(self, line: ShownLine) -> None:
        detail = detail_of(line)
        lane, call, came_to = self._lane(line["step"]), str(detail.get("call")), self._came_to(line)
        number, last = line["attempt"] or 0, self._open
        if last and (last.step, last.call, last.came_to) == (lane, call, came_to) and number == last.last + 1:
            last.last = number
        else:
            self._close()
            self._open = _Attempts(lane, call, came_to, line["at"], number, number)

    def _close(self) -> None:
        if self._open:
            self._add(self._drawn(self._open), self._open.at)
        self._open = None

    def _lane(self, name: str | None) -> int:
        return self.names.index(str(name)) if name in self.names else 0

    def _add(self, row: DiagramRow, at: str | None, instead: str = "") -> None:
        if at:
            instead = length(_seconds(self._began, at), 0)
        self.rows.append(replace(row, at=instead))


class _Called(_Reading):
    """Of an orchestrated saga."""

    def __init__(self, names: Sequence[str], saga: Mapping[str, Any], lines: Sequence[ShownLine]):
        super().__init__(names, saga, lines)
        self._number = 0  # the last attempt of the present call

    def take(self, line: ShownLine, index: int) -> None:
        if line["event"] == ATTEMPT:
            self._number = line["attempt"] or 0
        elif line["event"] in set(Event) and line["event"] != Event.RESUMED and not _stalls(line):
            self._number = 0
        super().take(line, index)

    def _moved(self, line: ShownLine, index: int) -> None:
        if line["event"] == FAULT and str(detail_of(line).get("fault")).startswith("after"):
            self._cut_short(index, "the orchestrator crashes before it has written the answer down")
            super()._moved(line, index)
        elif line["event"] == CLAIMED and detail_of(line).get("interrupted"):
            self._taken(line, index)
        else:
            super()._moved(line, index)

    def _taken(self, line: ShownLine, index: int) -> None:
        """The saga is taken from its driver, perhaps in the middle of a call."""
        following = self.lines[index + 1]["event"] if index + 1 < len(self.lines) else ""
        operators = by_operator(line, following)
        if self.lines[index - 1]["event"] != FAULT:  # else it is known where it crashed, and drawn
            self._cut_short(index, "an operator does not wait for its answer" if operators else "no answer is recorded")
        self._number += 1
        if not operators:
            seconds = _seconds(self.lines[index - 1]["at"], line["at"])
            title = "another orchestrator takes it over: its own has crashed, stopped or lost its lease"
            self._add(
                DiagramRow("note", 0, "taken over", f"{title}; nothing was written for {length(seconds)}"), line["at"]
            )

    def _cut_short(self, index: int, what: str) -> None:
        """A call whose answer is not in the log; whether it was sent is not known."""
        found = cut_short(self.saga, self.lines, index)
        if found is None:
            return
        step, undoing = found
        undo = "undo " if undoing else ""
        title = (
            f"the orchestrator perhaps calls {step}{' to undo it' if undo else ''}, attempt {self._number + 1}: {what}"
        )
        row = DiagramRow("call", 0, f"{undo}{step}", title, self._lane(step), "no answer recorded", "unknown")
        self._add(row, self.lines[index - 1]["at"])

    def _came_to(self, line: ShownLine) -> tuple[str, str, str]:
        status, verdict = line["status_code"], str(detail_of(line).get("verdict"))
        answer = f"HTTP {status}" if status else "no connection" if verdict == "refused" else "no answer"
        return answer, answer, verdict

    def _drawn(self, attempts: _Attempts) -> DiagramRow:
        name, (answer, words, outcome) = self.names[attempts.step], attempts.came_to
        undo = "undo " if attempts.call == Direction.COMPENSATION else ""
        rounds = f", in {attempts.rounds} rounds" if attempts.rounds > 1 else ""
        title = f"the orchestrator calls {name}{' to undo it' if undo else ''}, {attempts.numbers}{rounds}: {words}"
        return DiagramRow("call", 0, f"{undo}{name}{attempts.by}", title, attempts.step, answer, outcome)

    def _under_way(self, step: str, undoing: bool) -> None:
        undo, lane = "undo " if undoing else "", self._lane(step)
        if self.saga["status"] == "STALLED":
            title = "stalled: it rests before the next round"
            self._add(DiagramRow("note", 0, "it rests", title, outcome="stalled"), None, NOW)
            return
        title = f"the orchestrator calls {step}{' to undo it' if undo else ''}: no answer yet"
        self._add(DiagramRow("call", 0, f"{undo}{step}", title, lane, "no answer yet", "running"), None, NOW)


class _Heard(_Reading):
    """Of a choreographed saga."""

    def __init__(self, names: Sequence[str], saga: Mapping[str, Any], lines: Sequence[ShownLine]):
        super().__init__(names, saga, lines)
        moves = [(index, line) for index, line in enumerate(lines) if line["event"] in set(Event)]
        self._last = {_subject(line): index for index, line in moves}  # where an event's news ends
        self._parked: dict[str, int] = {}  # who could not handle it, by letter
        self._waits: set[int] = set()  # those whose event is parked now
        self._seen: dict[tuple[int, str], int] = {}  # the last attempt of each call

    def _time_of_note(self, line: ShownLine) -> None:
        """None: it is told by who listens, later than what is drawn around it."""

    def _moved(self, line: ShownLine, index: int) -> None:
        event, subject = line["event"], _subject(line)
        detail = detail_of(line)
        if event == PARKED:
            lane = self._parked[str(detail.get("letter"))] = self._lane(line["step"])
            title = f"{line['step']} cannot handle {subject}: it is parked until somebody replays it"
            self._waits.add(lane)
            self._add(DiagramRow("note", lane, "parked", title, outcome="refused"), None)
        elif event == REPLAYED:
            lane = self._parked.get(str(detail.get("letter")), 0)
            self._waits.discard(lane)
            title = f"an operator replays {subject}: it is published again"
            self._add(DiagramRow("event", 0, f"replayed: {subject}", title, lane or None), None)
        elif event == ABANDONED:
            title = "an operator abandons it: whoever hears of it from now on does nothing"
            self._add(DiagramRow("note", 0, "abandoned", title, outcome="undone"), line["at"])
        elif event == STARTED or (event in set(Event) and self._last[subject] == index):
            self._published(line, subject)
        else:
            super()._moved(line, index)

    def _published(self, line: ShownLine, subject: str) -> None:
        source, kind = self._lane(line["step"]), subject.rpartition(".")[2]
        if kind in (
            EventKind.ATTEMPT,
            EventKind.ABANDONED,
        ):  # the attempt itself is drawn, and so is what the operator did
            return
        forward = kind in (EventKind.DONE, EventKind.STARTED)
        target: int | None = source + 1 if forward else source - 1
        if target not in range(1, len(self.names)):
            target = None
        title = f"{'the ' * (not source)}{self.names[source]} publishes {subject}: {self._concerns(target, forward)}"
        outcome = "done" if forward else "undone"
        self._add(DiagramRow("event", source, subject, title, target, "", outcome, heard=bool(source)), line["at"])

    def _concerns(self, target: int | None, forward: bool) -> str:
        """Who hears it, and what it does then."""
        if target is None:
            return "nobody has to act on it"
        passes = self.saga["steps"][target - 1]["status"] == "SKIPPED"
        does = "acts" if forward else "cannot be undone: it passes it on" if passes else "undoes itself"
        return f"{self.names[target]} hears it, and {does}"

    def _came_to(self, line: ShownLine) -> tuple[str, str, str]:
        detail, status = detail_of(line), line["status_code"]
        verdict, undoing = str(detail.get("verdict")), detail.get("call") == Direction.COMPENSATION
        if verdict == "done":
            words = "undoes itself" if undoing else "acts"
        elif verdict == "refused" and status == 409:
            words = "has committed" if undoing else "refuses"
        elif verdict == "refused":
            words = "fails to undo itself" if undoing else "fails"
        else:
            words = "takes too long" if status is None else "may have failed"
        return words, words, verdict

    def _drawn(self, attempts: _Attempts) -> DiagramRow:
        name, (label, words, outcome) = self.names[attempts.step], attempts.came_to
        count = attempts.last - attempts.first + 1
        again = f" (what it heard is delivered again {times(count - 1).strip('()')})" if count > 1 else ""
        rounds = f", in {attempts.rounds} rounds" if attempts.rounds > 1 else ""
        before = self._seen.get((attempts.step, attempts.call), 0)
        number = f" (attempt {attempts.first})" if count == 1 and attempts.first > before + 1 else ""
        self._seen[attempts.step, attempts.call] = attempts.last
        title = f"{name}, {attempts.numbers}{again}{rounds}: it {words}"
        lost = outcome != "done"  # what succeeded is told by the event that follows
        return DiagramRow("attempt", attempts.step, f"{label}{attempts.by}{number}", title, outcome=outcome, heard=lost)

    def _under_way(self, step: str, undoing: bool) -> None:
        if self._lane(step) in self._waits:
            return
        rests = self.saga["status"] == "STALLED"
        label = "rests" if rests else "nothing heard yet"
        title = f"{step} rests before the next round" if rests else f"nothing is heard of {step} yet"
        outcome = "stalled" if rests else "running"
        self._add(DiagramRow("attempt", self._lane(step), label, title, outcome=outcome), None, NOW)


def _stalls(line: ShownLine) -> bool:
    return detail_of(line).get("state") in STALLED


def _seconds(begin: str, end: str) -> float:
    return max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds())


def _subject(line: ShownLine) -> str:
    return str(detail_of(line).get("subject") or "")
