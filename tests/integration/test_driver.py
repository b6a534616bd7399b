"""One driver: its lease, its deadline, what it sends, and how it lets go."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saga.driver import Claim, Driver, Phase
from saga.errors import LeaseLost
from saga.http_client.transport import HttpAnswer
from saga.machine import ATTEMPT, CANCEL_REQUESTED, Line, State
from saga.saga_row import SagaRow
from tests.support.builders import a_started_saga
from tests.support.world import INPUT, LEASE, World, signup

ID = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"


def started(world: World, deadline: float | None = None, **deps: Any) -> Driver:
    """A saga that nothing has happened to yet, in the hands of a driver."""
    deadline_at = None if deadline is None else world.now + deadline
    row, line = a_started_saga(
        world.definition, INPUT, world.now, id=ID, owner="one", due_at=world.now + LEASE, deadline_at=deadline_at
    )
    world.log.begin(row, [line])
    return Driver(row, replace(world.deps(lambda: 1), **deps))


def found(world: World) -> SagaRow:
    row = world.log.find(ID)
    assert row
    return row


def events(world: World) -> list[str]:
    return [line.event for line in world.log.lines(ID)]


def make_next(driver: Driver) -> None:
    call = driver.next_call()
    assert call
    driver.make(call)


def test_every_write_prolongs_the_lease(world: World) -> None:
    driver = started(world)
    world.now += 3
    make_next(driver)
    assert found(world).due_at == pytest.approx(world.now + LEASE, abs=0.1)


@pytest.mark.parametrize(("gone", "renewed"), [(3.3, False), (3.4, True), (9.9, True)])
def test_a_lease_is_renewed_once_a_third_of_it_is_gone(world: World, gone: float, renewed: bool) -> None:
    driver = started(world)
    began = world.now
    world.now += gone
    driver.renew_when_old()
    assert found(world).due_at == pytest.approx(began + (gone if renewed else 0) + LEASE, abs=0.001)


def test_a_renewed_lease_lets_the_driver_go_on(world: World) -> None:
    driver = started(world)
    world.now += 9
    driver.renew_when_old()
    world.now += 9
    make_next(driver)
    assert world.rows("A", ID) == 1


@pytest.mark.parametrize("late", [LEASE, LEASE + 1])
def test_past_its_lease_a_driver_makes_no_call(world: World, late: float) -> None:
    driver = started(world)
    world.now += late
    with pytest.raises(LeaseLost):
        make_next(driver)
    assert not world.calls


def test_an_ended_or_stalled_saga_is_not_renewed(world: World) -> None:
    driver = started(world)
    world.drive(driver)
    world.now += 9
    driver.renew_when_old()
    driver.give_up()
    assert (found(world).due_at, found(world).owner) == (None, None)


def test_its_phase_says_what_a_driver_is_doing(world: World) -> None:
    driver = started(world)
    seen = [driver.phase]
    call = driver.next_call()
    assert call
    driver.queue()
    seen.append(driver.phase)
    driver._deps = replace(driver._deps, before_attempt=lambda each, _: seen.append(each.phase))
    driver.make(call)
    seen.append(driver.phase)
    driver._deps = replace(driver._deps, before_attempt=lambda *_: None)
    world.drive(driver)
    assert [*seen, driver.phase] == [Phase.READY, Phase.QUEUED, Phase.CALLING, Phase.READY, Phase.RELEASED]


def test_a_claim_is_logged_before_anything_is_called_and_a_preempted_driver_calls_nothing(world: World) -> None:
    row = started(world).row
    driver = Driver(row, world.deps(lambda: 1), Claim(interrupted=False))
    assert driver.phase is Phase.CLAIMED
    call = driver.next_call()
    assert call
    assert (events(world)[-1], driver.phase) == ("claimed", Phase.READY)
    assert not driver.preempt()
    assert (driver.phase, driver.holds) == (Phase.PREEMPTED, False)
    with pytest.raises(LeaseLost):
        driver.make(call)
    assert not world.calls


def test_a_claim_that_could_not_be_logged_still_counts_the_call_that_it_interrupted(world: World) -> None:
    """An operator has taken the saga away just before the claim was written."""
    row = started(world).row
    driver = Driver(row, world.deps(lambda: 1), Claim(interrupted=True))
    world.log.preempt(row.id, row.epoch, row.state, "operator", world.now + LEASE)
    with pytest.raises(LeaseLost):
        driver.next_call()
    assert driver.preempt()


def test_when_stopping_it_hands_over_between_two_calls(world: World) -> None:
    stop: list[bool] = []
    driver = started(world, stopping=lambda: bool(stop))
    make_next(driver)
    stop.append(True)
    make_next(driver)
    assert driver.next_call() is None
    assert events(world)[-1] == "released"
    assert (found(world).owner, found(world).due_at) == (None, pytest.approx(world.now, abs=0.001))
    stop.clear()
    world.recover(ID)
    assert found(world).state == State.COMPLETED
    claim = next(line for line in world.log.lines(ID) if line.event == "claimed")
    assert claim.detail == {"by": "two", "epoch": 2, "interrupted": False}
    attempts = [line.attempt for line in world.log.lines(ID) if line.event == "attempt"]
    assert attempts == [1, 1, 1]  # no call was in flight, so none is counted twice


def test_in_the_middle_of_a_call_it_gives_up_its_lease_only(world: World) -> None:
    driver = started(world)
    driver.give_up()
    assert found(world).due_at == pytest.approx(world.now, abs=0.001)
    assert found(world).owner == ""  # nobody, and yet whoever claims it counts the call in flight
    world.recover(ID)
    claim = next(line for line in world.log.lines(ID) if line.event == "claimed")
    assert claim.detail == {"by": "two", "epoch": 2, "interrupted": True}
    assert world.log.lines(ID)[2].attempt == 2
    driver.give_up()  # a second time is nothing
    driver.renew_when_old()


def test_whoever_preempts_a_driver_that_gave_up_in_the_middle_of_a_call_counts_that_call(world: World) -> None:
    driver = started(world)
    counted: list[bool] = []

    def give_up(name: str) -> None:
        if name == "before call A":
            driver.give_up()
            assert (driver.phase, driver.holds) == (Phase.GIVEN_UP, False)
            counted.append(driver.preempt())

    world.point = give_up
    make_next(driver)
    assert counted == [True]


def test_a_driver_that_gave_up_before_it_called_makes_no_call(world: World) -> None:
    driver = started(world)
    call = driver.next_call()
    assert call
    driver.give_up()
    with pytest.raises(LeaseLost):
        driver.make(call)
    assert driver.next_call() is None
    assert not world.calls


@pytest.mark.parametrize(
    ("deadline", "calls", "state"), [(0, 0, "compensated"), (0.005, 2, "compensated"), (9, 3, "completed")]
)
def test_the_deadline_turns_it_back_without_compensating_what_was_never_called(
    world: World, deadline: float, calls: int, state: str
) -> None:
    """Each call takes 0.01 s here: at 0.005 A's answer comes too late, and A is undone."""
    driver = started(world, deadline)
    world.drive(driver)
    row = found(world)
    assert (row.state, len(world.calls)) == (state, calls)
    assert (row.error or {}).get("kind") == (None if state == "completed" else "deadline")
    world.check(row)


def test_an_answer_that_comes_past_the_deadline_does_not_lead_on_to_the_pivot(world: World) -> None:
    driver = started(world, 0.015)
    world.drive(driver)  # B's answer is there at 0.02
    row = found(world)
    assert [url for _, url in world.calls] == [
        "http://a/invoke",
        "http://b/invoke",
        "http://b/compensate",
        "http://a/compensate",
    ]
    assert row.error == {"step": "B", "kind": "deadline", "status_code": None, "message": "the deadline passed"}


def test_the_last_answer_counts_past_the_deadline_too(tmp_path: Path) -> None:
    world = World(tmp_path, signup(steps=signup().steps[:2]))
    driver = started(world, 0.015)
    world.drive(driver)
    assert found(world).state == State.COMPLETED
    world.close()


def test_the_cause_of_a_failure_is_told_whole(world: World) -> None:
    saga_id = world.start("b")
    row = world.log.find(saga_id or "")
    assert row
    assert row.error == {"step": "B", "kind": "failed", "status_code": 500, "message": "injected: before"}


def test_past_the_deadline_a_pivot_under_way_decides(world: World) -> None:
    driver = started(world, 0.025)
    world.drive(driver)  # B's answer is there at 0.02, C's at 0.03
    assert found(world).state == State.COMPLETED


def test_it_sends_what_the_contract_says(world: World) -> None:
    sent: list[dict[str, str]] = []

    class Ear:
        def post(self, url: str, headers: dict[str, str], body: bytes, timeout: float) -> HttpAnswer:
            sent.append({**headers, "url": url, "body": body.decode(), "timeout": str(timeout)})
            return HttpAnswer(1.0, 409, {}, b'{"error": "no"}')

    driver = started(world, transport=Ear(), token="sesame")
    make_next(driver)
    request = sent[0]
    assert request["Saga-Id"] == ID
    assert (request["Saga-Step"], request["Saga-Attempt"]) == ("A", "1")
    assert request["Idempotency-Key"] == f"{ID}:A:action"
    assert request["Authorization"] == "Bearer sesame"
    assert re.fullmatch(rf"00-{ID.replace('-', '')}-[0-9a-f]{{16}}-01", request["traceparent"])
    assert (request["url"], request["body"]) == ("http://a/invoke", '{"username": "ada"}')
    assert request["timeout"] == "5.0"


def test_a_note_is_durable_and_changes_nothing(world: World) -> None:
    driver = started(world)
    driver.add_line(CANCEL_REQUESTED, {"by": "operator"})
    line = world.log.lines(ID)[-1]
    assert (line.event, line.step, line.detail) == ("cancel_requested", "A", {"by": "operator"})
    assert found(world).state == State.EXECUTING


def test_a_stalled_saga_rests_longer_each_round_and_counts_them(tmp_path: Path) -> None:
    """Pitfall 25."""
    world = World(tmp_path, signup())
    saga_id = world.start("b&a:undo")
    assert saga_id
    rests = []
    for number in range(1, 13):
        row = world.log.find(saga_id)
        assert row
        assert (row.state, row.rounds) == (State.STALLED_COMPENSATING, number)
        rests.append((row.due_at or 0) - world.now)
        world.recover(saga_id)
    assert rests == pytest.approx([0.75 * min(300, 2**n) for n in range(12)], abs=0.01)


def test_a_refusal_after_an_unknown_attempt_of_an_earlier_driver_is_unknown(world: World) -> None:
    """The log remembers that attempt: a 409 may be the answer to a duplicate of what it did."""

    class Refuses:
        def post(self, *_: Any) -> HttpAnswer:
            return HttpAnswer(1.0, 409, {}, b'{"error": "known already"}')

    row = started(world).row
    earlier = Line(2, world.now, ATTEMPT, "A", 1, 500, 1.0, {"call": "action", "verdict": "unknown"})
    row = row.after(earlier)
    world.log.advance(ID, 1, row.present, [earlier])
    driver = Driver(row, replace(world.deps(lambda: 1), transport=Refuses()))
    make_next(driver)
    assert events(world)[-1] == "action_unknown"
