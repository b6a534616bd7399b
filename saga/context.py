"""What a saga's row says besides its state: how far each step has come, and what is known of the call at the cursor.

The context is the sum of the saga's lines, each added as it is written. So a saga can be shown, and driven on after a
crash, without reading its lines. `replay` adds up all lines from the beginning: what it gives is what the row must
say, and the tests compare the two at every write. Pure.
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
    AttemptsSoFar,
    Direction,
    Event,
    Line,
    Saga,
    State,
    begin,
    fold,
)

_NO_CALLS = AttemptsSoFar()
ITS_STARTER = "orchestrator"  # the service in the line of an event that the orchestrator itself could not publish
_UNHEARD = frozenset({STARTED, OVERDUE, FAULT})  # the lines of a choreographed saga that no service has caused
REPLAYED_LETTERS_KEPT = 20  # replayed dead letters that are remembered, so that none gets a second line

# The status and the effect that a step has after an event.
_STATUS_AND_EFFECT: Mapping[Event, tuple[str, str]] = {
    Event.ACTION_DONE: ("DONE", "applied"),
    Event.ACTION_REFUSED: ("REFUSED", "none"),
    Event.ACTION_UNKNOWN: ("UNKNOWN", "unknown"),
    Event.COMPENSATION_DONE: ("COMPENSATED", "undone"),
}
_EFFECTS = {"done": "applied", "unknown": "unknown"}  # the effect that a step may have, by an attempt's verdict


@dataclass(frozen=True)
class StepProgress:
    """How far a step has come, as its attempts and events in the log tell it. Times are in seconds since the epoch."""

    status: str = "PENDING"
    effect: str = "none"
    attempts: int = 0  # of its action
    started_at: float | None = None  # when the first attempt of its action began
    ended_at: float | None = None  # when the last attempt of its action was answered
    error: str | None = None  # the message of the last attempt that failed
    why: str | None = None  # why its action failed: `error` again, once its compensation has succeeded
    gave_up: int = 0  # the last attempt after which a choreographed step failed to undo its own action

    def after(self, line: Line, before: Saga, after: Saga) -> StepProgress:
        """Return the progress after a line of this step; `before` and `after` are the saga on both sides of it."""
        detail = line.facts
        if line.event == ATTEMPT:
            return self._attempted(line, detail)
        if line.event == GIVE_UP_FAILED:
            return replace(self, error=detail.get("message"), gave_up=max(self.gave_up, line.attempt or 0))
        return self if line.event in NOTES else self._moved(Event(line.event), before, after)

    def interrupted(self, calls: AttemptsSoFar, reached_at: float) -> StepProgress:
        """Return the progress after the driver of its action has vanished.

        The call may have been under way since the saga reached the step, so it counts as an attempt whose effect is
        unknown.
        """
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
            event = Event.ACTION_DONE  # the pivot has answered that its action took effect
        status, effect, error, why = self.status, self.effect, self.error, self.why
        if event in (Event.CANCELLED, Event.DEADLINE_PASSED) and before.calls.attempts:
            status, effect = "UNKNOWN", "unknown" if effect == "none" else effect
        status, effect = _STATUS_AND_EFFECT.get(event, (status, effect))
        if event is Event.ACTION_DONE:
            error = why = None
        elif event is Event.COMPENSATION_DONE:
            error = why
        return replace(self, status=status, effect=effect, error=error, why=why)


@dataclass(frozen=True)
class Letter:
    """A dead letter: an event of a choreographed saga that a service could not handle, and that was parked."""

    letter: int  # its number at the broker
    subject: str | None
    stored_at: str | None  # with the number it names the letter: a broker with a new disk counts from 1 again
    line: int  # the number of the line that tells of it


@dataclass(frozen=True)
class Context:
    """What all lines of a saga so far add up to."""

    lines: int = 0  # how many there are, which is also the number of the last one
    at: float = 0.0  # the time of the last one
    reached_at: float = 0.0  # when the saga reached the step at the cursor
    calls: AttemptsSoFar = _NO_CALLS
    steps: Mapping[str, StepProgress] = field(default_factory=dict)  # by the step's name, where anything is known
    cancelled: bool = False  # an operator has asked for it
    stalled: bool = False  # it has stalled at least once
    overdue: bool = False  # its deadline has passed: only of a choreographed saga
    heard: bool = False  # a service has heard of it, or may have: only of a choreographed saga
    faults: Sequence[str] = ()  # the injected crashes that have struck
    parked: Sequence[Letter] = ()  # the dead letters that wait to be replayed
    replayed: Sequence[Letter] = ()  # the dead letters that were replayed last

    def after(self, line: Line, before: Saga, after: Saga) -> Context:
        """Return the context after one more line; `before` and `after` are the saga on both sides of it."""
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
        """Return how far the step with this name has come."""
        return self.steps.get(name, _UNCALLED)

    def knows(self, letter: int, stored_at: str | None) -> bool:
        """Return whether a line already tells of this dead letter.

        Of the letters that were replayed, only the last ones are known.
        """
        return any((each.letter, each.stored_at) == (letter, stored_at) for each in (*self.parked, *self.replayed))

    def as_json(self) -> dict[str, Any]:
        """Return what the row's column holds: only what differs from the defaults. `from_json` reads it back."""
        column: dict[str, Any] = {"lines": self.lines, "at": self.at, "reached_at": self.reached_at}
        column |= {name: value for name in _FLAGS if (value := getattr(self, name))}
        column |= {"faults": list(self.faults)} if self.faults else {}
        column |= {name: [vars(letter) for letter in letters] for name in _LETTERS if (letters := getattr(self, name))}
        calls = _not_default(self.calls)
        steps = {name: _not_default(step) for name, step in self.steps.items()}
        return {**column, **({"calls": calls} if calls else {}), "steps": steps}

    @classmethod
    def from_json(cls, column: Mapping[str, Any]) -> Context:
        """Return the context that a row's column holds. Raises ContextError where this version cannot read it."""
        _check(column, _SHAPE, "context")
        letters: dict[str, Any] = {}
        for name in _LETTERS:
            for letter in column.get(name, ()):
                _check(letter, _LETTER, f"context.{name}")
            letters[name] = tuple(Letter(**each) for each in column.get(name, ()))
        calls = column.get("calls", {})
        _check(calls, _CALLS, "context.calls")
        for name, step in column["steps"].items():
            _check(step, _STEP, f"context.steps.{name}")
        return cls(
            lines=column["lines"],
            at=column["at"],
            reached_at=column["reached_at"],
            calls=AttemptsSoFar(**calls),
            steps={name: StepProgress(**step) for name, step in column["steps"].items()},
            faults=tuple(column.get("faults", ())),
            **{name: column[name] for name in _FLAGS if name in column},
            **letters,
        )


class ContextError(ValueError):
    """A row's context cannot be read by this version; the message names the field."""


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


_UNCALLED = StepProgress()
_FLAGS = ("cancelled", "stalled", "overdue", "heard")
_LETTERS = ("parked", "replayed")
_REQUIRED = {
    "context": ("lines", "at", "reached_at", "steps"),
    **{f"context.{name}": tuple(each.name for each in fields(Letter)) for name in ("parked", "replayed")},
}
_CALLS, _STEP, _LETTER = (
    {name: type_check(annotation) for name, annotation in get_type_hints(of).items()}
    for of in (AttemptsSoFar, StepProgress, Letter)
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
_DEFAULTS = {kind: {each.name: each.default for each in fields(kind)} for kind in (AttemptsSoFar, StepProgress)}


def _not_default(value: AttemptsSoFar | StepProgress) -> dict[str, Any]:
    defaults = _DEFAULTS[type(value)]
    return {name: each for name, each in vars(value).items() if each != defaults[name]}


def by_its_starter(line: Line) -> bool:
    """Return whether a line of a choreographed saga can be written before any service has heard of the saga."""
    return line.event in _UNHEARD or (line.event == PARKED and line.facts.get("service") == ITS_STARTER)


def parked_after(parked: Sequence[Letter], line: Line) -> tuple[Letter, ...]:
    """Return the dead letters that wait after one more line: parking adds one, a replay takes it away."""
    if line.event not in (PARKED, REPLAYED):
        return tuple(parked)
    letter = _letter(line)
    others = tuple(each for each in parked if each.letter != letter.letter)
    return (*others, letter) if line.event == PARKED else others


def _cancelled(context: Context, line: Line) -> Context:
    return replace(context, cancelled=True)


def _overdue(context: Context, line: Line) -> Context:
    return replace(context, overdue=True)


def _fault_struck(context: Context, line: Line) -> Context:
    return replace(context, faults=(*context.faults, str(line.facts.get("fault"))))


def _parked(context: Context, line: Line) -> Context:
    return replace(context, parked=parked_after(context.parked, line))


def _replayed(context: Context, line: Line) -> Context:
    number = _letter(line).letter
    gone = [each for each in context.parked if each.letter == number]
    waiting = parked_after(context.parked, line)
    return replace(context, parked=waiting, replayed=(*context.replayed, *gone)[-REPLAYED_LETTERS_KEPT:])


def _letter(line: Line) -> Letter:
    facts = line.facts
    return Letter(int(facts.get("letter", 0)), facts.get("subject"), facts.get("stored_at"), line.seq)


# What some lines say of the saga itself, besides what they say of a step.
_NOTED: Mapping[str, Callable[[Context, Line], Context]] = {
    Event.CANCELLED: _cancelled,
    CANCEL_REQUESTED: _cancelled,
    OVERDUE: _overdue,
    FAULT: _fault_struck,
    PARKED: _parked,
    REPLAYED: _replayed,
}


def replay(
    definition: SagaDefinition,
    input: Mapping[str, Any],
    lines: Iterable[Line],
    results: Mapping[str, Mapping[str, Any]],
) -> tuple[Saga, Context]:
    """Return the saga and the context that a row must have, from all lines of its log.

    `results` holds what the actions answered, by the step's name.
    """
    saga, context = begin(definition, input), Context()
    for line in lines:
        before, saga = saga, fold(saga, line, results)
        context = context.after(line, before, saga)
    return saga, context
