"""An attempt that may be under way shows as such: a call that has been sent may have had its effect."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner

from saga.cli.look import show
from saga.definition import CHOREOGRAPHY
from saga.machine import PARKED, RELEASED, REPLAYED, Event
from saga.views.representation import represent, under_way
from tests.support.log_writer import LogWriter


def facts(writer: LogWriter, name: str) -> tuple[str, int, str]:
    step = next(step for step in represent(writer.row)["steps"] if step["name"] == name)
    return step["status"], step["attempts"], step["effect"]


def test_a_step_that_is_reached_and_driven_has_an_attempt_under_way() -> None:
    writer = LogWriter("A B C! D")
    for name in "ABCD":
        assert facts(writer, name) == ("RUNNING", 1, "unknown")
        for later in "ABCD"["ABCD".index(name) + 1 :]:
            assert facts(writer, later) == ("PENDING", 0, "none")
        writer.call(200)
        assert facts(writer, name) == ("DONE", 1, "applied")


def test_the_next_attempt_counts_as_soon_as_the_last_one_is_answered() -> None:
    writer = LogWriter()
    writer.attempt(503, "refused")
    assert facts(writer, "A") == ("RUNNING", 2, "unknown")
    writer.attempt(503, "refused")
    writer.event(Event.ACTION_REFUSED)
    assert facts(writer, "A") == ("REFUSED", 2, "none")


def test_a_step_that_nobody_drives_has_none() -> None:
    """It was handed over before its call was sent, or rests between two rounds."""
    writer = LogWriter()
    writer.add_line(RELEASED)
    writer.row = replace(writer.row, owner=None)
    assert facts(writer, "A") == ("RUNNING", 0, "none")
    assert not under_way(writer.row)
    pivot = LogWriter("A*!")
    pivot.call(500, 3)
    assert facts(pivot, "A") == ("UNKNOWN", 3, "unknown")


def test_what_was_interrupted_still_counts_once_the_saga_has_turned_back() -> None:
    writer = LogWriter()
    writer.claim()
    assert facts(writer, "A") == ("RUNNING", 2, "unknown")
    writer.event(Event.CANCELLED, "cancelled")
    assert facts(writer, "A") == ("COMPENSATING", 1, "unknown")
    assert represent(writer.row)["steps"][0]["started_at"]
    writer.call(200)
    assert facts(writer, "A") == ("COMPENSATED", 1, "undone")


@pytest.mark.parametrize(("status", "effect"), [(409, "applied"), (500, "unknown")])
def test_a_compensation_under_way_leaves_the_effect_as_it_is(status: int, effect: str) -> None:
    writer = LogWriter("A B C!")
    writer.call(200)
    writer.call(status)
    step = {409: "A", 500: "B"}[status]
    assert facts(writer, step) == ("COMPENSATING", 1, effect)
    writer.attempt(500)
    assert facts(writer, step) == ("COMPENSATING", 1, effect)


def test_a_step_never_reached_has_no_effect_when_the_saga_is_cancelled_before_it() -> None:
    writer = LogWriter()
    writer.call(200)
    writer.event(Event.CANCELLED, "cancelled")
    assert facts(writer, "B") == ("PENDING", 0, "none")


def test_of_a_choreographed_saga_the_step_that_may_have_heard_counts_unless_its_event_is_parked() -> None:
    writer = LogWriter(mode=CHOREOGRAPHY)
    writer.row = replace(writer.row, owner=None)
    assert facts(writer, "A") == ("RUNNING", 1, "unknown")
    writer.add_line(PARKED, {"letter": 1}, step="A")
    assert facts(writer, "A") == ("RUNNING", 0, "none")
    writer.add_line(REPLAYED, {"letter": 1})
    assert facts(writer, "A") == ("RUNNING", 1, "unknown")


@pytest.mark.parametrize(("handed_over", "said"), [(False, "attempt 2 under way"), (True, "1 attempt")])
def test_the_command_says_which_attempt_is_under_way(handed_over: bool, said: str) -> None:
    writer = LogWriter()
    writer.attempt(503, "refused")
    if handed_over:
        writer.add_line(RELEASED)
        writer.row = replace(writer.row, owner=None)
    saga, lines = writer.shown()

    class Api:
        def call(self, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
            return 200, {"lines": lines} if path.endswith("/log") else saga

    told = CliRunner().invoke(show, ["id"], obj=Api()).output.splitlines()
    assert said in told[1]
