"""The state machine: its table against a golden file, and what holds for any definition and any answers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.context import replay
from saga.definition import SagaDefinition, Step
from saga.errors import IllegalEvent
from saga.machine import (
    ATTEMPT,
    CLAIMED,
    ENDED,
    FORWARD,
    STALLED,
    TRANSITIONS,
    AttemptsSoFar,
    Direction,
    Event,
    Line,
    Saga,
    State,
    apply,
    attempted,
    begin,
    cannot_undo,
    fold,
    interrupted,
    next_call,
)

GOLDEN = Path(__file__).parent / "transitions.golden.json"


def definition(*names: str, pivot: str | None = None, without: str = "") -> SagaDefinition:
    """A saga of these steps; those named in `without` have no compensation."""
    steps = tuple(
        Step(name, f"http://{name}/do", None if name in without else f"http://{name}/undo", pivot=name == pivot)
        for name in names
    )
    return SagaDefinition("test", steps)


def test_the_table_is_the_golden_one() -> None:
    table = {f"{state} + {event}": [to, move] for (state, event), (to, move) in TRANSITIONS.items()}
    assert table == json.loads(GOLDEN.read_text())


def test_every_other_event_is_illegal() -> None:
    saga = begin(definition("A", "B", pivot="B"), {})
    for state in State:
        for event in Event:
            if (state, event) not in TRANSITIONS:
                with pytest.raises(IllegalEvent):
                    apply(Saga(saga.definition, {}, state, 0, {}), event)


ANSWERS = {
    Direction.ACTION: [Event.ACTION_DONE, Event.ACTION_REFUSED, Event.ACTION_UNKNOWN],
    Direction.COMPENSATION: [Event.COMPENSATION_DONE, Event.COMPENSATION_REFUSED, Event.COMPENSATION_UNKNOWN],
}


@st.composite
def definitions(draw: st.DrawFn) -> SagaDefinition:
    count = draw(st.integers(1, 6))
    names = [f"S{number}" for number in range(count)]
    pivot = draw(st.sampled_from([None, *names]))
    without = [name for name in names if draw(st.integers(0, 4)) == 0]
    return definition(*names, pivot=pivot, without=" ".join(without))


@given(definitions(), st.data())
def test_any_saga_with_any_answers_ends_all_or_nothing_in_reverse_order_and_undoes_nothing_twice(
    saga_definition: SagaDefinition, data: st.DataObject
) -> None:
    """Pitfalls 4, 5, 8, 9: the world is modelled beside it: an unknown answer may or may not have had its effect."""
    saga = begin(saga_definition, {})
    applied: set[str] = set()  # what truly took effect
    pivot = next((step.name for step in saga_definition.steps if step.pivot), None)
    undone: list[str] = []
    for turn in range(300):
        calm = turn > 60  # from here on all answers are good, as they are once the world is repaired
        if saga.state in ENDED:
            break
        if saga.state in STALLED:
            resolving = saga.state is not State.STALLED_DECIDING and not calm and data.draw(st.booleans())
            if resolving and saga.step:  # an operator does by hand what the call should have
                backward = saga.state in (State.STALLED_SEALING, State.STALLED_COMPENSATING)
                committed = saga.state is State.STALLED_SEALING and saga.step.name in applied
                if not committed:
                    (applied.discard if backward else applied.add)(saga.step.name)
                    undone += [saga.step.name] if backward else []
                    saga = apply(saga, Event.RESOLVED)
                    continue
            saga = apply(saga, Event.RESUMED)
            continue
        if saga.state is State.EXECUTING and not calm and data.draw(st.integers(0, 9)) == 0:
            if data.draw(st.booleans()):  # the call may be under way
                saga = interrupted(saga)
                if data.draw(st.booleans()):
                    applied.add(saga.step.name)  # type: ignore[union-attr]
            saga = apply(saga, data.draw(st.sampled_from([Event.CANCELLED, Event.DEADLINE_PASSED])))
            continue
        call = next_call(saga)
        assert call is not None
        name = call.step.name
        event = ANSWERS[call.direction][0] if calm else data.draw(st.sampled_from(ANSWERS[call.direction]))
        if call.direction is Direction.ACTION:
            if name in applied and event is Event.ACTION_REFUSED:
                event = Event.ACTION_UNKNOWN  # after an attempt that had its effect none is certain
            if event is Event.ACTION_DONE or (event is Event.ACTION_UNKNOWN and data.draw(st.booleans())):
                applied.add(name)
        else:
            if saga.state is State.SEALING:  # a pivot that has committed says so, and none other does
                if event is Event.COMPENSATION_REFUSED and name not in applied:
                    event = Event.COMPENSATION_DONE
                elif event is Event.COMPENSATION_DONE and name in applied:
                    event = Event.COMPENSATION_REFUSED
            if event is Event.COMPENSATION_DONE:
                assert name not in undone, "undone twice"
                undone.append(name)
                applied.discard(name)
        saga = apply(saga, event)
    assert saga.state in ENDED
    names = [step.name for step in saga_definition.steps]
    undoable = {step.name for step in saga_definition.steps if step.compensation}
    assert undone == sorted(undone, key=names.index, reverse=True)
    if saga.state is State.COMPLETED:
        assert applied == set(names)
    else:
        assert not applied & undoable
        assert pivot not in applied


@given(definitions())
def test_where_all_actions_succeed_the_saga_completes(saga_definition: SagaDefinition) -> None:
    saga = begin(saga_definition, {})
    called = []
    while (call := next_call(saga)) is not None:
        called.append(call.step.name)
        saga = apply(saga, Event.ACTION_DONE, {"by": call.step.name})
    assert saga.state is State.COMPLETED
    assert called == [step.name for step in saga_definition.steps]
    assert list(saga.results) == called


def test_refusal_compensates_earlier_steps_in_reverse_order() -> None:
    saga = begin(definition("A", "B", "C"), {})
    for event in (Event.ACTION_DONE, Event.ACTION_DONE, Event.ACTION_REFUSED):
        saga = apply(saga, event)
    calls = []
    while (call := next_call(saga)) is not None:
        calls.append(call.url)
        saga = apply(saga, Event.COMPENSATION_DONE)
    assert calls == ["http://B/undo", "http://A/undo"]
    assert saga.state is State.COMPENSATED


def test_a_step_with_an_unknown_outcome_is_compensated_too() -> None:
    """Pitfall 5."""
    saga = apply(begin(definition("A", "B"), {}), Event.ACTION_UNKNOWN)
    assert (saga.state, saga.cursor) == (State.COMPENSATING, 0)


@pytest.mark.parametrize("event", [Event.CANCELLED, Event.DEADLINE_PASSED])
@pytest.mark.parametrize(("called", "cursor"), [(False, 0), (True, 1)])
def test_a_step_that_was_never_called_is_not_compensated(event: Event, called: bool, cursor: int) -> None:
    saga = apply(begin(definition("A", "B", "C"), {}), Event.ACTION_DONE)
    saga = interrupted(saga) if called else saga
    assert apply(saga, event).cursor == cursor


def test_a_call_that_was_interrupted_counts_as_one_whose_outcome_is_unknown() -> None:
    saga = interrupted(begin(definition("A", "B"), {}))
    assert (saga.calls.attempts, saga.calls.uncertain) == (1, True)


@pytest.mark.parametrize(("verdicts", "uncertain"), [("done", False), ("unknown", True), ("unknown refused", True)])
def test_the_log_tells_whether_an_attempt_of_a_call_was_uncertain(verdicts: str, uncertain: bool) -> None:
    saga = begin(definition("A", "B"), {})
    for number, verdict in enumerate(verdicts.split(), 1):
        saga = fold(saga, Line(number, 0.0, ATTEMPT, "A", number, None, None, {"verdict": verdict}), {})
    assert (saga.calls.attempts, saga.calls.uncertain) == (len(verdicts.split()), uncertain)


@pytest.mark.parametrize(("interrupted", "attempts"), [(True, 1), (False, 0)])
def test_a_claim_counts_an_attempt_only_where_it_interrupted_one(interrupted: bool, attempts: int) -> None:
    line = Line(2, 0.0, CLAIMED, detail={"interrupted": interrupted})
    assert fold(begin(definition("A", "B"), {}), line, {}).calls.attempts == attempts


def test_a_step_without_a_compensation_is_skipped_going_back() -> None:
    saga = begin(definition("A", "B", "C", without="B"), {})
    for event in (Event.ACTION_DONE, Event.ACTION_DONE, Event.ACTION_REFUSED):
        saga = apply(saga, event)
    assert saga.cursor == 0
    assert apply(begin(definition("A", without="A"), {}), Event.ACTION_UNKNOWN).state is State.COMPENSATED


def unsaid(*names: str, steps: str, pivot: str | None = None) -> SagaDefinition:
    """A saga that was begun when a file did not have to say how its steps are undone; `names` have no compensation."""
    made = definition(*steps.split(), pivot=pivot, without=" ".join(names))
    return replace(made, steps=tuple(replace(step, unsaid=step.compensation is None) for step in made.steps))


def test_where_nobody_can_undo_a_step_in_doubt_the_saga_stalls_until_an_operator_resolves_it() -> None:
    saga = attempted(begin(unsaid("A", steps="A B"), {}), 3, uncertain=True)
    stalled = apply(saga, Event.ACTION_UNKNOWN)
    assert (stalled.state, stalled.cursor, next_call(stalled)) == (State.STALLED_COMPENSATING, 0, None)
    assert cannot_undo(stalled) == ("nobody can undo A: its outcome is unknown and its definition has no compensation")
    assert apply(stalled, Event.RESUMED) == replace(
        stalled, calls=AttemptsSoFar(3, 0, uncertain=True)
    )  # it rests again
    assert apply(stalled, Event.RESOLVED).state is State.COMPENSATED


def test_where_nobody_can_undo_a_step_that_took_effect_the_saga_stalls_on_its_way_back() -> None:
    saga = begin(unsaid("B", steps="A B C"), {})
    for event in (Event.ACTION_DONE, Event.ACTION_DONE, Event.ACTION_REFUSED):
        saga = apply(saga, event)
    assert (saga.state, saga.cursor) == (State.STALLED_COMPENSATING, 1)
    assert cannot_undo(saga) == "nobody can undo B: it took effect and its definition has no compensation"
    resolved = apply(saga, Event.RESOLVED)
    call = next_call(resolved)
    assert call
    assert (resolved.state, call.url) == (State.COMPENSATING, "http://A/undo")


@pytest.mark.parametrize("event", [Event.CANCELLED, Event.DEADLINE_PASSED])
def test_what_nobody_can_undo_and_certainly_had_no_effect_is_passed(event: Event) -> None:
    assert apply(begin(unsaid("A", steps="A B"), {}), Event.ACTION_REFUSED).state is State.COMPENSATED
    saga = apply(begin(unsaid("B", steps="A B C"), {}), Event.ACTION_DONE)
    assert (apply(saga, event).state, apply(saga, event).cursor) == (State.COMPENSATING, 0)  # B was never called


def test_a_log_of_an_older_version_that_passed_such_a_step_over_is_replayed_as_it_was() -> None:
    made = unsaid("B", steps="A B C")
    told = [
        ("action_done", "A", State.EXECUTING),
        ("action_done", "B", State.EXECUTING),
        ("action_refused", "C", State.COMPENSATING),
        ("compensation_done", "A", State.COMPENSATED),
    ]
    lines = [Line(seq, 0.0, event, step, detail={"state": state}) for seq, (event, step, state) in enumerate(told, 1)]
    halfway, _ = replay(made, {}, lines[:3], {})
    assert (halfway.state, halfway.cursor) == (State.COMPENSATING, 0)
    assert replay(made, {}, lines, {})[0].state is State.COMPENSATED
    alone = Line(1, 0.0, "action_unknown", "B", detail={"state": State.COMPENSATED})
    assert replay(unsaid("B", steps="B"), {}, [alone], {})[0].state is State.COMPENSATED


def test_a_pivot_without_a_compensation_stalls_while_its_outcome_is_unknown() -> None:
    """Pitfall 24."""
    saga = attempted(begin(definition("A", pivot="A", without="A"), {}), 3, uncertain=True)
    assert saga.state is State.DECIDING
    stalled = apply(saga, Event.ACTION_UNKNOWN)
    assert stalled.state is State.STALLED_DECIDING
    assert stalled.calls == AttemptsSoFar(3, 1, uncertain=True)  # the same call is made again: its attempts count on
    assert apply(stalled, Event.RESUMED).calls == AttemptsSoFar(3, 0, uncertain=True)


def test_after_the_pivot_a_saga_only_goes_forward() -> None:
    saga = begin(definition("A", "B", pivot="A"), {})
    saga = apply(saga, Event.ACTION_DONE)
    assert saga.state is State.FINISHING
    assert apply(saga, Event.ACTION_REFUSED).state is State.STALLED_FINISHING
    assert saga.state in FORWARD


def test_both_calls_of_a_step_get_the_same_fields_and_a_later_result_wins() -> None:
    steps = (
        Step("A", "http://a", "http://a/undo", send=("x", "y", "missing")),
        Step("B", "http://b", "http://b/undo", send=("x", "y")),
    )
    saga = begin(SagaDefinition("test", steps), {"x": 1, "y": 1})
    first = next_call(saga)
    assert first is not None
    assert first.fields == {"x": 1, "y": 1}
    saga = apply(saga, Event.ACTION_DONE, {"x": 2})
    second = next_call(saga)
    assert second is not None
    assert second.fields == {"x": 2, "y": 1}
    saga = apply(apply(saga, Event.ACTION_UNKNOWN), Event.COMPENSATION_DONE)
    undo = next_call(saga)
    assert undo is not None
    assert undo.fields == first.fields  # its own result does not change what its compensation is sent
