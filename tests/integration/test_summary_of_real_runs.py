"""What is told of sagas that really ran: their story and their chart, from the log and the representation."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.dashboard.summary import root_cause, summarize
from orchestrator.dashboard.timeline import timeline
from saga.machine import ENDED
from saga.views.representation import represent, represent_lines
from tests.support.log_writer import Shown
from tests.support.world import INPUT, Points, World

ALL = "All 3 steps took effect."
COMMITTED = "Asked to undo it, C answered that it had committed, so the saga went forward and all 3 steps took effect."
TAKEN_OVER = "It was taken over once, from an orchestrator that had crashed, stopped or lost its lease."
WITHOUT_EFFECT = "(HTTP 500: “injected: before”) and changed nothing, so"


def shown(world: World, saga_id: str) -> Shown:
    row, lines = world.log.find(saga_id), world.log.lines(saga_id)
    assert row
    return represent(row), represent_lines(lines, row)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("", ALL),
        ("b:after:2", f"{ALL} B answered HTTP 500 twice before it succeeded."),
        ("a", f"A failed after 3 attempts {WITHOUT_EFFECT} nothing had to be undone."),
        ("c", f"C failed after 3 attempts {WITHOUT_EFFECT} B and A were undone."),
        ("b:refuse", "B refused (HTTP 409: “injected: refuse”), so A was undone."),
        (
            "b:lost",
            "B timed out after 3 attempts (no answer); whether it took effect was unknown, so B was undone as well as "
            "A.",
        ),
        (
            "b:garbage",
            "B failed after 3 attempts (HTTP 200 with a body that is not a JSON object); whether it took effect was "
            "unknown, so B was undone as well as A.",
        ),
        (
            "c:after",
            f"C failed after 3 attempts (HTTP 500: “injected: after”); whether it took effect was unknown. {COMMITTED}",
        ),
        (
            "b&a:undo:4",
            f"B failed after 3 attempts {WITHOUT_EFFECT} A was undone. The compensation of A answered HTTP 500 four "
            "times before it succeeded.",
        ),
        ("orchestrator:before-b", f"{ALL} {TAKEN_OVER}"),
        ("orchestrator:after-undo-a&b", f"B failed after 3 attempts {WITHOUT_EFFECT} A was undone. {TAKEN_OVER}"),
    ],
)
def test_the_story_of_a_saga_that_ended(world: World, flags: str, told: str) -> None:
    saga_id = world.start(flags)
    assert saga_id
    world.finish(saga_id)
    assert summarize(*shown(world, saga_id)) == told


def test_the_story_of_one_that_is_stalled_says_what_happens_next(world: World) -> None:
    saga_id = world.start("b&a:undo:4")
    assert saga_id
    saga, lines = shown(world, saga_id)
    stalled_at = lines[-1]["at"][11:19]
    assert summarize(saga, lines) == (
        f"B failed after 3 attempts {WITHOUT_EFFECT} it turns back. Stalled since 2001-09-09 {stalled_at} UTC: the "
        "compensation of A failed in 1 round (HTTP 500: “injected: undo”); it is tried again by itself at "
        f"2001-09-09 {saga['due_at'][11:19]} UTC, and an operator can try it now or mark it as done by hand."
    )
    assert root_cause(saga, lines) == "B failed after 3 attempts (HTTP 500: “injected: before”)"


GONE = "B action, attempt 1: no answer is recorded; after 10 s the orchestrator was gone, and another took over"


def test_the_chart_of_one_that_was_taken_over_shows_the_gap(world: World) -> None:
    """An attempt takes 1 ms and its exchange 10; the lease of the one that crashed lasts 10 s."""
    saga_id = world.start("orchestrator:before-b")
    assert saga_id
    world.finish(saga_id)
    chart = timeline(*shown(world, saga_id), now=world.now)
    assert [row.label for row in chart.rows] == ["A", "B", "C"]
    assert [(bar.kind, bar.title) for bar in chart.rows[1].bars] == [
        ("lost", GONE),
        ("attempt", "B action, attempt 2: HTTP 200 in 1 ms (done)"),
    ]
    assert [band.label for band in chart.bands] == ["orchestrator gone, about 10 s"]


SECRET = "4111-2222-3333"
KINDS = ["", "before", "after", "refuse", "lost", "late", "garbage", "before:1", "after:2", "undo:4", "undo:1"]
FLAGS = st.lists(
    st.builds(lambda step, kind: f"{step}:{kind}".rstrip(":"), st.sampled_from("abc"), st.sampled_from(KINDS)),
    max_size=3,
    unique_by=lambda flag: flag[0],
).map("&".join)


@pytest.fixture(scope="module")
def one_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One for all examples: they are sagas of their own."""
    made = World(tmp_path_factory.mktemp("told"))
    yield made
    made.close()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(flags=FLAGS, crash=st.integers(0, 60))
def test_any_saga_can_be_told_and_drawn_at_every_rest_and_no_secret_is(
    one_world: World, flags: str, crash: int
) -> None:
    """With a crash at any point, looked at whenever it rests on its way to the end."""
    world = one_world
    world.point = Points(crash)
    saga_id = world.start(flags, {**INPUT, "payment": SECRET})
    while saga_id:
        saga, lines = shown(world, saga_id)
        told = f"{summarize(saga, lines)} {root_cause(saga, lines)}"
        chart = timeline(saga, lines, world.now)
        assert SECRET not in told + str(chart)
        for row in chart.rows:
            assert all(bar.left >= 0 and bar.left + bar.width <= 100 + 1e-9 for bar in row.bars)
            assert all(bar.left + bar.width <= after.left + 1e-9 for bar, after in pairwise(row.bars))
        if (saga["status"] in ("COMPLETED", "COMPENSATED")) != (saga["due_at"] is None):
            raise AssertionError(saga)
        found = world.log.find(saga_id)
        if found and found.state in ENDED:
            assert ("took effect." in told) == (found.state == "completed"), told
            break
        world.recover(saga_id)
