"""The rows of an orchestrated saga's diagram: the orchestrator's calls, each with its answer. Pure.

No call and no answer is drawn that is not in the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.dashboard.diagram_rows import (
    NOTES,
    NOW,
    AttemptGroup,
    DiagramRow,
    Rows,
    grouped,
    seconds_between,
    under_way,
)
from orchestrator.dashboard.formatting import length
from orchestrator.dashboard.log_reader import LEFT_OUT, by_operator, cut_short
from saga.machine import CANCEL_REQUESTED, CLAIMED, FAULT, Event
from saga.views.lines import ShownLine, detail_of
from saga.views.phrasing import Phrases


def call_rows(
    names: Sequence[str], saga: Mapping[str, Any], lines: Sequence[ShownLine], say: Phrases
) -> list[DiagramRow]:
    """The rows of a saga's representation and its log; `names` are those of the lanes."""
    return _CallRows(names, saga, lines, say).drawn()


class _CallRows:
    def __init__(self, names: Sequence[str], saga: Mapping[str, Any], lines: Sequence[ShownLine], say: Phrases):
        self._saga = saga
        self._lines = lines
        self._say = say
        self._rows = Rows(names, lines, say)
        self._number = 0  # the last attempt of the present call

    def drawn(self) -> list[DiagramRow]:
        for index, item in grouped(self._lines, self._say):
            if isinstance(item, AttemptGroup):
                self._calls(item)
            elif item["event"] == LEFT_OUT:
                self._rows.left_out(item)
            else:
                self._moved(item, index)
        for step, undoing in under_way(self._saga):
            self._is_calling(step, undoing)
        return self._rows.rows

    def _calls(self, group: AttemptGroup) -> None:
        self._number = group.last
        attempts = group.in_rounds(group.numbers(self._say), self._say)
        name = "calls to undo" if group.undoing else "calls"
        title = self._say(name, step=group.step, attempts=attempts, answer=group.answer)
        label = self._label(group.step, group.undoing) + group.by
        lane = self._rows.lane(group.step)
        row = DiagramRow("call", 0, label, title, lane, group.answer, group.outcome, step=group.step)
        self._rows.add(replace(row, seq=group.seq), group.at)

    def _moved(self, line: ShownLine, index: int) -> None:
        event, detail = line["event"], detail_of(line)
        if event in set(Event):
            self._number = 0
        if event == FAULT and str(detail.get("fault")).startswith("after"):
            self._cut_short(index, "never recorded", "answer is not written down")
        if event == CLAIMED and detail.get("interrupted"):
            self._taken(line, index)
        elif event in NOTES:
            outcome = "cancelled" if event in (Event.CANCELLED, CANCEL_REQUESTED) else ""
            self._rows.note(event, line["at"], outcome=outcome, seq=line["seq"])

    def _taken(self, line: ShownLine, index: int) -> None:
        """The saga is taken from its driver, perhaps in the middle of a call."""
        before = self._lines[index - 1]
        following = self._lines[index + 1]["event"] if index + 1 < len(self._lines) else ""
        operators = by_operator(line, following)
        if before["event"] != FAULT:  # else it is known where it crashed, and drawn
            label = "not awaited" if operators else "never recorded"
            self._cut_short(index, label, "answer is not awaited" if operators else "answer is not recorded")
        self._number += 1
        if not operators:
            gone = length(seconds_between(before["at"], line["at"]), 0)
            self._rows.note("taken over", line["at"], kind="gone", seq=line["seq"], time=gone)

    def _cut_short(self, index: int, label: str, why: str) -> None:
        """A call whose answer is not in the log; whether it was sent is not known."""
        found = cut_short(self._saga, self._lines, index)
        if found is None:
            return
        step, undoing = found
        number = self._number + 1
        name = "perhaps calls to undo" if undoing else "perhaps calls"
        title = self._say(name, step=step, number=number, what=self._say(why))
        label = self._say(f"call {label}", call=self._label(step, undoing), number=number)
        row = DiagramRow("lost", 0, label, title, self._rows.lane(step), outcome="unknown", step=step)
        self._rows.add(replace(row, seq=self._lines[index]["seq"]), self._lines[index - 1]["at"])

    def _is_calling(self, step: str, undoing: bool) -> None:
        if self._saga["status"] == "STALLED":
            rests, title = self._say("rests"), self._say("rests, in words")
            self._rows.add(DiagramRow("note", 0, rests, title, outcome="stalled", step=step), None, NOW)
            return
        title = self._say("is calling to undo" if undoing else "is calling", step=step)
        lane, answer = self._rows.lane(step), self._say("no answer yet")
        row = DiagramRow("call", 0, self._label(step, undoing), title, lane, answer, "running", step=step)
        self._rows.add(row, None, NOW)

    def _label(self, step: str, undoing: bool) -> str:
        return self._say("label of an undo" if undoing else "label of a call", step=step)
