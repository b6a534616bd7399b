"""What is said of a step: the API's status stays, the pages and the command say what it means."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from saga.cli.look import show
from saga.machine import Event
from saga.views.step_words import StepWords, sealed_steps, words_of_steps
from tests.support.log_writer import LogWriter


def words(writer: LogWriter, name: str) -> StepWords:
    return words_of_steps(*writer.shown())[name]


def told(writer: LogWriter) -> list[str]:
    """What `saga show` prints."""
    saga, lines = writer.shown()

    class Api:
        def call(self, method: str, path: str, **arguments: object) -> tuple[int, object]:
            return 200, {"lines": lines} if path.endswith("/log") else saga

    return CliRunner().invoke(show, ["id"], obj=Api()).output.splitlines()


@pytest.mark.parametrize(
    ("status", "verdict", "word"),
    [(409, None, "REFUSED"), (422, None, "REFUSED"), (500, "refused", "NO EFFECT"), (None, "refused", "NO EFFECT")],
)
def test_refused_is_said_only_of_a_business_refusal(status: int | None, verdict: str | None, word: str) -> None:
    writer = LogWriter()
    writer.call()
    writer.call(status, verdict=verdict)
    saga, _ = writer.shown()
    assert saga["steps"][1]["status"] == "REFUSED"  # in the API, both
    assert words(writer, "B").status == word
    assert f"  B          {word:<13} effect none" in "\n".join(told(writer))


def test_a_pivot_that_sealed_itself_is_sealed_and_what_was_undone_is_not() -> None:
    writer = LogWriter()
    writer.call()
    writer.call()
    writer.call(None, times=3)
    assert words(writer, "C").status == "COMPENSATING"
    for _ in range(3):
        writer.call()
    saga, lines = writer.shown()
    assert (saga["steps"][2]["status"], saga["steps"][2]["effect"]) == ("COMPENSATED", "undone")
    assert sealed_steps(lines) == ["C"]
    assert words(writer, "C") == StepWords("SEALED", "it did nothing, and never will", "none", "3 attempts", "sealed")
    assert words(writer, "B").status == "COMPENSATED"
    first, *steps = told(writer)
    assert "A:compensated B:compensated C:sealed" in first
    assert steps[2].startswith("  C          SEALED        effect none     3 attempts")


def test_a_pivot_that_had_committed_and_one_that_was_resolved_by_hand_are_not_sealed() -> None:
    for event in (None, Event.RESOLVED):
        writer = LogWriter()
        writer.call()
        writer.call()
        writer.call(None, times=3)
        if event:
            writer.call(500)
            writer.event(event, note="not charged")
        else:
            writer.call(409)
        assert sealed_steps(writer.shown()[1]) == []
        assert words(writer, "C").status != "SEALED"
