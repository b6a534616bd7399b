"""An operator's verbs, in every state, against the driver that is at work at the same moment."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import pytest

from saga.engine import Engine
from saga.errors import BadInput, Conflict, LeaseLost, NoSuchSaga
from saga.machine import State
from saga.operator import Operator
from tests.world import Crash, Points, World


class Desk:
    """An operator at an orchestrator of its own, whose drivers run in this very thread."""

    def __init__(self, world: World):
        self.world = world
        around = world.around(lambda: 0, owner="desk")
        self.engine = Engine(around, new_id=lambda: "", stop=threading.Event())
        self.engine.accept = self.drive  # type: ignore[method-assign]
        self.operator = Operator(self.engine)
        self.driven: list[Any] = []

    def drive(self, driver: Any) -> None:
        self.driven.append(driver)
        self.world.drive(driver)


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


def stopped_at(world: World, flags: str, point: str, times: int = 1) -> str:
    """A saga whose orchestrator died at the named point."""
    seen = 0

    def crash(name: str) -> None:
        nonlocal seen
        seen += name == point
        if seen == times and name == point:
            raise Crash

    world.point = crash
    saga_id = world.start(flags)
    world.point = lambda name: None
    assert saga_id
    return saga_id


def events(world: World, saga_id: str) -> list[str]:
    return [line.event for line in world.log.lines(saga_id)]


def test_cancel_rolls_back_what_may_have_been_called(world: World, desk: Desk) -> None:
    saga_id = stopped_at(world, "", "before call B")
    desk.operator.cancel(saga_id)
    record = world.log.find(saga_id)
    assert record
    assert record.state == State.COMPENSATED
    assert record.error == {
        "step": "B",
        "kind": "cancelled",
        "status_code": None,
        "message": "cancelled by an operator",
    }
    assert world.barrier("B", saga_id) == "sealed"  # it may have been called, so it is compensated
    assert world.barrier("C", saga_id) is None  # it was not
    world.check(record)


def test_a_cancelled_saga_cannot_be_cancelled_again(world: World, desk: Desk) -> None:
    saga_id = stopped_at(world, "", "before call B")
    desk.operator.cancel(saga_id)
    with pytest.raises(Conflict, match="before"):
        desk.operator.cancel(saga_id)


def test_while_the_pivot_is_open_a_cancel_waits_for_its_outcome(world: World, desk: Desk) -> None:
    saga_id = stopped_at(world, "", "before call C")
    desk.operator.cancel(saga_id)
    record = world.log.find(saga_id)
    assert record
    assert record.state == State.COMPLETED
    assert "cancel_requested" in events(world, saga_id)
    world.check(record)
    with pytest.raises(Conflict):
        desk.operator.cancel(saga_id)


@pytest.mark.parametrize(
    ("flags", "point", "times"),
    [("", "never", 1), ("b", "never", 1), ("b", "before call A", 2), ("c:lost", "before call C", 4)],
)
def test_what_has_ended_or_turned_back_cannot_be_cancelled(
    world: World, desk: Desk, flags: str, point: str, times: int
) -> None:
    saga_id = stopped_at(world, flags, point, times)
    with pytest.raises(Conflict):
        desk.operator.cancel(saga_id)


def stalled(world: World) -> str:
    """A saga that rolls back, and whose A does not let itself be undone."""
    saga_id = world.start("b&a:undo:3")
    record = world.log.find(saga_id or "")
    assert record
    assert record.state == State.STALLED_COMPENSATING
    return record.id


def test_resume_makes_the_call_again_at_once(world: World, desk: Desk) -> None:
    saga_id = stalled(world)
    desk.operator.resume(saga_id)
    record = world.log.find(saga_id)
    assert record
    assert record.state == State.COMPENSATED
    world.check(record)
    with pytest.raises(Conflict):
        desk.operator.resume(saga_id)


def test_resolve_goes_on_as_if_the_call_had_succeeded_and_keeps_the_note(world: World, desk: Desk) -> None:
    saga_id = stalled(world)
    calls = len(world.calls)
    desk.operator.resolve(saga_id, "removed by hand, Ada")
    record = world.log.find(saga_id)
    assert record
    assert record.state == State.COMPENSATED
    assert len(world.calls) == calls
    notes = [line.detail for line in world.log.lines(saga_id) if line.event == "resolved"]
    assert [note and note["note"] for note in notes] == ["removed by hand, Ada"]


@pytest.mark.parametrize("note", ["", "  \n", "x" * 1001])
def test_resolve_wants_a_note(world: World, desk: Desk, note: str) -> None:
    saga_id = stalled(world)
    with pytest.raises(BadInput, match="note"):
        desk.operator.resolve(saga_id, note)
    record = world.log.find(saga_id)
    assert record
    assert record.state == State.STALLED_COMPENSATING


@pytest.mark.parametrize("verb", ["cancel", "resume"])
def test_what_there_is_not_is_said(desk: Desk, verb: str) -> None:
    with pytest.raises(NoSuchSaga):
        getattr(desk.operator, verb)("nope")


@pytest.mark.parametrize("flags", ["", "b:after", "c:lost", "c:late", "b:after&a:undo:4"])
def test_a_cancel_at_any_instant_leaves_all_or_nothing_and_exactly_one_wins(
    world: World, desk: Desk, flags: str
) -> None:
    """The operator acts while the driver stands at each of its points; the driver then finds out and stops."""
    world.point = count = Points()
    first = world.start(flags)
    assert first
    world.finish(first)
    for number in range(len(count.names)):
        world.committed.clear()
        done = {"count": -1}

        def cancel(name: str, number: int = number, done: dict[str, int] = done) -> None:
            done["count"] += 1
            if done["count"] != number or name.endswith("before commit") or "begin" in name:
                return
            world.point = lambda name: None
            latest = world.log.search(most=1)
            with suppress(Conflict, LeaseLost):
                desk.operator.cancel(latest[0].id)

        world.point = cancel
        saga_id = world.start(flags)
        world.point = lambda name: None
        if saga_id:
            world.check(world.finish(saga_id))
