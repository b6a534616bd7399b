"""Reads a saga's log as calls, each with its attempts over all its rounds and the line that ended it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from saga.machine import (
    ATTEMPT,
    BACKWARD,
    CANCEL_REQUESTED,
    CLAIMED,
    FAULT,
    NOTES,
    OVERDUE,
    RELEASED,
    REPLAYED,
    STALLED,
    Direction,
    Event,
    State,
)
from saga.views.lines import ShownLine, detail_of, parked_lines

LEFT_OUT = "left_out"  # no line of a log: it stands for those between two that are shown
_BACK = (*BACKWARD, State.COMPENSATED)
_OPERATORS = (Event.CANCELLED, CANCEL_REQUESTED)  # each comes with a claim of its own, which nobody's crash led to
_VERBS = ("cancelled", "resumed", "resolved")  # why an operator's claim was made, as its detail says


@dataclass
class CallHistory:
    """One call. `before` is the saga's state while it was made; `number` is its last attempt, answered or not."""

    before: str
    number: int = 0
    attempts: list[ShownLine] = field(default_factory=list)
    stalls: list[ShownLine] = field(default_factory=list)
    end: ShownLine | None = None
    left_out: int = 0  # lines that are not shown, of which some are this call's

    @property
    def step(self) -> str:
        """The step that is called; empty where the log does not say yet."""
        return next((str(line["step"]) for line in (*self.attempts, *self.stalls, self.end) if line), "")

    @property
    def event(self) -> str:
        """The event that ended the call; empty while the call is open."""
        return str(self.end["event"]) if self.end else ""

    @property
    def after(self) -> str:
        """The state of the saga after the call; empty while the call is open."""
        return state_of(self.end) if self.end else ""

    @property
    def backward(self) -> bool:
        """Whether this is the call of a compensation."""
        return self.before in BACKWARD

    @property
    def committed(self) -> bool:
        """Whether it asked the pivot to undo its action, and the pivot answered that it had committed."""
        return self.before == State.SEALING and self.event == Event.COMPENSATION_REFUSED

    @property
    def by_hand(self) -> bool:
        """Whether an operator marked the call as done."""
        return self.event == Event.RESOLVED

    @property
    def failed(self) -> list[ShownLine]:
        """The attempts that did not succeed."""
        return [line for line in self.attempts if detail_of(line).get("verdict") != "done"]


@dataclass
class SagaHistory:
    """What a saga's log tells. The last of the calls has not ended; after the saga's end it has no line, either."""

    calls: list[CallHistory]
    state: str = State.EXECUTING
    taken_over: int = 0
    handed_over: int = 0
    cancel_requested_at: str = ""
    crashes: int = 0  # of the orchestrator, which were asked for
    overdue: bool = False
    replayed: int = 0
    left_out: bool = False  # lines are left out: all numbers are at least so high
    torn: bool = False  # lines are left out that tell of other calls than those here
    parked: list[ShownLine] = field(default_factory=list)  # the lines that say which events are parked

    @property
    def turn(self) -> CallHistory | None:
        """The call with which the saga turned back, to its start or only to its pivot; None where it did not."""
        return next((call for call in self.calls if not call.backward and call.after in _BACK), None)

    @property
    def seal(self) -> CallHistory | None:
        """The call that asks a pivot of unknown outcome to undo its action, which settles the outcome."""
        return next((call for call in self.calls if call.before == State.SEALING), None)

    @property
    def went_forward(self) -> bool:
        """Whether the saga turned back to its pivot, learnt that this had committed, and went forward again."""
        return any(call.committed for call in self.calls)

    @property
    def done(self) -> list[str]:
        """The steps that took effect, as their participants said."""
        return [call.step for call in self.calls if call.event == Event.ACTION_DONE or call.committed]

    @property
    def done_by_hand(self) -> list[CallHistory]:
        """The calls of actions that an operator marked as done."""
        return [call for call in self.calls if call.by_hand and not call.backward]

    @property
    def undone(self) -> list[str]:
        """The steps that were undone, as their participants said, in that order; a pivot is sealed, not undone."""
        return [call.step for call in self._compensations if call.event == Event.COMPENSATION_DONE]

    @property
    def undone_by_hand(self) -> list[CallHistory]:
        """The calls of compensations that an operator marked as done."""
        return [call for call in self._compensations if call.by_hand]

    @property
    def _compensations(self) -> list[CallHistory]:
        return [call for call in self.calls if call.before == State.COMPENSATING]


def with_gaps(lines: Sequence[ShownLine]) -> list[ShownLine]:
    """The shown lines of a log, with a line of the event LEFT_OUT wherever some are left out, which counts them."""
    found: list[ShownLine] = []
    for line in lines:
        missing = line["seq"] - found[-1]["seq"] - 1 if found else 0
        if missing > 0:
            nothing = dict.fromkeys(("step", "attempt", "status_code", "duration_ms"))
            gap = {"seq": line["seq"] - 1, "at": found[-1]["at"], "event": LEFT_OUT, **nothing}
            found.append({**gap, "detail": {"lines": missing, "until": line["at"]}})
        found.append(line)
    return found


def read_history(lines: Sequence[ShownLine]) -> SagaHistory:
    """What the lines of a log tell; they may be the whole log, or what `with_gaps` gives."""
    history = SagaHistory([CallHistory(State.EXECUTING)])
    events = [str(line["event"]) for line in lines]
    for line, following in zip(lines, [*events[1:], ""], strict=True):
        _take(history, line, following)
    history.parked = parked_lines(lines)
    return history


def _take(history: SagaHistory, line: ShownLine, following: str) -> None:
    """Add a line to the history; `following` is the event of the line after it."""
    event = line["event"]
    if history.calls[-1].left_out:
        _mend(history, line)
    call = history.calls[-1]
    if event == LEFT_OUT:
        call.left_out += int(line["detail"]["lines"])
        history.left_out = True
    elif event == ATTEMPT:
        call.attempts.append(line)
        call.number = line["attempt"] or 0
    elif event == CLAIMED and detail_of(line).get("interrupted"):
        call.number += 1
        history.taken_over += not by_operator(line, following)
    elif event == RELEASED:
        history.handed_over += 1
    elif event == CANCEL_REQUESTED:
        history.cancel_requested_at = line["step"] or ""
    elif event in _COUNTED:
        _COUNTED[event](history, line)
    elif event not in NOTES:
        history.state = state_of(line)
        if history.state in STALLED:
            call.stalls.append(line)
        elif event != Event.RESUMED:
            call.end = line
            history.calls.append(CallHistory(history.state))


def by_operator(line: ShownLine, following: str) -> bool:
    """Tell whether a claim was made for an operator's command, not because a driver crashed, stopped or was slow."""
    return detail_of(line).get("why") in _VERBS or following in _OPERATORS


def cut_short(saga: Mapping[str, Any], lines: Sequence[ShownLine], claim: int) -> tuple[str, bool] | None:
    """The call that the claim at this index took from its driver: its step, and whether it undoes; None: not known.

    The claim does not name it. The next line of a call does, since that call is made again, or else ended.
    """
    for line in lines[claim + 1 :]:
        event, step = line["event"], line["step"]
        if event == ATTEMPT and step:
            return step, detail_of(line).get("call") == Direction.COMPENSATION
        if step and (event == CANCEL_REQUESTED or event in set(Event)):
            return step, str(event).startswith("compensation")
    under_way = {"RUNNING": False, "COMPENSATING": True}
    steps = ((step["name"], under_way[step["status"]]) for step in saga["steps"] if step["status"] in under_way)
    return next(steps, None)


def attempts_of(history: SagaHistory) -> dict[str, int]:
    """How often each step's action was sent, as far as the log tells; an attempt that was cut short counts."""
    numbers: dict[str, int] = {}
    for call in history.calls:
        if call.step and not call.backward:
            numbers[call.step] = max(numbers.get(call.step, 0), call.number)
    return numbers


def _mend(history: SagaHistory, line: ShownLine) -> None:
    """After a gap, begin a new call where the line belongs to another one than the line before the gap."""
    call, backward = history.calls[-1], _of_compensation(line)
    if backward is not None and (line["step"], backward) != (call.step, call.backward):
        history.torn = True
        history.calls.append(CallHistory(State.COMPENSATING if backward else State.EXECUTING))


def _of_compensation(line: ShownLine) -> bool | None:
    """Tell whether a line is about a compensation or about an action; None where it is about neither."""
    event = line["event"]
    if event == ATTEMPT:
        return bool(detail_of(line).get("call") == Direction.COMPENSATION)
    if event in (Event.RESUMED, Event.RESOLVED):
        return state_of(line) in _BACK
    return event.startswith("compensation") if event in set(Event) else None


def _crashed(history: SagaHistory, line: ShownLine) -> None:
    history.crashes += 1


def _passed(history: SagaHistory, line: ShownLine) -> None:
    history.overdue = True


def _replayed(history: SagaHistory, line: ShownLine) -> None:
    history.replayed += 1


_COUNTED = {FAULT: _crashed, OVERDUE: _passed, REPLAYED: _replayed}


def state_of(line: ShownLine) -> str:
    """The state that a transition led to; empty where the log does not say."""
    return str(detail_of(line).get("state", ""))
