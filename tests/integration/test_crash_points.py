"""Every crash point, one by one: whatever dies wherever, each saga ends all or nothing, at most once, in order.

A point is before and after every write to the log, before and after every call, and in the participant just before
and just after its COMMIT. Run with `-s` to see how many there are.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from saga.definition import Step
from saga.errors import LeaseLost
from saga.machine import ENDED
from saga.views.saga_filter import SagaQuery
from saga.views.saga_search import SagaSearch
from tests.support.world import Crash, ParticipantCrash, Points, World, signup

SCENARIOS = [
    "", "a", "b", "c", "a:after", "b:after", "c:after", "a:after:1", "b:after:1", "c:before:2", "c:after:2",
    "b:refuse", "c:refuse", "b:garbage", "a:lost", "b:lost", "c:lost", "b:late", "c:late", "b&a:undo:4", "c&b:undo:1",
    "c:late&c:undo:4", "b:after&b:undo:4&a:undo:2",
]  # fmt: skip


def run(world: World, flags: str, *crashes: int) -> list[str]:
    """One saga with crashes at these points, to its end, and the promises checked; gives the points' names."""
    world.point = points = Points(*crashes)
    world.committed.clear()
    world.log.checks_writes = not crashes  # with a crash it is checked at that moment, and each has its run
    saga_id = world.start(flags)
    if saga_id is None:
        assert "before begin" in points.names[-1]
        assert not world.committed, "a saga that was never started has left something"
        return points.names
    row = world.finish(saga_id)
    names = list(points.names)
    world.check(row)
    world.point = lambda name: None
    world.send_late(saga_id)
    world.check(row)
    return names


@pytest.mark.parametrize("flags", SCENARIOS)
def test_a_crash_at_any_point_loses_nothing(world: World, flags: str) -> None:
    """Pitfalls 4, 9, 11, 12, 15, 21, 23."""
    points = run(world, flags)
    for number in range(len(points)):
        run(world, flags, number)
    print(f"{flags or 'all succeed'}: {len(points)} crash points")  # noqa: T201


@pytest.mark.parametrize("flags", ["", "b:after", "c:late"])
def test_a_second_crash_at_any_point_after_the_first_loses_nothing(world: World, flags: str) -> None:
    """Pitfall 23."""
    count = 0
    for first in range(len(run(world, flags))):
        after = len(run(world, flags, first))
        for second in range(first + 1, after, 1 if flags == "" else 3):
            run(world, flags, first, second)
            count += 1
    print(f"{flags or 'all succeed'}: {count} pairs of crash points")  # noqa: T201


def test_a_crash_in_a_saga_with_its_pivot_in_the_middle_and_a_step_without_a_compensation(tmp_path: Path) -> None:
    """Forward recovery after the pivot; backward before it, passing over what cannot be undone."""
    steps = tuple(
        Step(name, f"http://{name.lower()}/invoke", f"http://{name.lower()}/compensate", send, pivot=name == "A")
        for name, send in [("C", ("user_id",)), ("A", ("username",)), ("B", ("user_id", "address"))]
    )
    world = World(tmp_path, signup(steps=(Step("C", "http://c/invoke", None, ("user_id",)), *steps[1:]), input=None))
    body = {"username": "ada", "user_id": 7}
    for flags, end in [("", "completed"), ("b:after:4", "completed"), ("a:refuse", "compensated")]:
        world.point = count = Points()
        saga_id = world.start(flags, body)
        assert saga_id
        assert world.finish(saga_id).state == end
        for number in range(len(count.names)):
            world.point = Points(number)
            saga_id = world.start(flags, body)
            if saga_id is None:
                continue
            row = world.finish(saga_id)
            rows = {name: world.rows(name, saga_id) for name in "ABC"}
            if row.state == "completed":
                assert rows == {"A": 1, "B": 1, "C": 1}
            else:
                assert rows["A"] == rows["B"] == 0


def test_attempts_are_counted_over_restarts(world: World) -> None:
    """Pitfall 23: whoever makes the next attempt knows of those before."""
    points = run(world, "b:after")
    for number in range(len(points)):
        world.point = Points(number)
        saga_id = world.start("b:after")
        if saga_id is None:
            continue
        world.finish(saga_id)
        numbers = [line.attempt for line in world.log.lines(saga_id) if line.event == "attempt" and line.step == "B"
                   and (line.detail or {})["call"] == "action"]  # fmt: skip
        assert numbers == sorted(set(numbers))
        assert max(numbers or [0]) <= 4  # three, and the one that the crash may have interrupted


@pytest.mark.parametrize("flags", SCENARIOS)
def test_a_driver_that_is_paused_at_any_point_while_another_takes_over_does_no_harm(world: World, flags: str) -> None:
    """Pitfall 22: at each point one driver stands still past its lease, the other goes on to the end, it wakes up."""
    points = len(run(world, flags))
    for number in range(points):
        world.committed.clear()
        paused = Paused(world, number)
        world.point = paused
        saga_id = world.start(flags)
        world.point = lambda name: None
        if saga_id is None:
            continue
        row = world.finish(saga_id)
        world.check(row)
        assert paused.calls_after_waking <= 1, "it goes on calling with a lease that it has lost"


class Paused:
    """At one point the driver stands still: time passes, and another drives the saga to its end."""

    def __init__(self, world: World, number: int):
        self.world = world
        self.number = number
        self.count = -1
        self.woken: int | None = None

    @property
    def calls_after_waking(self) -> int:
        return 0 if self.woken is None else len(self.world.calls) - self.woken

    def __call__(self, name: str) -> None:
        self.count += 1
        if self.count != self.number or name.endswith("before commit") or "begin" in name:
            return
        world, world.point = self.world, lambda name: None  # type: ignore[attr-defined]
        latest = SagaSearch(world.log).find(SagaQuery(most=1))
        if latest and latest[0].state not in ENDED:
            world.finish(latest[0].id)
        self.woken = len(world.calls)


def test_the_crashes_of_the_world_are_not_handled_by_the_code_under_test() -> None:
    assert not issubclass(Crash, Exception)
    assert not issubclass(ParticipantCrash, Exception)
    assert issubclass(LeaseLost, Exception)
