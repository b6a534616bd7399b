"""The figures on the page Health."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.dashboard import rates as module
from orchestrator.dashboard.rates import rates

NOW = 1_000_000.0


def span(ago: float, took: float | None = None, state: str = "completed") -> dict[str, Any]:
    started = NOW - ago
    ended = None if took is None else started + took
    return {"state": "executing" if took is None else state, "started_at": started, "ended_at": ended}


def test_the_last_five_minutes_are_counted_by_how_they_ended() -> None:
    spans = [span(1), span(2, 0.5), span(3, 0.1), span(4, 9.0, "compensated"), span(301, 1.0)]
    found = rates(spans, NOW)
    assert (found.started, found.completed, found.compensated, found.open) == (4, 2, 1, 1)
    assert (found.per_minute, found.seconds) == (0.8, 300.0)
    assert (found.share(2), found.share(1), found.share(0)) == ("67 %", "33 %", "0 %")
    assert found.median == pytest.approx(0.5)
    assert found.slowest == pytest.approx(9.0)


def test_where_more_started_the_time_is_that_of_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLE", 4)
    found = rates([span(ago, 0.01) for ago in (1, 2, 3, 4)], NOW)
    assert (found.seconds, found.per_minute) == (4.0, 60.0)


def test_a_clock_that_was_set_back_makes_no_length_negative_and_odd_times_are_left_out() -> None:
    found = rates([span(1, -5), {"state": "completed", "started_at": None, "ended_at": "odd"}], NOW)
    assert (found.started, found.median) == (1, 0.0)


def test_nothing_is_no_rate() -> None:
    found = rates([], NOW)
    assert (found.started, found.median, found.share(0)) == (0, None, "0 %")


def test_few_are_not_none_and_most_are_not_all() -> None:
    found = rates([span(1, 0.1, "compensated"), *[span(2, 0.1)] * 300], NOW)
    assert (found.share(1), found.share(300)) == ("<1 %", ">99 %")
