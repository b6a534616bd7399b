"""The state machine of a saga: pure, one table; no I/O, no clock, no randomness.

`apply(saga, event)` gives the next saga, `next_call(saga)` the call it wants made. Whoever makes that call
turns the answer into the next event. A crash loses nothing: `replay` folds the saga log's lines through the
same functions and arrives where the driver was.

The model is Garcia-Molina and Salem, "Sagas" (SIGMOD 1987), with a pivot: the step that cannot be undone,
before which a saga recovers backward and after which it recovers forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from saga.definition import SagaDefinition, Step
from saga.errors import IllegalEvent


class State(StrEnum):
    """Where a saga is; the cursor says at which step."""

    EXECUTING = "executing"  # actions, forward
    DECIDING = "deciding"  # the pivot's action: all turns on its answer
    SEALING = "sealing"  # the pivot's outcome is unknown: its compensation finds out and settles it
    FINISHING = "finishing"  # actions after the pivot: only forward
    COMPENSATING = "compensating"  # compensations, backward
    STALLED_DECIDING = "stalled_deciding"  # a call got no usable answer: it is made again when it is due
    STALLED_SEALING = "stalled_sealing"
    STALLED_FINISHING = "stalled_finishing"
    STALLED_COMPENSATING = "stalled_compensating"
    COMPLETED = "completed"  # every action took effect
    COMPENSATED = "compensated"  # none did


class Event(StrEnum):
    """What happened to a saga."""

    ACTION_DONE = "action_done"
    ACTION_REFUSED = "action_refused"  # it certainly had no effect
    ACTION_UNKNOWN = "action_unknown"  # it may have had its effect
    COMPENSATION_DONE = "compensation_done"
    COMPENSATION_REFUSED = "compensation_refused"
    COMPENSATION_UNKNOWN = "compensation_unknown"
    CANCELLED = "cancelled"
    DEADLINE_PASSED = "deadline_passed"
    RESUMED = "resumed"
    RESOLVED = "resolved"  # an operator saw to it that the call's effect is there


class Move(StrEnum):
    """What an event does to the cursor."""

    NEXT = "next"
    PREVIOUS = "previous"
    SAME = "same"
    IN_FLIGHT = "in flight"  # the same where the step may have been called, else the previous


S, E, M = State, Event, Move

TRANSITIONS: Mapping[tuple[State, Event], tuple[State, Move]] = {
    (S.EXECUTING, E.ACTION_DONE): (S.EXECUTING, M.NEXT),
    (S.EXECUTING, E.ACTION_REFUSED): (S.COMPENSATING, M.PREVIOUS),
    (S.EXECUTING, E.ACTION_UNKNOWN): (S.COMPENSATING, M.SAME),
    (S.EXECUTING, E.CANCELLED): (S.COMPENSATING, M.IN_FLIGHT),
    (S.EXECUTING, E.DEADLINE_PASSED): (S.COMPENSATING, M.IN_FLIGHT),
    (S.DECIDING, E.ACTION_DONE): (S.FINISHING, M.NEXT),
    (S.DECIDING, E.ACTION_REFUSED): (S.COMPENSATING, M.PREVIOUS),
    (S.DECIDING, E.ACTION_UNKNOWN): (S.SEALING, M.SAME),
    (S.SEALING, E.COMPENSATION_DONE): (S.COMPENSATING, M.PREVIOUS),
    (S.SEALING, E.COMPENSATION_REFUSED): (S.FINISHING, M.NEXT),
    (S.SEALING, E.COMPENSATION_UNKNOWN): (S.STALLED_SEALING, M.SAME),
    (S.FINISHING, E.ACTION_DONE): (S.FINISHING, M.NEXT),
    (S.FINISHING, E.ACTION_REFUSED): (S.STALLED_FINISHING, M.SAME),
    (S.FINISHING, E.ACTION_UNKNOWN): (S.STALLED_FINISHING, M.SAME),
    (S.COMPENSATING, E.COMPENSATION_DONE): (S.COMPENSATING, M.PREVIOUS),
    (S.COMPENSATING, E.COMPENSATION_REFUSED): (S.STALLED_COMPENSATING, M.SAME),
    (S.COMPENSATING, E.COMPENSATION_UNKNOWN): (S.STALLED_COMPENSATING, M.SAME),
    (S.STALLED_DECIDING, E.RESUMED): (S.DECIDING, M.SAME),
    (S.STALLED_SEALING, E.RESUMED): (S.SEALING, M.SAME),
    (S.STALLED_FINISHING, E.RESUMED): (S.FINISHING, M.SAME),
    (S.STALLED_COMPENSATING, E.RESUMED): (S.COMPENSATING, M.SAME),
    (S.STALLED_DECIDING, E.RESOLVED): (S.FINISHING, M.NEXT),
    (S.STALLED_SEALING, E.RESOLVED): (S.COMPENSATING, M.PREVIOUS),
    (S.STALLED_FINISHING, E.RESOLVED): (S.FINISHING, M.NEXT),
    (S.STALLED_COMPENSATING, E.RESOLVED): (S.COMPENSATING, M.PREVIOUS),
}

FORWARD = frozenset({S.EXECUTING, S.DECIDING, S.FINISHING})
BACKWARD = frozenset({S.COMPENSATING, S.SEALING})
MOVING = FORWARD | BACKWARD  # there is a call to make
STALLED = frozenset({S.STALLED_DECIDING, S.STALLED_SEALING, S.STALLED_FINISHING, S.STALLED_COMPENSATING})
STALLED_AT_AN_ACTION = frozenset({S.STALLED_DECIDING, S.STALLED_FINISHING})  # those whose stalled call is an action
ENDED = frozenset({S.COMPLETED, S.COMPENSATED})
UNENDED = FORWARD | BACKWARD | STALLED


class Direction(StrEnum):
    """Which of a step's two calls."""

    ACTION = "action"
    COMPENSATION = "compensation"


@dataclass(frozen=True)
class CallHistory:
    """What is known of the call at the cursor: how often it was made, over rounds and restarts."""

    attempts: int = 0  # all of them; an attempt that a crash may have interrupted counts
    this_round: int = 0  # those since the saga last stalled
    uncertain: bool = False  # one of them may have had an effect


@dataclass(frozen=True)
class Saga:
    """A saga at one moment: a value; every change gives a new one."""

    definition: SagaDefinition
    input: Mapping[str, Any]
    state: State
    cursor: int
    results: Mapping[str, Mapping[str, Any]]  # what each step's action answered, by the step's name
    calls: CallHistory = CallHistory()

    @property
    def step(self) -> Step | None:
        """The step at the cursor; None once the saga has ended."""
        return self.definition.steps[self.cursor] if 0 <= self.cursor < len(self.definition.steps) else None


@dataclass(frozen=True)
class Call:
    """The call that a saga wants made: a step's action or its compensation, with the fields it may see."""

    step: Step
    direction: Direction
    url: str
    fields: Mapping[str, Any]


def begin(definition: SagaDefinition, input: Mapping[str, Any]) -> Saga:
    """A saga before its first call."""
    state, cursor = _settle(definition, S.EXECUTING, 0)
    return Saga(definition, input, state, cursor, {})


def apply(saga: Saga, event: Event, result: Mapping[str, Any] | None = None) -> Saga:
    """The saga after `event`; `result` is what the action answered, or an operator answers in its place.

    IllegalEvent where the table has no row.
    """
    try:
        state, move = TRANSITIONS[saga.state, event]
    except KeyError:
        raise IllegalEvent(f"{event} in {saga.state}") from None
    results = saga.results
    if event is E.ACTION_DONE and saga.step:
        results = {**results, saga.step.name: result or {}}
    elif event is E.RESOLVED and saga.step and saga.state in STALLED_AT_AN_ACTION and result is not None:
        results = {**results, saga.step.name: result}
    if event is E.RESUMED:  # the same call, in a new round
        calls = CallHistory(saga.calls.attempts, 0, saga.calls.uncertain)
        state, _ = _settle(saga.definition, state, saga.cursor)
        return Saga(saga.definition, saga.input, state, saga.cursor, saga.results, calls)
    state, cursor = _settle(saga.definition, state, saga.cursor + _distance(move, saga.calls))
    calls = saga.calls if state in STALLED else CallHistory()  # stalled: the same call again
    return Saga(saga.definition, saga.input, state, cursor, results, calls)


_DISTANCES = {M.NEXT: 1, M.PREVIOUS: -1, M.SAME: 0}


def _distance(move: Move, calls: CallHistory) -> int:
    if move is M.IN_FLIGHT:
        move = M.SAME if calls.attempts else M.PREVIOUS
    return _DISTANCES[move]


def _settle(definition: SagaDefinition, state: State, cursor: int) -> tuple[State, int]:
    """What follows from the cursor's position, not from the event."""
    steps = definition.steps
    if state is S.COMPENSATING:
        while cursor >= 0 and steps[cursor].compensation is None and not steps[cursor].unsaid:
            cursor -= 1
        if cursor < 0:
            state = S.COMPENSATED
        elif steps[cursor].compensation is None:
            state = S.STALLED_COMPENSATING  # nobody can undo it, and nobody has said that there is nothing to undo
    elif state is S.SEALING and steps[cursor].compensation is None:
        state = S.STALLED_DECIDING  # nobody can tell whether the pivot committed
    elif state in (S.EXECUTING, S.FINISHING) and cursor == len(steps):
        state = S.COMPLETED
    elif state is S.EXECUTING and steps[cursor].pivot:
        state = S.DECIDING
    return state, cursor


def cannot_undo(saga: Saga) -> str | None:
    """Why a saga stays stalled until an operator resolves it; None where it is stalled at a call, or is not stalled."""
    step = saga.step
    if saga.state is not S.STALLED_COMPENSATING or step is None or step.compensation is not None:
        return None
    outcome = "it took effect" if step.name in saga.results else "its outcome is unknown"
    return f"nobody can undo {step.name}: {outcome} and its definition has no compensation"


def passed_over(saga: Saga) -> Saga:
    """The saga as it was in older versions, which went on past a step that nobody can undo."""
    steps, cursor = saga.definition.steps, saga.cursor
    while cursor >= 0 and steps[cursor].compensation is None:
        cursor -= 1
    state = S.COMPENSATING if cursor >= 0 else S.COMPENSATED
    return Saga(saga.definition, saga.input, state, cursor, saga.results)


def next_call(saga: Saga) -> Call | None:
    """The call to make now; None where the saga has ended or is stalled."""
    step = saga.step
    if step is None or saga.state not in MOVING:
        return None
    fields = _fields(saga, step)
    if saga.state in FORWARD:
        return Call(step, Direction.ACTION, step.action, fields)
    if step.compensation is None:
        raise IllegalEvent(f"{saga.state} at {step.name}, which has no compensation")
    return Call(step, Direction.COMPENSATION, step.compensation, fields)


def _fields(saga: Saga, step: Step) -> dict[str, Any]:
    """What `step` may see: of the input and of the steps before it (so its two calls get the same), later wins."""
    known = dict(saga.input)
    for earlier in saga.definition.steps[: saga.cursor]:
        known.update(saga.results.get(earlier.name, {}))
    return {name: known[name] for name in step.send if name in known}


def attempted(saga: Saga, number: int, uncertain: bool) -> Saga:
    """After an attempt of the call at the cursor was answered, or given up, without ending the call."""
    calls = CallHistory(number, saga.calls.this_round + 1, saga.calls.uncertain or uncertain)
    return Saga(saga.definition, saga.input, saga.state, saga.cursor, saga.results, calls)


def interrupted(saga: Saga) -> Saga:
    """After its driver vanished: the call at the cursor may have been under way, so that counts as an attempt."""
    if saga.state not in MOVING:
        return saga
    return attempted(saga, saga.calls.attempts + 1, uncertain=True)


@dataclass(frozen=True)
class Line:
    """A line of the saga log; `event` is an Event's value or one of the NOTES."""

    seq: int
    at: float  # seconds since the epoch
    event: str
    step: str | None = None
    attempt: int | None = None
    status_code: int | None = None
    duration_ms: float | None = None
    detail: Mapping[str, Any] | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        """What `detail` says; empty where there is none."""
        return self.detail or {}


# Lines that are no transitions. Only the first two change what is known of the call at the cursor.
ATTEMPT, CLAIMED = "attempt", "claimed"
STARTED, RELEASED, FAULT, CANCEL_REQUESTED = "started", "released", "fault", "cancel_requested"
OVERDUE, PARKED, REPLAYED = "overdue", "parked", "replayed"  # of a choreographed saga, which nobody drives
ABANDONED = "abandoned"  # by an operator, before any service had heard of it
GIVE_UP_FAILED = "give_up_failed"  # a step could not undo its own action yet; one of its attempts may still be done
NOTES = frozenset(
    {ATTEMPT, CLAIMED, STARTED, RELEASED, FAULT, CANCEL_REQUESTED, OVERDUE, PARKED, REPLAYED, ABANDONED, GIVE_UP_FAILED}
)
BESIDE_THE_DRIVER = frozenset(
    {CANCEL_REQUESTED}
)  # written beside the driver, which goes on: its next line comes after it


def fold(saga: Saga, line: Line, results: Mapping[str, Mapping[str, Any]]) -> Saga:
    """The saga after one line of its log; `results` holds what the actions answered, by step."""
    detail = line.facts
    if line.event == ATTEMPT:
        return attempted(saga, line.attempt or 0, uncertain=detail.get("verdict") == "unknown")
    if line.event == CLAIMED:
        return interrupted(saga) if detail.get("interrupted") else saga
    if line.event in NOTES:
        return saga
    saga = apply(saga, Event(line.event), results.get(line.step or ""))
    if cannot_undo(saga) and detail.get("state") in (S.COMPENSATING, S.COMPENSATED):  # an older version's line
        return passed_over(saga)
    return saga
