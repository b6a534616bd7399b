"""Clocks that are set, or do not agree: nobody is robbed, nothing is left lying, nobody waits longer than it said."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saga.context import replay
from saga.definition import CHOREOGRAPHY, TEMPORAL
from saga.driver import Driver
from saga.machine import STARTED, Line, State
from saga.runtime.lease_watch import LeaseWatch
from saga.saga_row import Present
from tests.support.builders import a_saga_row
from tests.support.runtime import Runtime
from tests.support.world import INPUT, LEASE, World, signup

ID = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"
HOUR = 3600.0
INTERVAL = 1.0
TICK = LEASE / 12  # how often leases are looked after
APART = [-HOUR, -15.0, -9.0, -5.0, -1.0, 0.0, 1.0, 3.0, 5.0, 5.9, 7.0, 9.9, 10.1, 15.0, HOUR]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Without a deadline, which is a time of the clock that is set here."""
    made = World(tmp_path, signup(deadline=None))
    yield made
    made.close()


class Orchestrator:
    """A process with a wall clock of its own; time itself is the world's."""

    def __init__(self, world: World, name: str, ahead: float = 0.0):
        self.world, self.ahead = world, ahead
        deps = world.deps(lambda: 0, owner=name)
        self.deps = replace(deps, clock=lambda: world.now + self.ahead)
        runtime = Runtime(self.deps, new_id=lambda: ID, interval=INTERVAL)
        self.starter, self.pool, self.recovery = runtime.starter, runtime.pool, runtime.recovery
        self.pool.accept = self._accept  # type: ignore[method-assign]
        self.claimed: list[Driver] = []

    def _accept(self, driver: Driver) -> None:
        self.claimed.append(driver)
        self.pool.drivers[driver.row.id] = driver

    def start(self) -> Driver:
        """A saga that this process drives."""
        self.starter.start(self.world.definition, INPUT)
        return self.claimed.pop()

    def tick(self) -> None:
        """What its threads do now."""
        for driver in list(self.pool.drivers.values()):
            driver.renew_when_old()
        self.recovery.look()


def pass_time(world: World, seconds: float, *at_work: Orchestrator) -> Iterator[float]:
    """Time goes by, tick by tick, while these processes are at work."""
    began = world.now
    while world.now < began + seconds:
        world.now += TICK
        for orchestrator in at_work:
            orchestrator.tick()
        yield world.now - began


@pytest.mark.parametrize("apart", APART)
def test_a_driver_that_lives_is_never_robbed_however_far_apart_the_clocks_are(world: World, apart: float) -> None:
    """It is in the middle of a call that takes minutes; so there are never two calls at once."""
    one, two = Orchestrator(world, "one"), Orchestrator(world, "two", apart)
    driver = one.start()
    for _ in pass_time(world, 120, one, two):
        assert not two.claimed
        assert not one.claimed
    while (call := driver.next_call()) is not None:
        driver.make(call)
    assert (driver.row.state, driver.row.epoch) == (State.COMPLETED, 1)
    assert len(world.calls) == 3


@pytest.mark.parametrize("apart", APART)
@pytest.mark.parametrize("before", [True, False])
def test_what_a_dead_process_held_is_taken_over_within_a_lease_and_one_interval(
    world: World, apart: float, before: bool
) -> None:
    """`before`: the other one has been there all the time, or it comes when the first is dead."""
    one, two = Orchestrator(world, "one"), Orchestrator(world, "two", apart)
    driver = one.start()
    for _ in pass_time(world, 25, one, *([two] if before else [])):
        pass
    died, row = world.now, world.log.find(driver.row.id)
    assert row
    renewed = (row.due_at or 0) - LEASE
    for _ in pass_time(world, 3 * LEASE, two):
        if two.claimed:
            break
    assert world.now - died <= LEASE + INTERVAL + 2 * TICK  # time comes in ticks here
    (claimed,) = two.claimed
    assert (claimed.row.id, claimed.row.owner, claimed.row.epoch) == (driver.row.id, "two", 2)
    assert world.now - renewed >= LEASE / 2


@pytest.mark.parametrize("step", [-HOUR, HOUR])
def test_a_driver_whose_clock_is_set_goes_on_and_is_not_robbed_even_by_its_own_process(
    world: World, step: float
) -> None:
    """The clock is set while the call of A is under way, and again before B's."""
    one, two = Orchestrator(world, "one"), Orchestrator(world, "two")
    driver = one.start()
    first = driver.next_call()
    assert first
    one.ahead = step
    one.recovery.look()  # before the lease is renewed
    for _ in pass_time(world, 40, one, two):
        assert not two.claimed
        assert not one.claimed
    row = world.log.find(driver.row.id)
    assert row
    assert (row.due_at or 0) - one.deps.clock() == pytest.approx(LEASE, abs=LEASE / 2)
    driver.make(first)
    one.ahead = 0.0
    while (call := driver.next_call()) is not None:
        driver.make(call)
    assert (driver.row.state, driver.row.epoch, len(world.calls)) == (State.COMPLETED, 1, 3)


def test_past_its_lease_a_driver_makes_no_call_though_its_clock_was_set_back(world: World) -> None:
    one, two = Orchestrator(world, "one"), Orchestrator(world, "two")
    driver = one.start()
    call = driver.next_call()
    assert call
    one.ahead = -HOUR  # and the process hangs: nothing is renewed
    for _ in pass_time(world, 2 * LEASE, two):
        pass
    assert [each.row.epoch for each in two.claimed] == [2]
    one.pool.work_on(driver)  # it wakes up
    assert not world.calls


def written(world: World, number: int, **changes: Any) -> str:
    """A saga's row, as somebody has left it."""
    saga_id = f"0190aaaa-bbbb-7ccc-8ddd-{number:012d}"
    definition = changes.pop("definition", signup())
    lines = [Line(1, world.now, STARTED)]
    context = replay(definition, INPUT, lines, {})[1]
    row = a_saga_row(id=saga_id, definition=definition, input=INPUT, context=context, started_at=world.now)
    world.log.begin(replace(row, **changes), lines)
    return saga_id


def test_a_stalled_saga_that_would_rest_an_hour_too_long_is_tried_again(world: World) -> None:
    stalled = State.STALLED_COMPENSATING
    far, near = world.now + HOUR, world.now + 250
    lost = written(world, 1, due_at=far)
    lines = [Line(2, world.now, "action_unknown", "A"), Line(3, world.now, "compensation_unknown", "A")]
    context = replay(signup(), INPUT, [Line(1, world.now, STARTED), *lines], {})[1].as_json()
    world.log.advance(lost, 1, Present(stalled, 0, context, 1, None, None, None, far), lines)
    written(world, 2, due_at=near, state=stalled)
    two = Orchestrator(world, "two")
    for gone in pass_time(world, LEASE + INTERVAL + 2 * TICK, two):
        assert gone > LEASE - TICK or not two.claimed
    assert [each.row.id for each in two.claimed] == [lost]


def test_deadlines_of_choreographed_sagas_and_temporals_rows_are_no_leases(world: World) -> None:
    far = world.now + HOUR
    choreographed = signup().in_mode(CHOREOGRAPHY)
    written(world, 1, definition=choreographed, due_at=far, deadline_at=far)
    written(world, 2, definition=choreographed, due_at=far, deadline_at=far, state=State.STALLED_FINISHING)
    written(world, 3, owner=TEMPORAL, due_at=far)
    written(world, 4, owner=TEMPORAL, due_at=world.now - HOUR)
    two = Orchestrator(world, "two")
    for _ in pass_time(world, 3 * LEASE, two):
        assert not two.claimed


def test_what_a_process_hands_over_is_claimed_at_once_also_in_the_middle_of_a_call(world: World) -> None:
    one, two = Orchestrator(world, "one"), Orchestrator(world, "two")
    one.start().give_up()
    two.recovery.look()
    assert [each.row.epoch for each in two.claimed] == [2]


def test_what_an_earlier_process_of_the_same_name_held_is_claimed_at_once(world: World) -> None:
    Orchestrator(world, "one").start()
    world.now += 1
    again = Orchestrator(world, "one")
    again.recovery.look()
    assert [each.row.epoch for each in again.claimed] == [2]


@pytest.mark.parametrize("opened_at", [1_000_000_000.0, 1_000_000_000.1234564, 1_000_000_000.1234567])
@pytest.mark.parametrize("step", [0.0, -HOUR, HOUR])
@pytest.mark.parametrize("gone", [0.0, 0.001, 4.0])
def test_what_a_process_has_started_itself_it_does_not_free_though_it_looks_for_the_first_time_only_then(
    world: World, opened_at: float, step: float, gone: float
) -> None:
    """In the very instant that it opens, or when its log was away, also where its clock is set meanwhile."""
    world.now = opened_at
    one, two = Orchestrator(world, "one"), Orchestrator(world, "two")
    world.now += gone
    one.ahead = step
    driver = one.start()
    row = world.log.find(driver.row.id)
    one.recovery.look()
    two.recovery.look()
    assert not one.claimed
    assert not two.claimed
    assert driver.holds
    assert world.log.find(driver.row.id) == row


def test_a_watched_lease_that_moves_is_seen_for_the_first_time_again() -> None:
    watch, moved = LeaseWatch(10.0), ("x", 1, 6.0)
    assert watch.over([("x", 1, 5.0)], [], clock=9.0, monotonic=0.0) == []
    assert watch.over([moved], [], clock=18.0, monotonic=9.0) == []
    assert watch.over([moved, ("y", 1, 99.0)], [], clock=27.0, monotonic=18.0) == []
    assert watch.over([moved], [("y", 1, 99.0), ("z", 1, 1.0)], clock=28.0, monotonic=19.0) == [moved]
    assert watch.watched == {"x", "y"}
    assert watch.over([], [("y", 2, 99.0)], clock=29.0, monotonic=20.0) == []
    assert watch.over([moved], [], clock=30.0, monotonic=21.0) == []


@pytest.mark.parametrize("step", [-HOUR, HOUR])
@pytest.mark.parametrize("asked", ["wait", "run", "close"])
def test_a_caller_waits_as_long_as_it_said_though_the_clock_is_set(tmp_path: Path, asked: str, step: float) -> None:
    """The clock is set by an hour each time that anybody looks at it: back, a wait by it would never end."""
    world = World(tmp_path)
    set_to = {"ahead": 0.0}

    def clock() -> float:
        set_to["ahead"] += step
        return world.now + set_to["ahead"]

    deps = replace(world.deps(lambda: 0), clock=clock, monotonic=time.monotonic)
    runtime = Runtime(deps, new_id=lambda: ID)
    starter, pool = runtime.starter, runtime.pool
    pool.accept = lambda driver: pool.drivers.update({driver.row.id: driver})  # type: ignore[method-assign]
    pool.work_on = lambda driver, until=None: None  # type: ignore[method-assign]
    if asked != "run":
        starter.start(signup(), INPUT)
    work = {
        "wait": lambda: runtime.waiting.wait(ID, time.monotonic() + 0.3),
        "run": lambda: starter.run(signup(), INPUT, None, 0.3),
        "close": lambda: pool.close(0.3),
    }[asked]
    waiting = threading.Thread(target=work, daemon=True)
    began = time.monotonic()
    waiting.start()
    waiting.join(60)
    assert not waiting.is_alive()
    assert time.monotonic() - began >= 0.25  # it did wait
    world.close()
