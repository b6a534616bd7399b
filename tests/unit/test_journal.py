"""A saga as its workflow knows it, without a Temporal."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from temporalio.converter import value_to_type

from saga.call import Attempt, Verdict
from saga.machine import CANCEL_REQUESTED, FAULT, Event, State
from saga.temporal.journal import Journal
from saga.temporal.messages import AttemptRecord, Timing, WorkflowInput
from saga.views.representation import represent
from tests.support.world import INPUT, signup

ID = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
BEGUN = WorkflowInput(signup().snapshot, INPUT, 1000.0, 1060.0, Timing(lease=10, stall_base=1, stall_max=300))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def journal(begun: WorkflowInput = BEGUN) -> Journal:
    return Journal(ID, begun, Clock(), lambda: 0.5)


def sent(message: Any, kind: type) -> Any:
    """As it comes out of a history."""
    return value_to_type(kind, json.loads(json.dumps(asdict(message))))


def fail(saga: Journal, event: Event, verdict: Verdict = Verdict.UNKNOWN) -> None:
    """A call of one attempt, and what it came to."""
    call = saga.next_call()
    assert call
    number = saga.saga.calls.attempts + 1
    saga.record_attempts(call, [AttemptRecord(Attempt(number, verdict, True, 500, 1.0, "no"), saga.row.context.at)])
    saga.record_event(event, cause={"step": call.step.name, "kind": "failed", "status_code": 500, "message": "no"})


def stalled(rounds: int) -> Journal:
    """B is in doubt, and its compensation has failed so often."""
    saga = journal()
    saga.record_event(Event.ACTION_DONE, {"user_id": 7})
    fail(saga, Event.ACTION_UNKNOWN)
    for number in range(rounds):
        if number:
            saga.record_event(Event.RESUMED)
        fail(saga, Event.COMPENSATION_UNKNOWN)
    return saga


def test_a_new_history_goes_on_where_the_old_one_ended() -> None:
    old = stalled(rounds=12)
    old.mark_projected(old.seq)
    new = journal(sent(old.continued_input(), WorkflowInput))
    assert (new.saga, new.seq, new.projected) == (old.saga, old.seq, old.projected)
    assert new.row == old.row
    assert represent(new.row) == represent(old.row)
    assert new.projection().lines == []
    for saga in (old, new):
        saga.record_event(Event.RESUMED)
        fail(saga, Event.COMPENSATION_UNKNOWN)
        saga.record_event(Event.RESUMED)
        saga.record_event(Event.COMPENSATION_DONE)
    assert [line.seq for line in new.projection().lines] == [line.seq for line in old.projection().lines]
    assert (new.saga, new.row.rounds) == (old.saga, old.row.rounds)


def test_what_is_carried_over_does_not_grow_with_the_stall() -> None:
    sizes = []
    for rounds in (3, 30, 300):
        saga = stalled(rounds)
        saga.mark_projected(saga.seq)
        sizes.append(len(json.dumps(asdict(saga.continued_input()))) // 10)  # the numbers have more digits
    assert max(sizes) - min(sizes) <= 2
    new = journal(sent(stalled(30).continued_input(), WorkflowInput))
    assert [line.seq for line in new.lines] == list(range(2, new.seq + 1))  # what the log may not have is kept
    assert new.projection() == stalled(30).projection()


def test_a_wish_to_cancel_and_a_fault_that_struck_are_carried_over() -> None:
    old = stalled(rounds=2)
    old.add_line(CANCEL_REQUESTED, {"by": "operator"})
    old.add_line(FAULT, {"fault": "before-undo-B"})
    for _ in range(4):
        old.record_event(Event.RESUMED)
        fail(old, Event.COMPENSATION_UNKNOWN)
    old.mark_projected(old.seq)
    new = journal(sent(old.continued_input(), WorkflowInput))
    assert not new.lines
    assert new.row.context.cancelled
    assert new.row.context.faults == ("before-undo-B",)
    assert new.saga == old.saga


def test_a_call_whose_worker_is_lost_counts_as_an_attempt_that_may_have_had_its_effect() -> None:
    saga = journal()
    saga.record_interruption()
    assert (saga.saga.calls.attempts, saga.saga.calls.uncertain) == (1, True)
    assert saga.lines[-1].event == "claimed"


def test_a_stalled_saga_rests_longer_each_round() -> None:
    rests = []
    for rounds in (1, 2, 3, 20):
        saga = stalled(rounds)
        rests.append((saga.row.due_at or 0) - saga.lines[-1].at)
    assert rests == [0.75, 1.5, 3.0, 225.0]


def in_doubt(patched: bool) -> Journal:
    """B has been done, and an older version's snapshot does not say how it is undone; then C refuses."""
    a, b, c = signup().steps
    snapshot = signup(steps=(a, replace(b, compensation=None, unsaid=True), c)).snapshot
    saga = Journal(ID, replace(BEGUN, definition=snapshot), Clock(), lambda: 0.5, lambda change: patched)
    saga.record_event(Event.ACTION_DONE, {"user_id": 7})
    saga.record_event(Event.ACTION_DONE, {})
    saga.record_event(Event.ACTION_REFUSED)
    return saga


def test_where_nobody_can_undo_a_step_it_rests_longer_each_time_until_an_operator_resolves_it() -> None:
    saga, rests = in_doubt(patched=True), []
    for _ in range(3):
        assert (saga.stalled, saga.next_call()) == (True, None)
        assert "nobody can undo B" in (saga.lines[-1].detail or {})["stalled"]
        rests.append((saga.row.due_at or 0) - saga.lines[-1].at)
        saga.record_event(Event.RESUMED)
    assert rests == [0.75, 1.5, 3.0]
    new = journal(sent(saga.continued_input(), WorkflowInput))
    assert new.saga == saga.saga
    saga.record_event(Event.RESOLVED)
    call = saga.next_call()
    assert call
    assert call.url == "http://a/compensate"


def test_an_old_history_that_passed_such_a_step_over_goes_on_as_it_did() -> None:
    saga = in_doubt(patched=False)
    call = saga.next_call()
    assert call
    assert call.url == "http://a/compensate"
    assert journal(sent(saga.continued_input(), WorkflowInput)).saga == saga.saga


def test_it_projects_what_the_log_does_not_have_yet() -> None:
    saga = stalled(rounds=1)
    saga.mark_projected(2)
    projection = saga.projection()
    assert [line.seq for line in projection.lines] == list(range(3, saga.seq + 1))
    assert (projection.present.state, projection.present.owner) == (State.STALLED_COMPENSATING, "temporal")
    assert projection.present.due_at
