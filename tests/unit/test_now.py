"""What the list and the command say that a saga does now."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from saga.views.now import CallNow, Now, now_line, now_of

AT = datetime.fromisoformat("2026-01-31T12:00:00Z").timestamp()


def step(name: str = "A", status: str = "DONE", error: str | None = None) -> dict[str, Any]:
    return {"name": name, "status": status, "error": error, "started_at": "2026-01-31T11:59:00.000Z"}


def saga(status: str, *steps: dict[str, Any], **changes: Any) -> dict[str, Any]:
    made = {"status": status, "mode": "orchestration", "steps": steps, "error": None, "ended_at": None, "due_at": None}
    return {**made, **changes}


def cause(kind: str, step: str | None = "B", code: int | None = None, message: str = "no stock") -> dict[str, Any]:
    return {"step": step, "kind": kind, "status_code": code, "message": message}


STUCK = saga("STALLED", step("A", "COMPENSATING", "no row"), step("B", "REFUSED"), due_at="2026-01-31T12:01:28.200Z")


def test_a_stuck_saga_says_the_call_the_code_the_rounds_and_the_next_try() -> None:
    now = now_of(STUCK, CallNow(rounds=10, since=AT, status_code=500))
    assert now == Now("undo A: HTTP 500", "no row", 10, until="2026-01-31T12:01:28.200Z")
    assert now_line(now, AT) == "undo A: HTTP 500 · 10 rounds · next in 1:29 · no row"
    assert now_line(now, AT + 90) == "undo A: HTTP 500 · 10 rounds · next now · no row"


def test_a_choreographed_saga_says_what_is_parked_and_no_next_try() -> None:
    """What it is due at is its deadline."""
    stuck = {**STUCK, "mode": "choreography"}
    assert now_line(now_of(stuck, CallNow(3, status_code=500)), AT) == "undo A: HTTP 500 · 3 rounds · no row"
    parked = now_line(now_of(stuck, CallNow(3, status_code=500, parked=True)), AT)
    assert parked == "undo A: HTTP 500 · its event is parked · 3 rounds · no row"
    waits = saga("RUNNING", step("A"), step("B", "RUNNING"))
    assert now_line(now_of(waits, CallNow(since=AT, parked=True)), AT) == "B: its event is parked"


def test_past_the_pivot_the_stuck_call_is_the_first_that_is_not_done() -> None:
    stuck = saga("STALLED", step("A"), step("B", "UNKNOWN", "no answer within 5 s"), step("C", "PENDING"))
    assert now_line(now_of(stuck, CallNow(1)), AT) == "B: no answer within 5 s · 1 round"


def test_a_moving_saga_says_the_call_and_since_when() -> None:
    running = saga("RUNNING", step("A"), step("B", "RUNNING"))
    assert now_line(now_of(running, CallNow(since=AT - 3.2)), AT) == "B · 3.2 s"
    back = saga("COMPENSATING", step("A", "COMPENSATING"), step("B", "REFUSED"))
    assert now_of(back, CallNow(since=AT)).what == "undo A"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, ""),
        (cause("refused", code=409), "B refused: no stock"),
        (cause("failed", code=500), "B: HTTP 500 · no stock"),
        (cause("failed", code=500, message="HTTP 500"), "B: HTTP 500"),
        (cause("failed", message="connection refused"), "B failed: connection refused"),
        (cause("timeout", message="no answer within 5 s"), "B timed out: no answer within 5 s"),
        (cause("cancelled", message="cancelled by an operator"), "cancelled by an operator at B"),
        (cause("deadline", message="the deadline passed"), "the deadline passed at B"),
    ],
)
def test_an_ended_saga_says_its_cause(error: dict[str, Any] | None, said: str) -> None:
    assert now_line(now_of(saga("COMPENSATED", error=error, ended_at="2026-01-31T12:00:00Z"))) == said


def test_one_that_cannot_be_read_says_why() -> None:
    unreadable = saga("UNREADABLE", error=cause("unreadable", None, message="the state 'x' is not known"))
    assert now_line(now_of(unreadable)) == "the state 'x' is not known"
