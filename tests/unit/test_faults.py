"""Failure flags: what parses, and that what does not is named."""

from __future__ import annotations

import re
import threading
from typing import Any, cast

import pytest

from saga.barrier import StepAnswer
from saga.errors import BadInput, Forbidden
from saga.faults.flags import Delay, Fault, FaultKind, FaultPlan, parse_delay, parse_fault, parse_plan, total_delay
from saga.faults.injection import InjectedFaults
from saga.local_transaction import ActionAttempt, LocalOutcome

STEPS = ["A", "B", "C"]


def plan(*fail: str, delay: tuple[str, ...] = ()) -> FaultPlan:
    return parse_plan(fail, delay, STEPS, enabled=True)


@pytest.mark.parametrize("kind", list(FaultKind))
def test_every_kind_parses_with_and_without_times(kind: FaultKind) -> None:
    assert parse_fault(kind) == Fault(kind)
    assert parse_fault(f"{kind}:3") == Fault(kind, 3)
    assert str(parse_fault(f"{kind}:3")) == f"{kind}:3"


def test_the_default_kind_is_before_and_the_service_is_named_in_either_case() -> None:
    assert plan("b").services == {"B": (Fault(FaultKind.BEFORE),)}
    assert plan("B:after:2", "b:undo").services == {"B": (Fault(FaultKind.AFTER, 2), Fault(FaultKind.UNDO))}


def test_the_orchestrators_crashes_name_the_step_as_it_is_spelt() -> None:
    assert plan("orchestrator:before-b", "Orchestrator:after-undo-A").orchestrator == ("before-B", "after-undo-A")


def test_undo_and_delay_go_to_the_compensation() -> None:
    queries = plan("b:after", "b:undo:2", delay=("b:50",)).queries()
    assert queries["B", "action"] == [("fail", "after"), ("delay", "50")]
    assert queries["B", "compensation"] == [("fail", "undo:2"), ("delay", "50")]


@pytest.mark.parametrize(("times", "struck"), [(None, [1, 2, 9]), (1, [1]), (2, [1, 2])])
def test_times_counts_attempts_by_their_number(times: int | None, struck: list[int]) -> None:
    """Pitfall 2: by Saga-Attempt, so that a retry neither hides the fault nor a restart repeats it."""
    assert [attempt for attempt in (1, 2, 9) if Fault(FaultKind.BEFORE, times).strikes(attempt)] == struck


@pytest.mark.parametrize(
    "flag", ["", ":", "x", "b:", "b:nope", "b:after:0", "b:after:-1", "b:after:x", "b:after:", "b:after:1:1",
             "b:after:²", "orchestrator", "orchestrator:before-x", "orchestrator:during-b"],
)  # fmt: skip
def test_what_is_no_flag_is_refused_by_name(flag: str) -> None:
    if flag == "b:":
        assert plan(flag).services == {"B": (Fault(FaultKind.BEFORE),)}
        return
    with pytest.raises(BadInput, match="fail="):
        plan(flag)


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "60001", "999999999999"])
def test_a_delay_is_a_number_of_milliseconds_up_to_a_minute(text: str) -> None:
    with pytest.raises(BadInput, match="milliseconds"):
        parse_delay(text)
    assert parse_delay("60000") == Delay(60_000)


def test_switched_off_any_flag_is_forbidden() -> None:
    with pytest.raises(Forbidden, match="FAULTS=off"):
        parse_plan(["b"], [], STEPS, enabled=False)
    with pytest.raises(Forbidden, match="FAULTS=off"):
        parse_plan([], ["b:1"], STEPS, enabled=False)
    assert parse_plan([], [], STEPS, enabled=False) == FaultPlan()


def test_a_delay_may_strike_the_first_attempts_only() -> None:
    queries = plan(delay=("b:8000:1", "B:50")).queries()
    assert queries["B", "action"] == queries["B", "compensation"] == [("delay", "8000:1"), ("delay", "50")]
    delays = [parse_delay(text) for _, text in queries["B", "action"]]
    assert [total_delay(delays, attempt) for attempt in (1, 2, 3)] == [8.05, 0.05, 0.05]


@pytest.mark.parametrize("text", ["50:", "50:0", "50:x", "50:-1", "50:1:1", ":1", "50:1.5", "50:²"])
def test_a_delay_with_a_bad_number_of_times_names_the_flag(text: str) -> None:
    with pytest.raises(BadInput, match=f"delay=b:{re.escape(text)}") as caught:
        plan(delay=(f"b:{text}",))
    assert caught.value.field == "delay"


def test_an_attempt_whose_lost_answer_cannot_be_told_either_has_failed_and_may_have_taken_effect() -> None:
    """The action is committed, then the database is away: the event that asks for the action has to come again."""

    class Attempt:
        tells_others = True
        outcomes = iter(
            [LocalOutcome(StepAnswer(200, {})), LocalOutcome(StepAnswer(500, {"error": "x"}), certain=True)]
        )

        def run(self, *args: Any, **options: Any) -> LocalOutcome:
            return next(self.outcomes)

    faults = InjectedFaults(frozenset({FaultKind.LOST}), 0, lambda code: None, threading.Event(), hold=0)
    outcome = faults.around_action(cast(ActionAttempt, Attempt()))
    assert (outcome.answer.status, outcome.certain) == (500, False)
