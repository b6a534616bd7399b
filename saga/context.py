"""What a saga's row says besides its state: how far each step has come, what is known of the call at the cursor, flags.

It is the saga's lines, folded one by one as they are written, so that a saga is shown, and goes on after a crash,
without anybody reading its lines. `replay` folds all of them from the beginning; a test compares the two. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

from saga.definition import SagaDefinition, type_check
from saga.machine import (
    ATTEMPT,
    CANCEL_REQUESTED,
    CLAIMED,
    FAULT,
    FORWARD,
    GIVE_UP_FAILED,
    NOTES,
    OVERDUE,
    PARKED,
    REPLAYED,
    STALLED,
    STARTED,
    CallHistory,
    Direction,
    Event,
    Line,
    Saga,
    State,
    begin,
    fold,
)

_NO_CALLS = CallHistory()
ITS_STARTER = "orchestrator"  # parks what it cannot publish: then no service has heard of it
_UNHEARD = frozenset({STARTED, OVERDUE, FAULT})  # lines of a choreographed saga that no service has caused
REPLAYED_AT_MOST = 20  # letters that are remembered after they were replayed, so that none is noted twice

# What an event makes of the step it happened to: its status and its effect.
_AFTERWARDS: Mapping[Event, tuple[str, str]] = {
    Event.ACTION_DONE: ("DONE", "applied"),
    Event.ACTION_REFUSED: ("REFUSED", "none"),
    Event.ACTION_UNKNOWN: ("UNKNOWN", "unknown"),
    Event.COMPENSATION_DONE: ("COMPENSATED", "undone"),
}
_EFFECTS = {"done": "applied", "unknown": "unknown"}  # by an attempt's verdict


@dataclass(frozen=True)
class StepProgress:
    """How far a step has come, as the answered attempts and the events of its calls tell it. Times in seconds."""

    status: str = "PENDING"
    effect: str = "none"
    attempts: int = 0  # of its action
    started_at: float | None = None
    ended_at: float | None = None
    error: str | None = None
    why: str | None = None  # why its action failed: shown again once its compensation has succeeded
    gave_up: int = 0  # the last attempt after which a choreographed step failed to undo its own action

    def after(self, line: Line, before: Saga, after: Saga) -> StepProgress:
        """After a line of this step's; `before` and `after` are the saga on both sides of it."""
        detail = line.facts
        if line.event == ATTEMPT:
            return self._attempted(line, detail)
        if line.event == GIVE_UP_FAILED:
            return replace(self, error=detail.get("message"), gave_up=max(self.gave_up, line.attempt or 0))
        return self if line.event in NOTES else self._moved(Event(line.event), before, after)

    def interrupted(self, calls: CallHistory, reached_at: float) -> StepProgress:
        """After its action's driver has vanished, which counts as an attempt that may have had its effect."""
        effect = "unknown" if self.effect == "none" else self.effect
        started_at = reached_at if self.started_at is None else self.started_at
        return replace(self, attempts=calls.attempts, effect=effect, started_at=started_at)

    def _attempted(self, line: Line, detail: Mapping[str, Any]) -> StepProgress:
        message = detail.get("message")
        if detail.get("call") != Direction.ACTION:
            return replace(self, error=message)
        return StepProgress(
            self.status,
            _EFFECTS.get(str(detail.get("verdict")), self.effect),
            line.attempt or 0,
            round(line.at - (line.duration_ms or 0) / 1000, 6) if self.started_at is None else self.started_at,
            line.at,
            error=message,
            why=message,
            gave_up=self.gave_up,
        )

    def _moved(self, event: Event, before: Saga, after: Saga) -> StepProgress:
        if event is Event.RESOLVED:
            event = Event.ACTION_DONE if after.cursor > before.cursor else Event.COMPENSATION_DONE
        if event is Event.COMPENSATION_REFUSED and before.state is State.SEALING:
            event = Event.ACTION_DONE  # the pivot says that it has committed
        status, effect, error, why = self.status, self.effect, self.error, self.why
        if event in (Event.CANCELLED, Event.DEADLINE_PASSED) and before.calls.attempts:
            status, effect = "UNKNOWN", "unknown" if effect == "none" else effect
        status, effect = _AFTERWARDS.get(event, (status, effect))
        if event is Event.ACTION_DONE:
            error = why = None
        elif event is Event.COMPENSATION_DONE:
            error = why
        return replace(self, status=status, effect=effect, error=error, why=why)


@dataclass(frozen=True)
class Letter:
    """A parked event of a choreographed saga."""

    letter: int
    subject: str | None
    stored_at: str | None  # a broker's new disk counts its letters from 1 again
    line: int  # the number of the line that tells of it


@dataclass(frozen=True)
class Context:
    """The fold of all lines so far."""

    lines: int = 0  # how many there are, which is the number of the last one
    at: float = 0.0  # the time of the last one
    reached_at: float = 0.0  # when the saga reached the step at the cursor
    calls: CallHistory = _NO_CALLS
    steps: Mapping[str, StepProgress] = field(default_factory=dict)  # those that something is known of
    cancelled: bool = False  # somebody has asked for it
    stalled: bool = False  # it has stalled at least once
    overdue: bool = False
    heard: bool = False  # a service has heard of it, or may have: only of a choreographed saga
    faults: Sequence[str] = ()  # the injected crashes that have struck
    parked: Sequence[Letter] = ()  # the events that wait to be replayed
    replayed: Sequence[Letter] = ()  # the last ones that were

    def after(self, line: Line, before: Saga, after: Saga) -> Context:
        """After one more line; `before` and `after` are the saga on both sides of it."""
        moved = line.event not in NOTES
        context = replace(
            self,
            lines=line.seq,
            at=line.at,
            reached_at=line.at if moved or line.event == STARTED else self.reached_at,
            calls=after.calls,
            steps=self._steps(line, before, after),
            stalled=self.stalled or (moved and after.state in STALLED),
            heard=self.heard or (before.definition.choreographed and not by_its_starter(line)),
        )
        noted = _NOTED.get(line.event)
        return noted(context, line) if noted else context

    def _steps(self, line: Line, before: Saga, after: Saga) -> Mapping[str, StepProgress]:
        if line.event == CLAIMED:
            if after.calls == before.calls or before.state not in FORWARD or before.step is None:
                return self.steps
            name = before.step.name
            return {**self.steps, name: self.step(name).interrupted(after.calls, self.reached_at)}
        if line.step is None or (line.event in NOTES and line.event not in (ATTEMPT, GIVE_UP_FAILED)):
            return self.steps
        return {**self.steps, line.step: self.step(line.step).after(line, before, after)}

    def step(self, name: str) -> StepProgress:
        """How far this step has come."""
        return self.steps.get(name, _UNTOUCHED)

    def knows(self, letter: int, stored_at: str | None) -> bool:
        """Whether a line tells already that this event is parked, or was: of those, only the last ones are known."""
        return any((each.letter, each.stored_at) == (letter, stored_at) for each in (*self.parked, *self.replayed))

    def as_json(self) -> dict[str, Any]:
        """What the row's column holds: only what is not as it was at first. `from_json` reads it back."""
        told: dict[str, Any] = {"lines": self.lines, "at": self.at, "reached_at": self.reached_at}
        told |= {name: value for name in _FLAGS if (value := getattr(self, name))}
        told |= {"faults": list(self.faults)} if self.faults else {}
        told |= {name: [vars(letter) for letter in letters] for name in _LETTERS if (letters := getattr(self, name))}
        calls = _told(self.calls)
        steps = {name: _told(step) for name, step in self.steps.items()}
        return {**told, **({"calls": calls} if calls else {}), "steps": steps}

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> Context:
        """The context whose `as_json` it is; ContextError where it is none of this version's."""
        _check(told, _SHAPE, "context")
        letters: dict[str, Any] = {}
        for name in _LETTERS:
            for letter in told.get(name, ()):
                _check(letter, _LETTER, f"context.{name}")
            letters[name] = tuple(Letter(**each) for each in told.get(name, ()))
        calls = told.get("calls", {})
        _check(calls, _CALLS, "context.calls")
        for name, step in told["steps"].items():
            _check(step, _STEP, f"context.steps.{name}")
        return cls(
            lines=told["lines"],
            at=told["at"],
            reached_at=told["reached_at"],
            calls=CallHistory(**calls),
            steps={name: StepProgress(**step) for name, step in told["steps"].items()},
            faults=tuple(told.get("faults", ())),
            **{name: told[name] for name in _FLAGS if name in told},
            **letters,
        )


class ContextError(ValueError):
    """What a row says of its saga's steps is none of this version's; the message names the field."""


def _check(values: Any, shape: Mapping[str, Callable[[Any], bool]], place: str) -> None:
    if not isinstance(values, dict):
        raise ContextError(f"{place} must be an object")
    if unknown := sorted(values.keys() - shape.keys()):
        raise ContextError(f"a newer version's field in {place}: {', '.join(unknown)[:100]}")
    for name, has_its_type in shape.items():
        if name in values and not has_its_type(values[name]):
            raise ContextError(f"{place}.{name} is of no type that this version knows")
        if name not in values and name in _REQUIRED.get(place, ()):
            raise ContextError(f"{place}.{name} is missing")


_UNTOUCHED = StepProgress()
_FLAGS = ("cancelled", "stalled", "overdue", "heard")
_LETTERS = ("parked", "replayed")
_REQUIRED = {
    "context": ("lines", "at", "reached_at", "steps"),
    **{f"context.{name}": tuple(each.name for each in fields(Letter)) for name in ("parked", "replayed")},
}
_CALLS, _STEP, _LETTER = (
    {name: type_check(annotation) for name, annotation in get_type_hints(of).items()}
    for of in (CallHistory, StepProgress, Letter)
)
_SHAPE: Mapping[str, Callable[[Any], bool]] = {
    "lines": type_check(int),
    "at": type_check(float),
    "reached_at": type_check(float),
    "calls": type_check(dict),
    "steps": type_check(dict),
    "faults": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    **dict.fromkeys(_FLAGS, type_check(bool)),
    **dict.fromkeys(_LETTERS, type_check(list)),
}
_AT_FIRST = {kind: {each.name: each.default for each in fields(kind)} for kind in (CallHistory, StepProgress)}


def _told(value: CallHistory | StepProgress) -> dict[str, Any]:
    at_first = _AT_FIRST[type(value)]
    return {name: each for name, each in vars(value).items() if each != at_first[name]}


def by_its_starter(line: Line) -> bool:
    """Whether a line of a choreographed saga can be written before any service has heard of the saga."""
    return line.event in _UNHEARD or (line.event == PARKED and line.facts.get("service") == ITS_STARTER)


def parked_after(parked: Sequence[Letter], line: Line) -> tuple[Letter, ...]:
    """The events that are parked after one more line: parking adds one, a replay takes it away."""
    if line.event not in (PARKED, REPLAYED):
        return tuple(parked)
    letter = _letter(line)
    others = tuple(each for each in parked if each.letter != letter.letter)
    return (*others, letter) if line.event == PARKED else others


def _cancelled(context: Context, line: Line) -> Context:
    return replace(context, cancelled=True)


def _overdue(context: Context, line: Line) -> Context:
    return replace(context, overdue=True)


def _struck(context: Context, line: Line) -> Context:
    return replace(context, faults=(*context.faults, str(line.facts.get("fault"))))


def _parked(context: Context, line: Line) -> Context:
    return replace(context, parked=parked_after(context.parked, line))


def _replayed(context: Context, line: Line) -> Context:
    number = _letter(line).letter
    gone = [each for each in context.parked if each.letter == number]
    waiting = parked_after(context.parked, line)
    return replace(context, parked=waiting, replayed=(*context.replayed, *gone)[-REPLAYED_AT_MOST:])


def _letter(line: Line) -> Letter:
    facts = line.facts
    return Letter(int(facts.get("letter", 0)), facts.get("subject"), facts.get("stored_at"), line.seq)


_NOTED: Mapping[str, Callable[[Context, Line], Context]] = {
    Event.CANCELLED: _cancelled,
    CANCEL_REQUESTED: _cancelled,
    OVERDUE: _overdue,
    FAULT: _struck,
    PARKED: _parked,
    REPLAYED: _replayed,
}


def replay(
    definition: SagaDefinition,
    input: Mapping[str, Any],
    lines: Iterable[Line],
    results: Mapping[str, Mapping[str, Any]],
) -> tuple[Saga, Context]:
    """The saga and the context that its row must have, from all its lines: recovery is replay."""
    saga, context = begin(definition, input), Context()
    for line in lines:
        before, saga = saga, fold(saga, line, results)
        context = context.after(line, before, saga)
    return saga, context
