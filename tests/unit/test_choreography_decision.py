"""What a service decides about an event, before it acts and after an attempt; and what it needs to be installed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import saga.choreography
from saga.barrier import TOO_LATE, StepAnswer
from saga.call import combine_attempts
from saga.choreography import attempt_history, require_nats
from saga.choreography.attempt_history import AttemptHistory, StepAttempt
from saga.choreography.decision import (
    ROUNDS,
    Decision,
    after_action,
    after_failed_action,
    after_failed_compensation,
    after_giving_up,
    decide,
)
from saga.choreography.events import EventKind, SagaEvent, StepSubscription, Task
from saga.errors import SettingsError
from saga.local_transaction import ACTION_STAYS, LocalOutcome
from saga.machine import Direction
from tests.support.world import signup

LIMIT = 3  # attempts in a round


def an_attempt(number: int, index: int = 0, **body: Any) -> StepAttempt:
    subscription = StepSubscription(signup(), index)
    event = SagaEvent("signup", "saga-1", EventKind.STARTED, None, body)
    return StepAttempt(subscription, event, Direction.ACTION, number, 0.0)


def an_outcome(status: int) -> LocalOutcome:
    return LocalOutcome(StepAnswer(status, {"error": "no"}))


@pytest.mark.parametrize(
    ("task", "number", "abandoned", "body", "decision"),
    [
        (Task.ACT, 1, False, {}, Decision.ACT),
        (Task.ACT, LIMIT, False, {}, Decision.ACT),
        (Task.ACT, LIMIT + 1, False, {}, Decision.GIVE_UP),
        (Task.ACT, 1, True, {}, Decision.GIVE_UP),
        (Task.ACT, 1, False, {"steps": ["B", "C"]}, Decision.FORWARD),
        (Task.ACT, 1, True, {"steps": ["B", "C"]}, Decision.IGNORE),
        (Task.ACT, 1, False, {"steps": ["New", "A", "B"]}, Decision.IGNORE),
        (Task.COMPENSATE, LIMIT + 1, False, {}, Decision.COMPENSATE),
        (Task.STORE_SECRETS, 1, False, {}, Decision.STORE_SECRETS),
    ],
)
def test_what_to_do_about_a_delivery(
    task: Task, number: int, abandoned: bool, body: dict[str, Any], decision: Decision
) -> None:
    assert decide(task, an_attempt(number, **body), abandoned) is decision


@pytest.mark.parametrize(
    ("status", "decision"),
    [
        (200, Decision.DONE),
        (409, Decision.DONE),  # its refusal is written already
        (422, Decision.PARK),
        (400, Decision.GIVE_UP),
        (403, Decision.GIVE_UP),
        (500, Decision.RETRY),
    ],
)
def test_what_follows_an_action_before_the_pivot(status: int, decision: Decision) -> None:
    assert after_action(an_outcome(status), an_attempt(1)) is decision


def test_an_action_that_came_too_late_is_done_with() -> None:
    assert after_action(LocalOutcome(TOO_LATE), an_attempt(1)) is Decision.DONE


def test_an_action_is_given_up_after_its_last_attempt() -> None:
    decisions = [after_failed_action(an_attempt(number)) for number in range(1, LIMIT + 1)]
    assert decisions == [Decision.RETRY, Decision.RETRY, Decision.GIVE_UP]


def test_a_compensation_rests_after_each_round_and_is_parked_after_the_last() -> None:
    assert after_failed_compensation(an_attempt(1)) is Decision.RETRY
    rounds = [after_failed_compensation(an_attempt(LIMIT * number)) for number in range(1, ROUNDS + 1)]
    assert rounds == [Decision.STALL] * (ROUNDS - 1) + [Decision.PARK]


def test_what_others_know_of_is_not_undone_by_giving_up_and_what_nobody_can_undo_is_confirmed() -> None:
    assert after_giving_up(LocalOutcome(ACTION_STAYS), an_attempt(LIMIT)) is Decision.DONE
    assert after_giving_up(an_outcome(409), an_attempt(LIMIT)) is Decision.CONFIRM_DONE


def test_attempts_that_a_crash_has_interrupted_may_have_taken_effect() -> None:
    assert AttemptHistory(interrupted=True).outcome().kind == "failed"
    certain = an_attempt(1).failed(409, "no", certain=True, now=0.0)
    assert AttemptHistory().after(certain).outcome().kind == "refused"
    assert AttemptHistory(interrupted=True).after(certain).outcome().kind == "failed"


@given(
    made=st.lists(st.sampled_from(["certain", "unknown", "timed out"]), min_size=1, max_size=8),
    statuses=st.lists(st.sampled_from([None, 400, 409, 500]), min_size=8, max_size=8),
    interrupted=st.booleans(),
)
def test_a_history_keeps_two_attempts_and_says_what_all_of_them_say(
    made: list[str], statuses: list[int | None], interrupted: bool
) -> None:
    attempts = [
        an_attempt(number).failed(status, f"why {number}", kind == "certain", now=0.0, timed_out=kind == "timed out")
        for number, (kind, status) in enumerate(zip(made, statuses, strict=False), start=1)
    ]
    history = AttemptHistory(interrupted=interrupted)
    for attempt in attempts:
        history = history.after(attempt)
    assert history.outcome() == combine_attempts(attempts, uncertain_before=interrupted)
    assert history.refusal_kind(409) == ("timeout" if "timed out" in made else "refused")
    assert len(history.attempts) <= 2


def test_the_history_that_has_not_changed_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempt_history, "REMEMBERED", 2)
    histories = attempt_history.AttemptHistories()
    subscription = an_attempt(1).subscription
    events = [replace(an_attempt(1).event, saga_id=f"saga-{number}") for number in range(3)]
    for event in (events[0], events[1], events[0], events[2]):
        histories.remember(event, subscription, AttemptHistory(waits=1))
    assert [histories.knows(event, subscription) for event in events] == [True, False, True]


def test_without_the_client_of_nats_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saga.choreography, "find_spec", lambda name: None)
    with pytest.raises(SettingsError, match=r"saga-stack\[nats\].*NATS_URL=off"):
        require_nats()
