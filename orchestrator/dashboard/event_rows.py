"""The rows of a choreographed saga's diagram: the events that services publish, and what those who hear them do. Pure.

No event and no attempt is drawn that is not in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.dashboard.diagram_rows import NOTES, NOW, AttemptGroup, DiagramRow, Rows, grouped, under_way
from orchestrator.dashboard.formatting import times
from orchestrator.dashboard.log_reader import LEFT_OUT
from saga.choreography.events import EventKind
from saga.machine import ABANDONED, PARKED, REPLAYED, STARTED, Event
from saga.views.lines import ShownLine, detail_of
from saga.views.phrasing import Phrases


def event_rows(
    names: Sequence[str], saga: Mapping[str, Any], lines: Sequence[ShownLine], say: Phrases
) -> list[DiagramRow]:
    """The rows of a saga's representation and its log; `names` are those of the lanes."""
    return _EventRows(names, saga, lines, say).drawn()


class _EventRows:
    def __init__(self, names: Sequence[str], saga: Mapping[str, Any], lines: Sequence[ShownLine], say: Phrases):
        self._names = names
        self._saga = saga
        self._lines = lines
        self._say = say
        self._rows = Rows(names, lines, say)
        moves = [(index, line) for index, line in enumerate(lines) if line["event"] in set(Event)]
        self._last_line = {_subject(line): index for index, line in moves}  # of those that an event led to
        self._parked_at: dict[str, int] = {}  # the lane of the service that could not handle it, by letter
        self._waiting: set[int] = set()  # lanes whose event is parked now
        self._seen: dict[tuple[str, bool], int] = {}  # the last attempt of each call

    def drawn(self) -> list[DiagramRow]:
        for index, item in grouped(self._lines, self._say):
            if isinstance(item, AttemptGroup):
                self._acts(item)
            elif item["event"] == LEFT_OUT:
                self._rows.left_out(item)
            else:
                self._moved(item, index)
        for step, _ in under_way(self._saga):
            self._is_acting(step)
        return self._rows.rows

    def _acts(self, group: AttemptGroup) -> None:
        attempts = group.numbers(self._say)
        if group.count > 1:
            again = times(group.count - 1, in_brackets=False)
            attempts = self._say("delivered again", attempts=attempts, times=again)
        attempts = group.in_rounds(attempts, self._say)
        title = self._say("acts", step=group.step, attempts=attempts, answer=group.answer)
        before = self._seen.get((group.step, group.undoing), 0)
        skipped = group.count == 1 and group.first > before + 1
        self._seen[group.step, group.undoing] = group.last
        label = f"{group.answer}{group.by}" + (f" ({group.numbers(self._say)})" if skipped else "")
        heard = group.outcome != "done"  # of what succeeded the event tells that follows
        lane = self._rows.lane(group.step)
        row = DiagramRow("attempt", lane, label, title, outcome=group.outcome, heard=heard, step=group.step)
        self._rows.add(replace(row, seq=group.seq), group.at)

    def _moved(self, line: ShownLine, index: int) -> None:
        event, subject, letter = line["event"], _subject(line), str(detail_of(line).get("letter"))
        if event == PARKED:
            lane = self._parked_at[letter] = self._rows.lane(line["step"])
            self._waiting.add(lane)
            self._rows.note("parked", None, lane, "refused", seq=line["seq"], step=line["step"], subject=subject)
        elif event == REPLAYED:
            lane = self._parked_at.get(letter, 0)
            self._waiting.discard(lane)
            label, title = (self._say(name, subject=subject) for name in ("note: replayed", "note: replayed, in words"))
            self._rows.add(DiagramRow("event", 0, label, title, lane or None, seq=line["seq"]), None)
        elif event == ABANDONED:
            self._rows.note("abandoned", line["at"], outcome="undone", seq=line["seq"])
        elif event == STARTED or (event in set(Event) and self._last_line[subject] == index):
            self._published(line, subject)
        elif event in NOTES:
            # Without a time: the orchestrator hears of it later than of what is around it.
            self._rows.note(event, None, seq=line["seq"])

    def _published(self, line: ShownLine, subject: str) -> None:
        source, kind = self._rows.lane(line["step"]), subject.rpartition(".")[2]
        if kind in (EventKind.ATTEMPT, EventKind.ABANDONED):  # the attempt and what the operator did are drawn already
            return
        forward = kind in (EventKind.DONE, EventKind.STARTED)
        target: int | None = source + 1 if forward else source - 1
        if target not in range(1, len(self._names)):
            target = None
        publisher = self._names[source] if source else self._say("orchestrator as publisher")
        title = self._say("publishes", publisher=publisher, subject=subject, then=self._heard_by(target, forward))
        outcome = "done" if forward else "undone"
        row = DiagramRow("event", source, subject, title, target, "", outcome, heard=bool(source))
        self._rows.add(replace(row, step=line["step"] or "", seq=line["seq"]), line["at"])

    def _heard_by(self, target: int | None, forward: bool) -> str:
        """Who hears it, and what it does then."""
        if target is None:
            return self._say("nobody acts")
        passes = self._saga["steps"][target - 1]["status"] == "SKIPPED"
        name = "hears and acts" if forward else "hears and passes on" if passes else "hears and undoes"
        return self._say(name, step=self._names[target])

    def _is_acting(self, step: str) -> None:
        lane = self._rows.lane(step)
        if lane in self._waiting:
            return
        rests = self._saga["status"] == "STALLED"
        label, title = ("rests", "rests, in words") if rests else ("no answer yet", "nothing heard")
        outcome = "stalled" if rests else "running"
        row = DiagramRow("attempt", lane, self._say(label), self._say(title, step=step), outcome=outcome, step=step)
        self._rows.add(row, None, NOW)


def _subject(line: ShownLine) -> str:
    return str(detail_of(line).get("subject") or "")
