"""The state machine of a saga is one table, with pure functions around it: no I/O, no clock, no randomness.

`begin(definition, input)` gives a saga before its first call, `next_call(saga)` the call that it wants made, and
`apply(saga, event)` the saga after the event that came of that call. Whoever drives the saga makes the call, turns
the answer into the event, and goes round again until `next_call` gives None.

A saga is in one of the states, at one of its steps: the cursor. Forward, a step's action is called, and when it is
done the cursor moves on. When an action does not succeed, the saga turns back, and each step's compensation is called
in reverse order. A step whose outcome is unknown is compensated too, since it may have had its effect.

The model is Garcia-Molina and Salem, "Sagas" (SIGMOD 1987), with a pivot: the step that cannot be undone. Before the
pivot a saga recovers backward, after it forward. Where the pivot's own outcome is unknown, the saga seals it: the
pivot's compensation makes sure that it can never take effect any more, or answers that it has.

A crash loses nothing: the log holds a line for every event, and `fold` brings a saga from one line to the next through
these same functions. So the state after a crash is the state before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from saga.definition import SagaDefinition, Step
from saga.errors import IllegalEvent


class State(StrEnum):
    """What a saga is doing; the cursor says at which step."""

    EXECUTING = "executing"  # it calls actions, forward
    DECIDING = "deciding"  # it calls the pivot's action, whose answer decides whether the saga completes
    SEALING = "sealing"  # the pivot's outcome is unknown, and the pivot's compensation settles it
    FINISHING = "finishing"  # it calls the actions after the pivot, and cannot turn back any more
    COMPENSATING = "compensating"  # it calls compensations, backward
    # A call did not succeed, and the saga cannot go on without it: the call is made again when the saga is due.
    STALLED_DECIDING = "stalled_deciding"
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
    RESUMED = "resumed"  # the stalled call is to be made again
    RESOLVED = "resolved"  # an operator has brought about by hand what the stalled call should have done


class Move(StrEnum):
    """What an event does to the cursor."""

    NEXT = "next"
    PREVIOUS = "previous"
    SAME = "same"
    IN_FLIGHT = "in flight"  # to the step that may have been called last: the same one, or else the previous one


S, E, M = State, Event, Move  # so that the table fits its lines

# The whole behaviour of a saga. An event that has no row here is a bug of ours (IllegalEvent). What depends on the
# cursor's position alone is not in the table: `_settle` says it (the pivot comes next, no step is left, ...).
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
MOVING = FORWARD | BACKWARD  # there is a call to make now
STALLED = frozenset({S.STALLED_DECIDING, S.STALLED_SEALING, S.STALLED_FINISHING, S.STALLED_COMPENSATING})
STALLED_AT_AN_ACTION = frozenset({S.STALLED_DECIDING, S.STALLED_FINISHING})  # those whose stalled call is an action
STALLED_AT_A_COMPENSATION = STALLED - STALLED_AT_AN_ACTION
ENDED = frozenset({S.COMPLETED, S.COMPENSATED})
UNENDED = FORWARD | BACKWARD | STALLED


class Direction(StrEnum):
    """Which of a step's two calls it is."""

    ACTION = "action"
    COMPENSATION = "compensation"


@dataclass(frozen=True)
class AttemptsSoFar:
    """What is known of the call at the cursor: how often it was attempted, also before a restart of the process."""

    attempts: int = 0  # all of them, including an attempt that a crash may have interrupted
    this_round: int = 0  # those made since the saga stalled the last time
    uncertain: bool = False  # at least one of them may have had an effect


@dataclass(frozen=True)
class Saga:
    """A saga at one moment. It is a value: every change gives a new one."""

    definition: SagaDefinition
    input: Mapping[str, Any]
    state: State
    cursor: int
    results: Mapping[str, Mapping[str, Any]]  # what each step's action answered, by the step's name
    calls: AttemptsSoFar = AttemptsSoFar()

    @property
    def step(self) -> Step | None:
        """The step at the cursor; None once the saga has ended."""
        return self.definition.steps[self.cursor] if 0 <= self.cursor < len(self.definition.steps) else None


@dataclass(frozen=True)
class Call:
    """A call that a saga wants made: a step's action or its compensation, with the fields that the step may see."""

    step: Step
    direction: Direction
    url: str
    fields: Mapping[str, Any]


def begin(definition: SagaDefinition, input: Mapping[str, Any]) -> Saga:
    """Return the saga of this definition and input before its first call."""
    state, cursor = _settle(definition, S.EXECUTING, 0)
    return Saga(definition, input, state, cursor, {})


def apply(saga: Saga, event: Event, result: Mapping[str, Any] | None = None) -> Saga:
    """Return the saga after `event`. `result` is what the action answered, or what an operator gives in its place.

    Raises IllegalEvent where the table has no row for this event in this state.
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
    if event is E.RESUMED:  # the same call is made again, in a new round
        calls = AttemptsSoFar(saga.calls.attempts, 0, saga.calls.uncertain)
        state, _ = _settle(saga.definition, state, saga.cursor)
        return Saga(saga.definition, saga.input, state, saga.cursor, saga.results, calls)
    state, cursor = _settle(saga.definition, state, saga.cursor + _distance(move, saga.calls))
    calls = saga.calls if state in STALLED else AttemptsSoFar()  # a stalled saga will make the same call again
    return Saga(saga.definition, saga.input, state, cursor, results, calls)


_DISTANCES = {M.NEXT: 1, M.PREVIOUS: -1, M.SAME: 0}


def _distance(move: Move, calls: AttemptsSoFar) -> int:
    """Return by how many steps the cursor moves."""
    if move is M.IN_FLIGHT:
        move = M.SAME if calls.attempts else M.PREVIOUS
    return _DISTANCES[move]


def _settle(definition: SagaDefinition, state: State, cursor: int) -> tuple[State, int]:
    """Return the state and the cursor after what follows from the cursor's position, whatever the event was.

    A step that has nothing to undo is skipped going back, and at the pivot an executing saga becomes a deciding one.
    """
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
    """Return why a saga stays stalled until an operator resolves it; None for every other saga.

    It has arrived, going back, at a step of which nobody knows how it is undone.
    """
    step = saga.step
    if saga.state is not S.STALLED_COMPENSATING or step is None or step.compensation is not None:
        return None
    outcome = "it took effect" if step.name in saga.results else "its outcome is unknown"
    return f"nobody can undo {step.name}: {outcome} and its definition has no compensation"


def passed_over(saga: Saga) -> Saga:
    """Return the saga after it has gone on, backward, past the steps that nobody can undo.

    Older versions did so, and so does a choreographed saga, whose services undo their steps themselves.
    """
    steps, cursor = saga.definition.steps, saga.cursor
    while cursor >= 0 and steps[cursor].compensation is None:
        cursor -= 1
    state = S.COMPENSATING if cursor >= 0 else S.COMPENSATED
    return Saga(saga.definition, saga.input, state, cursor, saga.results)


def next_call(saga: Saga) -> Call | None:
    """Return the call to make now; None where the saga has ended or is stalled."""
    step = saga.step
    if step is None or saga.state not in MOVING:
        return None
    fields = fields_for(step, _known_at_the_cursor(saga))
    if saga.state in FORWARD:
        return Call(step, Direction.ACTION, step.action, fields)
    if step.compensation is None:
        raise IllegalEvent(f"{saga.state} at {step.name}, which has no compensation")
    return Call(step, Direction.COMPENSATION, step.compensation, fields)


def fields_for(step: Step, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that both calls of a step get: those it is sent, as far as they are known."""
    return {name: known[name] for name in step.send if name in known}


def _known_at_the_cursor(saga: Saga) -> dict[str, Any]:
    """Return the fields of the input and of the results of earlier steps; where a name is there twice, the later wins.

    The step's own result is not among them, so that its action and its compensation get the same fields.
    """
    known = dict(saga.input)
    for earlier in saga.definition.steps[: saga.cursor]:
        known.update(saga.results.get(earlier.name, {}))
    return known


def attempted(saga: Saga, number: int, uncertain: bool) -> Saga:
    """Return the saga after one more attempt of the call at the cursor; its event is still to come.

    `number` counts all attempts of the call. `uncertain` says that this attempt may have had an effect.
    """
    calls = AttemptsSoFar(number, saga.calls.this_round + 1, saga.calls.uncertain or uncertain)
    return Saga(saga.definition, saga.input, saga.state, saga.cursor, saga.results, calls)


def interrupted(saga: Saga) -> Saga:
    """Return the saga after its driver has vanished: the call at the cursor may have been under way.

    So it counts as an attempt that may have had its effect.
    """
    if saga.state not in MOVING:
        return saga
    return attempted(saga, saga.calls.attempts + 1, uncertain=True)


@dataclass(frozen=True)
class Line:
    """A line of the saga log. `event` is an Event's value, or one of the NOTES, which move nothing."""

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


# The lines that are no events of the machine. Only the first two change what is known of the call at the cursor.
ATTEMPT = "attempt"  # an attempt of the call was answered, or timed out
CLAIMED = "claimed"  # another driver has taken the saga over
STARTED = "started"  # the first line of every saga
RELEASED = "released"  # its driver has handed it over, between two calls
FAULT = "fault"  # an injected crash has struck
CANCEL_REQUESTED = "cancel_requested"  # an operator asked for it while the pivot's outcome was open
# These are only in the log of a choreographed saga, which nobody drives.
OVERDUE = "overdue"  # its deadline has passed
PARKED, REPLAYED = "parked", "replayed"  # an event became a dead letter, and was published again
ABANDONED = "abandoned"  # an operator ended it before any service had heard of it
GIVE_UP_FAILED = "give_up_failed"  # a step could not undo its own action yet; one of its attempts may still be done
NOTES = frozenset(
    {ATTEMPT, CLAIMED, STARTED, RELEASED, FAULT, CANCEL_REQUESTED, OVERDUE, PARKED, REPLAYED, ABANDONED, GIVE_UP_FAILED}
)
# These are written by others while a driver has the saga. The driver goes on, and its next line follows them.
BESIDE_THE_DRIVER = frozenset({CANCEL_REQUESTED})


def fold(saga: Saga, line: Line, results: Mapping[str, Mapping[str, Any]]) -> Saga:
    """Return the saga after one line of its log; `results` holds what the actions answered, by the step's name."""
    detail = line.facts
    if line.event == ATTEMPT:
        return attempted(saga, line.attempt or 0, uncertain=detail.get("verdict") == "unknown")
    if line.event == CLAIMED:
        return interrupted(saga) if detail.get("interrupted") else saga
    if line.event in NOTES:
        return saga
    saga = apply(saga, Event(line.event), results.get(line.step or ""))
    # An older version wrote this line, and went on past the step.
    if cannot_undo(saga) and detail.get("state") in (S.COMPENSATING, S.COMPENSATED):
        return passed_over(saga)
    return saga
