"""An operator's verbs, in every state, against the driver that is at work at the same moment."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from saga.context import replay
from saga.driver import Claim, Driver
from saga.errors import BadInput, Conflict, LeaseLost, LogUnavailable, NoSuchSaga
from saga.machine import State
from saga.views.representation import represent
from saga.views.saga_filter import SagaQuery
from saga.views.saga_search import SagaSearch
from tests.support.runtime import Runtime
from tests.support.world import LEASE, SERVICES, Crash, Points, World, signup


class Desk:
    """An operator at an orchestrator of its own, whose drivers run in this very thread."""

    def __init__(self, world: World):
        self.world = world
        deps = world.deps(lambda: 0, owner="desk")
        runtime = Runtime(deps)
        self.starter, self.pool, self.operator = runtime.starter, runtime.pool, runtime.operator
        self.pool.accept = self.drive  # type: ignore[method-assign]
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
    row = world.log.find(saga_id)
    assert row
    assert row.state == State.COMPENSATED
    assert row.error == {
        "step": "B",
        "kind": "cancelled",
        "status_code": None,
        "message": "cancelled by an operator",
    }
    assert world.barrier("B", saga_id) == "sealed"  # it may have been called, so it is compensated
    assert world.barrier("C", saga_id) is None  # it was not
    world.check(row)


def test_a_cancelled_saga_cannot_be_cancelled_again(world: World, desk: Desk) -> None:
    saga_id = stopped_at(world, "", "before call B")
    desk.operator.cancel(saga_id)
    with pytest.raises(Conflict, match="before"):
        desk.operator.cancel(saga_id)


def test_while_the_pivot_is_open_a_cancel_waits_for_its_outcome(world: World, desk: Desk) -> None:
    saga_id = stopped_at(world, "", "before call C")
    desk.operator.cancel(saga_id)
    (line,) = [line for line in world.log.lines(saga_id) if line.event == "cancel_requested"]
    assert (line.step, line.detail) == ("C", {"by": "operator"})
    with pytest.raises(Conflict, match="cancelled before"):
        desk.operator.cancel(saga_id)
    row = world.finish(saga_id)
    assert row.state == State.COMPLETED
    world.check(row)
    with pytest.raises(Conflict):
        desk.operator.cancel(saga_id)


def at(world: World, point: str, act: Callable[[str], None], flags: str = "") -> str:
    """A saga during whose run somebody acts when its driver stands at the named point for the first time."""

    def watch(name: str) -> None:
        if name == point:
            world.point = lambda name: None
            act(SagaSearch(world.log).find(SagaQuery(most=1))[0].id)

    world.point = watch
    saga_id = world.start(flags)
    world.point = lambda name: None
    assert saga_id
    return saga_id


@pytest.mark.parametrize(
    ("flags", "state", "seals"),
    [("", "completed", 0), ("c:refuse", "compensated", 0), ("c", "compensated", 0), ("c:lost", "completed", 1)],
)
@pytest.mark.parametrize("point", ["before call C", "after call C"])
def test_a_cancel_while_the_pivot_is_called_makes_no_second_call_and_its_driver_goes_on(
    world: World, desk: Desk, flags: str, state: str, seals: int, point: str
) -> None:
    """Promise of DESIGN section 3; from an orchestrator that does not drive it."""

    def cancel(saga_id: str) -> None:
        desk.operator.cancel(saga_id)
        with pytest.raises(Conflict, match="cancelled before"):
            desk.operator.cancel(saga_id)

    saga_id = at(world, point, cancel, flags)
    row = world.log.find(saga_id)
    assert row
    assert (row.state, row.epoch) == (state, 1)  # the same driver, to the end
    urls = [url.partition("?")[0] for _, url in world.calls]
    usual = world.calls[:]
    world.calls.clear()
    world.start(flags)
    assert usual == world.calls  # neither more calls than without a cancel, nor others
    assert urls.count("http://c/compensate") == seals
    assert events(world, saga_id).count("cancel_requested") == 1
    assert "claimed" not in events(world, saga_id)
    world.check(row)


@pytest.mark.parametrize("flags", ["", "c:refuse", "c:lost"])
def test_a_crash_after_the_wish_was_logged_loses_neither_it_nor_the_saga(world: World, desk: Desk, flags: str) -> None:
    """The process dies at each point after the line, which is in the log before the operator is answered."""
    for number in range(12):
        left = {"points": -1}

        def watch(name: str, left: dict[str, int] = left, number: int = number) -> None:
            if left["points"] < 0 and name == "before call C":
                left["points"] = 0
                desk.operator.cancel(SagaSearch(world.log).find(SagaQuery(most=1))[0].id)
                left["points"] = number
            elif left["points"] >= 0 and not name.endswith("commit"):
                if left["points"] == 0 and not name.endswith("add_line"):
                    left["points"] = -2
                    world.point = lambda name: None
                    raise Crash
                left["points"] -= not name.endswith("add_line")

        world.committed.clear()
        world.point = watch
        saga_id = world.start(flags)
        world.point = lambda name: None
        assert saga_id
        row = world.finish(saga_id)
        assert events(world, saga_id).count("cancel_requested") == 1
        world.check(row)


def test_a_wish_that_was_not_logged_was_not_accepted(world: World, desk: Desk) -> None:
    def crash(name: str) -> None:
        if name == "before add_line":
            raise Crash

    saga_id = stopped_at(world, "", "before call C")
    world.point = crash
    with pytest.raises(Crash):
        desk.operator.cancel(saga_id)
    world.point = lambda name: None
    assert "cancel_requested" not in events(world, saga_id)
    desk.operator.cancel(saga_id)


def test_a_wish_at_a_stalled_pivot_is_logged_and_its_rest_goes_on(tmp_path: Path) -> None:
    steps = signup().steps
    world = World(tmp_path, signup(steps=(*steps[:2], replace(steps[2], compensation=None))))
    saga_id = world.start("c:after:3")
    before = world.log.find(saga_id or "")
    assert before
    assert before.state == State.STALLED_DECIDING
    Desk(world).operator.cancel(before.id)
    (*_, added) = world.log.lines(before.id)
    assert world.log.find(before.id) == before.after(added)
    assert events(world, before.id)[-1] == "cancel_requested"
    row = world.finish(before.id)
    assert row.state == State.COMPLETED
    world.check(row)
    world.close()


def test_a_cancel_says_in_the_log_that_no_crash_took_the_saga_over(world: World, desk: Desk) -> None:
    saga_id = at(world, "before call B", desk.operator.cancel)
    (claim,) = [line for line in world.log.lines(saga_id) if line.event == "claimed"]
    assert claim.detail == {"by": "desk", "epoch": 2, "interrupted": True, "why": "cancelled"}
    world.check(world.finish(saga_id))


def test_a_cancel_does_not_count_a_step_that_its_own_process_has_not_called(world: World, desk: Desk) -> None:
    """Its driver stands in line for B; it is told, and calls nothing once it is its turn."""
    saga_id = stopped_at(world, "", "before call B")
    row = world.log.find(saga_id)
    assert row
    waiting = Driver(row, world.deps(lambda: row.epoch, owner="desk"))
    call = waiting.next_call()
    assert call
    desk.pool.drivers[saga_id] = waiting
    before = len(world.calls)
    desk.operator.cancel(saga_id)
    (claim,) = [line for line in world.log.lines(saga_id) if line.event == "claimed"]
    assert claim.detail == {"by": "desk", "epoch": 2, "interrupted": False, "why": "cancelled"}
    with pytest.raises(LeaseLost):
        waiting.make(call)
    assert [url for _, url in world.calls[before:]] == ["http://a/compensate"]
    (step,) = [step for step in represent(desk.starter.read(saga_id))["steps"] if step["name"] == "B"]
    assert (step["status"], step["attempts"], step["effect"]) == ("PENDING", 0, "none")
    world.check(world.finish(saga_id))


def test_a_cancel_counts_a_call_that_a_claim_interrupted_before_the_log_says_so(world: World, desk: Desk) -> None:
    """The process that made the call has died, and the driver that claimed the saga has not begun yet."""
    saga_id = stopped_at(world, "", "B after commit")
    row = world.log.find(saga_id)
    assert row
    world.now = (row.due_at or 0) + 0.001
    claimed, held = world.log.claim(saga_id, row.epoch, "desk", due_by=world.now, due_at=world.now + LEASE)
    desk.pool.drivers[saga_id] = Driver(claimed, world.deps(lambda: claimed.epoch, owner="desk"), Claim(held))
    desk.operator.cancel(saga_id)
    (claim,) = [line for line in world.log.lines(saga_id) if line.event == "claimed"]
    assert claim.detail == {"by": "desk", "epoch": 3, "interrupted": True, "why": "cancelled"}
    assert [url for _, url in world.calls[-2:]] == ["http://b/compensate", "http://a/compensate"]
    world.check(world.finish(saga_id))


@pytest.mark.parametrize("away", [1, 2])
def test_nothing_is_compensated_before_the_log_says_that_the_saga_was_cancelled(
    world: World, desk: Desk, away: int
) -> None:
    """The log is away when the cancel is to be written: it takes the second try, or none of them."""
    saga_id = stopped_at(world, "", "before call B")
    row = world.log.find(saga_id)
    assert row
    desk.pool.drivers[saga_id] = Driver(row, world.deps(lambda: row.epoch, owner="desk"))  # B is not called yet
    before, left = len(world.calls), away

    def point(name: str) -> None:
        nonlocal left
        if name == "before advance" and left:
            left -= 1
            raise LogUnavailable("away")

    world.point = point
    with pytest.raises(LogUnavailable):
        desk.operator.cancel(saga_id)
    called = [url for _, url in world.calls[before:]]
    world.point = lambda name: None
    assert called == (["http://a/compensate"] if away == 1 else [])
    ended = world.finish(saga_id)
    assert ended.state is (State.COMPENSATED if away == 1 else State.COMPLETED)
    world.check(ended)


@pytest.mark.parametrize("verb", ["cancel", "resume", "resolve"])
def test_of_two_operators_at_the_same_moment_one_is_told_that_the_other_was_quicker(
    world: World, desk: Desk, verb: str
) -> None:
    """The second one takes the saga away just before the first one's word is written."""
    saga_id = stopped_at(world, "", "before call B") if verb == "cancel" else stalled(world)
    words = ["by hand"] if verb == "resolve" else []
    second, left = Desk(world), [1]

    def point(name: str) -> None:
        if name == "before advance" and left:
            left.pop()
            getattr(second.operator, verb)(saga_id, *words)

    world.point = point
    with pytest.raises(Conflict):
        getattr(desk.operator, verb)(saga_id, *words)
    world.point = lambda name: None
    assert not left
    assert (len(second.driven), len(desk.driven)) == (1, 0)
    assert world.finish(saga_id).ended


@pytest.mark.parametrize("verb", ["resume", "resolve"])
def test_an_operators_word_at_a_stalled_saga_is_no_crash(world: World, desk: Desk, verb: str) -> None:
    saga_id = stalled(world)
    words = ["by hand"] if verb == "resolve" else []
    getattr(desk.operator, verb)(saga_id, *words)
    assert "claimed" not in events(world, saga_id)


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
    row = world.log.find(saga_id or "")
    assert row
    assert row.state == State.STALLED_COMPENSATING
    return row.id


def test_resume_makes_the_call_again_at_once(world: World, desk: Desk) -> None:
    saga_id = stalled(world)
    desk.operator.resume(saga_id)
    row = world.log.find(saga_id)
    assert row
    assert row.state == State.COMPENSATED
    world.check(row)
    with pytest.raises(Conflict):
        desk.operator.resume(saga_id)


def test_resolve_goes_on_as_if_the_call_had_succeeded_and_keeps_the_note(world: World, desk: Desk) -> None:
    saga_id = stalled(world)
    calls = len(world.calls)
    desk.operator.resolve(saga_id, "removed by hand, Ada")
    row = world.log.find(saga_id)
    assert row
    assert row.state == State.COMPENSATED
    assert len(world.calls) == calls
    notes = [line.detail for line in world.log.lines(saga_id) if line.event == "resolved"]
    assert [note and note["note"] for note in notes] == ["removed by hand, Ada"]


@pytest.mark.parametrize("note", ["", "  \n", "x" * 1001])
def test_resolve_wants_a_note(world: World, desk: Desk, note: str) -> None:
    saga_id = stalled(world)
    with pytest.raises(BadInput, match="note"):
        desk.operator.resolve(saga_id, note)
    row = world.log.find(saga_id)
    assert row
    assert row.state == State.STALLED_COMPENSATING


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
            latest = SagaSearch(world.log).find(SagaQuery(most=1))
            with suppress(Conflict, LeaseLost):
                desk.operator.cancel(latest[0].id)

        world.point = cancel
        saga_id = world.start(flags)
        world.point = lambda name: None
        if saga_id:
            world.check(world.finish(saga_id))


def stalled_at_an_action(directory: Path, flags: str, pivot: str) -> tuple[World, str]:
    """A saga of two steps, A and C, that has stalled at an action of one that cannot be undone."""
    a, _, c = signup().steps
    c = replace(c, compensation=None, pivot=pivot == "C")
    world = World(directory, signup(steps=(replace(a, compensation=None, pivot=pivot == "A"), c)))
    saga_id = world.start(flags)
    assert saga_id
    return world, saga_id


def payments(world: World, saga_id: str) -> list[Any]:
    """The users of a saga's payments, in C's own table."""
    table = SERVICES["C"].table
    with world.engines["C"].connect() as connection:
        return [row.user_id for row in connection.execute(select(table).where(table.c.saga_id == saga_id))]


def test_a_result_given_by_hand_is_the_steps_as_if_its_action_had_answered_so(tmp_path: Path) -> None:
    world, saga_id = stalled_at_an_action(tmp_path, "a:after:3", pivot="A")
    desk = Desk(world)
    assert desk.starter.read(saga_id).state == State.STALLED_DECIDING
    desk.operator.resolve(saga_id, "found it", {"user_id": 77, "payment": "4111"})
    row, lines = desk.starter.read(saga_id), world.log.lines(saga_id)
    assert (row.state, payments(world, saga_id)) == (State.COMPLETED, [77])
    assert represent(row)["result"]["user_id"] == 77
    assert "4111" not in str(represent(row))  # it is masked as an answer would be
    (line,) = [line for line in lines if line.event == "resolved"]
    assert line.detail == {"state": "finishing", "by": "operator", "note": "found it", "with_result": True}
    told, context = replay(row.definition, row.input, lines, row.results)
    assert (told.results, context) == (row.results, row.context)
    world.close()


def test_a_result_given_by_hand_survives_a_crash_right_after_it(tmp_path: Path) -> None:
    world, saga_id = stalled_at_an_action(tmp_path, "a:after:3", pivot="A")
    desk = Desk(world)
    desk.pool.accept = lambda driver: None  # type: ignore[method-assign]
    desk.operator.resolve(saga_id, "found it", {"user_id": 77})
    world.finish(saga_id)
    assert payments(world, saga_id) == [77]
    world.close()


def test_a_step_after_the_pivot_is_given_its_result_too_and_may_do_without(tmp_path: Path) -> None:
    for number, result in enumerate(({"receipt": 9}, {}, None)):
        world, saga_id = stalled_at_an_action(tmp_path / str(number), "c:before:3", pivot="A")
        desk = Desk(world)
        assert desk.starter.read(saga_id).state == State.STALLED_FINISHING
        desk.operator.resolve(saga_id, "paid in cash", result)
        row = desk.starter.read(saga_id)
        assert (row.state, row.results.get("C")) == (State.COMPLETED, result)
        world.close()


def test_a_compensation_takes_no_result(world: World, desk: Desk) -> None:
    saga_id = stalled(world)
    before = world.log.lines(saga_id)
    with pytest.raises(BadInput, match="the compensation of A") as caught:
        desk.operator.resolve(saga_id, "by hand", {"user_id": 1})
    assert caught.value.field == "result"
    assert world.log.lines(saga_id) == before


def test_a_result_is_bounded_as_an_answer_is(tmp_path: Path) -> None:
    world, saga_id = stalled_at_an_action(tmp_path, "a:after:3", pivot="A")
    with pytest.raises(BadInput, match="result must not be larger"):
        Desk(world).operator.resolve(saga_id, "found it", {"user_id": "x" * (1 << 20)})
    world.close()
