from __future__ import annotations

from saga.cli.output import one_line

STEP = {"name": "A", "status": "COMPENSATING", "error": "injected: undo"}
CAUSE = {"step": "B", "kind": "failed", "status_code": 500, "message": "injected: before"}
SAGA = {
    "saga_id": "0193",
    "saga": "signup",
    "mode": "orchestration",
    "status": "STALLED",
    "steps": [STEP, {"name": "B", "status": "REFUSED", "error": "injected: before"}],
    "error": CAUSE,
    "needs_attention": False,
    "ended_at": None,
    "due_at": "2026-01-31T12:00:00Z",
}


def test_a_stalled_saga_says_which_call_it_is_stuck_at_and_why_and_then_why_it_turned_back() -> None:
    assert one_line(SAGA) == (
        "0193  STALLED      signup  A:compensating B:no effect  undo A: injected: undo · next at 2026-01-31T12:00:00Z; "
        "the cause: B: HTTP 500 · injected: before"
    )


def test_what_the_orchestrator_says_of_it_is_said() -> None:
    line = one_line(SAGA, "undo A: HTTP 500 · 10 rounds · next in 1:29")
    assert "  undo A: HTTP 500 · 10 rounds · next in 1:29; the cause: B: HTTP 500" in line


def test_a_saga_that_is_not_orchestrated_says_so() -> None:
    line = one_line({**SAGA, "mode": "choreography", "status": "COMPENSATED", "ended_at": "2026-01-31T12:00:00Z"})
    assert (
        line == "0193  COMPENSATED  signup (choreography)  A:compensating B:no effect  B: HTTP 500 · injected: before"
    )
