"""A context is what a saga's row says besides its state: how far each step is, and what was tried of the call at hand.

The context is the sum of the saga's lines: each line is added to it (`Context.after`) in the transaction that writes
the line. So a saga can be shown, and driven on after a crash, without its lines being read. `replay` adds up all lines
from the beginning. Its result is what the row must say, and the tests compare the two at every write. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

from saga.choreographed_notes import DeadLetter, parked_after, replayed_after, tells_of_a_service
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
    Event,
    Line,
    Saga,
    begin,
    fold,
)
from saga.step_summary import StepSummary

_NO_CALLS = AttemptsSoFar()


@dataclass(frozen=True)
class Context:
    """What all lines of a saga so far add up to."""

    lines: int = 0  # how many there are, which is also the number of the last one
    at: float = 0.0  # the time of the last one
    reached_at: float = 0.0  # when the saga reached the step at the cursor
    calls: AttemptsSoFar = _NO_CALLS
    steps: Mapping[str, StepSummary] = field(default_factory=dict)  # by the step's name, where anything is known
    cancelled: bool = False  # an operator has asked for it
    stalled: bool = False  # it has stalled at least once
    overdue: bool = False  # its deadline has passed: only of a choreographed saga
    heard: bool = False  # a service has heard of it, or may have: only of a choreographed saga
    faults: Sequence[str] = ()  # the injected crashes that have struck
    parked: Sequence[DeadLetter] = ()  # the dead letters that wait to be replayed
    replayed: Sequence[DeadLetter] = ()  # the dead letters that were replayed last

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
            heard=self.heard or tells_of_a_service(before.definition, line),
        )
        noted = _NOTED.get(line.event)
        return noted(context, line) if noted else context

    def _steps(self, line: Line, before: Saga, after: Saga) -> Mapping[str, StepSummary]:
        if line.event == CLAIMED:
            if after.calls == before.calls or before.state not in FORWARD or before.step is None:
                return self.steps
            name = before.step.name
            return {**self.steps, name: self.step(name).interrupted(after.calls, self.reached_at)}
        if line.step is None or (line.event in NOTES and line.event not in (ATTEMPT, GIVE_UP_FAILED)):
            return self.steps
        return {**self.steps, line.step: self.step(line.step).after(line, before, after)}

    def step(self, name: str) -> StepSummary:
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
            letters[name] = tuple(DeadLetter(**each) for each in column.get(name, ()))
        calls = column.get("calls", {})
        _check(calls, _CALLS, "context.calls")
        for name, step in column["steps"].items():
            _check(step, _STEP, f"context.steps.{name}")
        return cls(
            lines=column["lines"],
            at=column["at"],
            reached_at=column["reached_at"],
            calls=AttemptsSoFar(**calls),
            steps={name: StepSummary(**step) for name, step in column["steps"].items()},
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


_UNCALLED = StepSummary()
_FLAGS = ("cancelled", "stalled", "overdue", "heard")
_LETTERS = ("parked", "replayed")
_REQUIRED = {
    "context": ("lines", "at", "reached_at", "steps"),
    **{f"context.{name}": tuple(each.name for each in fields(DeadLetter)) for name in ("parked", "replayed")},
}
_CALLS, _STEP, _LETTER = (
    {name: type_check(annotation) for name, annotation in get_type_hints(of).items()}
    for of in (AttemptsSoFar, StepSummary, DeadLetter)
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
_DEFAULTS = {kind: {each.name: each.default for each in fields(kind)} for kind in (AttemptsSoFar, StepSummary)}


def _not_default(value: AttemptsSoFar | StepSummary) -> dict[str, Any]:
    defaults = _DEFAULTS[type(value)]
    return {name: each for name, each in vars(value).items() if each != defaults[name]}


def _cancelled(context: Context, line: Line) -> Context:
    return replace(context, cancelled=True)


def _overdue(context: Context, line: Line) -> Context:
    return replace(context, overdue=True)


def _fault_struck(context: Context, line: Line) -> Context:
    return replace(context, faults=(*context.faults, str(line.facts.get("fault"))))


def _parked(context: Context, line: Line) -> Context:
    return replace(context, parked=parked_after(context.parked, line))


def _replayed(context: Context, line: Line) -> Context:
    replayed = replayed_after(context.parked, context.replayed, line)
    return replace(context, parked=parked_after(context.parked, line), replayed=replayed)


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
