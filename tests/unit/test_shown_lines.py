from __future__ import annotations

from typing import Any

import pytest

from saga.views.lines import heard_by_a_service, parked_lines


def line(seq: int, event: str, **detail: Any) -> dict[str, Any]:
    return {"seq": seq, "event": event, "step": None, "detail": detail or None}


@pytest.mark.parametrize(
    ("lines", "parked"),
    [
        ([line(1, "started")], []),
        ([line(2, "parked", letter=1), line(3, "parked", letter=2)], [2, 3]),
        ([line(2, "parked", letter=1), line(3, "replayed", letter=1)], []),
        ([line(2, "parked", letter=1), line(3, "replayed", letter=1), line(4, "parked", letter=2)], [4]),
        ([line(2, "parked", letter=1), line(3, "parked", letter=1), line(4, "replayed", letter=1)], []),
        ([line(2, "parked", letter=1), line(3, "parked", letter=2), line(4, "replayed", letter=3)], [2, 3]),
    ],
)
def test_an_event_is_parked_until_its_own_letter_is_replayed(lines: list[dict[str, Any]], parked: list[int]) -> None:
    assert [each["seq"] for each in parked_lines(lines)] == parked


def test_an_event_is_parked_also_where_the_number_of_its_letter_is_masked() -> None:
    lines = [line(1, "started"), line(2, "parked", letter="***", service="B"), line(3, "attempt", verdict="done")]
    assert [each["seq"] for each in parked_lines(lines)] == [2]
    assert parked_lines([*lines, line(4, "replayed", letter="***")]) == []
    assert heard_by_a_service(lines)


@pytest.mark.parametrize(
    ("last", "heard"),
    [
        (line(2, "overdue"), False),
        (line(2, "parked", letter=1, service="orchestrator"), False),
        (line(2, "parked", letter=1, service="B"), True),
        (line(2, "attempt", verdict="done"), True),
    ],
)
def test_a_service_has_heard_of_a_saga_once_a_line_can_only_come_from_one(last: dict[str, Any], heard: bool) -> None:
    assert heard_by_a_service([line(1, "started"), last]) is heard
