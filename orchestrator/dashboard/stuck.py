"""What a saga is stuck at, and what is under way in one that is not: for the panel at the top of its page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.dashboard.attempts import answer_of
from orchestrator.dashboard.log_reader import CallHistory, SagaHistory, state_of
from saga.machine import BACKWARD, REPLAYED, STALLED, STALLED_AT_A_COMPENSATION, Event
from saga.payload import iso
from saga.runtime.bulkhead import service_of
from saga.runtime.permitted_commands import BY_OPERATOR
from saga.saga_row import SagaRow
from saga.urls import masked
from saga.views.lines import ShownLine, detail_of
from saga.views.phrasing import Phrases
from saga.views.representation import under_way


@dataclass(frozen=True)
class Stuck:
    """Why a saga does not go on by itself soon.

    `kind`: stalled, parked or overdue. `since` and `due_at` are times as the API writes them. `service` is the root
    of the `address` that is called, by which the service's light is found. `trying`: the next round is under way;
    `retriable`: an operator may ask for one, while none is. `parked` counts the events that are, and `subject` is
    that of the last one. `command_result` says in one sentence what came of an operator's last retry or replay; empty
    where there was none.
    """

    kind: str
    step: str
    call: str
    undoing: bool
    address: str
    service: str
    since: str
    last_answer: str
    rounds: int = 0
    or_more: bool = False
    due_at: str | None = None
    trying: bool = False
    retriable: bool = False
    parked: int = 0
    subject: str = ""
    command_result: str = ""


@dataclass(frozen=True)
class Flight:
    """A call that may be under way: since when, as the API writes times, and the seconds that an attempt may take."""

    step: str
    number: int
    since: str
    timeout: float
    undoing: bool

    @property
    def first(self) -> bool:
        """Whether nothing was waited for before it, so that `since` is when it began."""
        return self.number == 1


def flight_of(row: SagaRow) -> Flight | None:
    """The attempt that may be under way now, of a saga that somebody drives; None where there is none."""
    step = row.saga.step
    undoing = row.state in BACKWARD
    calling = undoing and row.owner is not None and not row.definition.choreographed
    if step is None or row.ended or not (under_way(row) or calling):
        return None
    return Flight(step.name, row.saga.calls.attempts + 1, str(iso(row.context.at)), step.timeout, undoing)


def stuck_at(row: SagaRow, saga: Mapping[str, Any], history: SagaHistory, lines: Sequence[ShownLine]) -> Stuck | None:
    """What the saga is stuck at; None where it goes on, or has ended."""
    if row.ended:
        return None
    reading = _Reading(row, saga, history, lines)
    if history.parked:
        return reading.parked()
    if history.calls[-1].stalls:
        return reading.stalled()
    return reading.overdue() if saga["overdue"] else None


class _Reading:
    def __init__(self, row: SagaRow, saga: Mapping[str, Any], history: SagaHistory, lines: Sequence[ShownLine]):
        self._row = row
        self._saga = saga
        self._history = history
        self._lines = lines
        self._say = Phrases(saga["mode"])

    def stalled(self) -> Stuck:
        call = self._history.calls[-1]
        undoing, rests = state_of(call.stalls[-1]) in STALLED_AT_A_COMPENSATION, self._row.state in STALLED
        return self._stuck(
            "stalled",
            str(call.stalls[0]["step"]),
            undoing,
            since=call.stalls[0]["at"],
            last_answer=self._last_answer(call),
            rounds=len(call.stalls),
            or_more=call.left_out > 0,
            due_at=self._saga["due_at"] if rests and not self._row.definition.choreographed else None,
            trying=not rests,
            retriable=not self._row.definition.choreographed,
            command_result=self._retried(call),
        )

    def parked(self) -> Stuck:
        letters = self._history.parked
        last = letters[-1]
        step = str(last["step"])
        message = str(detail_of(last).get("message") or "")
        replays = [line for line in self._lines if line["event"] == REPLAYED and line["seq"] < last["seq"]]
        again = self._say("parked again", answer=message) if replays else ""
        return self._stuck(
            "parked",
            step,
            self._is_undone(step),
            since=letters[0]["at"],
            last_answer=message or self._say("no last answer"),
            parked=len(letters),
            subject=str(detail_of(last).get("subject") or ""),
            command_result=again,
        )

    def overdue(self) -> Stuck | None:
        steps = (step for step in self._saga["steps"] if step["status"] in ("RUNNING", "COMPENSATING"))
        step = next(steps, None)
        if step is None:
            return None
        call, last = self._history.calls[-1], self._lines[-1]["at"] if self._lines else self._saga["started_at"]
        heard = self._last_answer(call) if call.attempts else self._say("nothing heard", step=step["name"])
        return self._stuck("overdue", step["name"], step["status"] == "COMPENSATING", since=last, last_answer=heard)

    def _is_undone(self, name: str) -> bool:
        return any(step["name"] == name and step["status"] == "COMPENSATING" for step in self._saga["steps"])

    def _stuck(self, kind: str, name: str, undoing: bool, **facts: Any) -> Stuck:
        step = next((step for step in self._row.definition.steps if step.name == name), None)
        url = "" if step is None else (step.compensation if undoing else step.action) or step.action
        call = self._say("label of an undo" if undoing else "label of a call", step=name)
        return Stuck(kind, name, call, undoing, masked(url), service_of(url), **facts)

    def _last_answer(self, call: CallHistory) -> str:
        return self._answer(call.attempts[-1]) if call.attempts else self._say("no last answer")

    def _answer(self, line: ShownLine) -> str:
        answer, message = answer_of(line, self._say), str(detail_of(line).get("message") or "")
        if not message or message.startswith(answer):
            return message or answer
        return self._say("last answer", answer=answer, message=message)

    def _retried(self, call: CallHistory) -> str:
        """What came of the round that an operator asked for; empty where the last round began by itself."""
        rounds = [line for line in self._lines if line["event"] == Event.RESUMED]
        last = rounds[-1] if rounds else None
        if last is None or last["seq"] < call.stalls[0]["seq"] or detail_of(last).get("by") != BY_OPERATOR["by"]:
            return ""
        tried = [line for line in call.attempts if line["seq"] > last["seq"]]
        before = [line for line in call.attempts if line["seq"] < last["seq"]]
        if call.stalls[-1]["seq"] < last["seq"]:
            return self._say("retrying", number=call.number + 1)
        if not tried:
            return self._say("retried", answer=self._say("no last answer"))
        answer = answer_of(tried[-1], self._say)
        same = before and answer_of(before[-1], self._say) == answer
        return self._say("retried again" if same else "retried", answer=answer)
