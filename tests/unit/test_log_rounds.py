"""The rounds of a log: folded, counted, and never losing a line."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.dashboard.log_rounds import Round, fold
from saga.definition import CHOREOGRAPHY, ORCHESTRATION
from saga.views.phrasing import Phrases

SAY = Phrases(ORCHESTRATION)


def lines(*events: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Shown lines of step A: (event, what is different in the line)."""
    nothing = dict.fromkeys(("attempt", "status_code", "duration_ms", "detail"))
    return [
        {"seq": seq, "at": "2026-01-01T00:00:00.000Z", "event": event, "step": "A", **nothing, **more}
        for seq, (event, more) in enumerate(events, start=1)
    ]


def attempt(number: int, status: int | None = 500, verdict: str = "unknown") -> tuple[str, dict[str, Any]]:
    detail = {"call": "compensation", "verdict": verdict}
    return "attempt", {"attempt": number, "status_code": status, "detail": detail}


def moved(event: str, state: str) -> tuple[str, dict[str, Any]]:
    return event, {"detail": {"state": state}}


STALLED = moved("compensation_unknown", "stalled_compensating")
RESUMED = moved("resumed", "compensating")
CLAIMED = ("claimed", {"step": None, "detail": {"interrupted": True}})


def shape(items: list[Any]) -> list[Any]:
    return [
        (item.number, item.answers, len(item.lines)) if isinstance(item, Round) else item["event"] for item in items
    ]


def test_a_round_that_failed_is_one_item_with_what_its_attempts_came_to() -> None:
    log = lines(attempt(1), attempt(2), attempt(3, None), STALLED, RESUMED, attempt(4, None, "refused"), STALLED)
    assert shape(fold(log, SAY)) == [(1, "2 × HTTP 500, 1 × no answer", 4), (2, "1 × no connection", 3)]


def test_a_call_that_succeeds_is_not_folded_and_the_count_begins_again_after_it() -> None:
    done = moved("compensation_done", "compensating")
    log = lines(attempt(1), STALLED, RESUMED, attempt(2, 200, "done"), done, attempt(1), STALLED)
    assert shape(fold(log, SAY)) == [
        (1, "1 × HTTP 500", 2), "resumed", "attempt", "compensation_done", (1, "1 × HTTP 500", 2),
    ]  # fmt: skip


def test_a_crash_in_the_middle_of_a_round_belongs_to_it() -> None:
    assert shape(fold(lines(attempt(1), CLAIMED, attempt(3), STALLED), SAY)) == [(1, "2 × HTTP 500", 4)]


@pytest.mark.parametrize("cut", range(8), ids=str)
def test_the_rounds_of_a_page_go_on_counting_where_the_page_before_ends(cut: int) -> None:
    """A page may begin within a round: what is counted before it are the rounds that ended before it."""
    log = lines(attempt(1), attempt(2), STALLED, RESUMED, attempt(3), attempt(4), STALLED, RESUMED, attempt(5), STALLED)
    before = sum(line["event"] == "compensation_unknown" for line in log[:cut])
    whole = [item.number for item in fold(log, SAY) if isinstance(item, Round)]
    numbers = [item.number for item in fold(log[cut:], SAY, before) if isinstance(item, Round)]
    assert numbers == whole[len(whole) - len(numbers) :]


def test_no_line_is_lost_and_none_is_there_twice() -> None:
    log = lines(CLAIMED, attempt(1), RESUMED, RESUMED, STALLED, attempt(2), CLAIMED, STALLED, attempt(3))
    items = fold(log, SAY)
    assert [each["seq"] for item in items for each in (item.lines if isinstance(item, Round) else [item])] == [
        line["seq"] for line in log
    ]


def test_a_choreographed_round_says_what_the_service_did() -> None:
    assert shape(fold(lines(attempt(1), STALLED), Phrases(CHOREOGRAPHY))) == [(1, "1 × may have failed", 2)]
