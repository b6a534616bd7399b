from __future__ import annotations

from saga.cli.output import one_line

STEP = {"name": "A", "status": "COMPENSATING", "error": "injected: undo"}
CAUSE = {"step": "B", "kind": "failed", "message": "injected: before"}
SAGA = {
    "saga_id": "0193",
    "saga": "signup",
    "mode": "orchestration",
    "status": "STALLED",
    "steps": [STEP, {"name": "B", "status": "REFUSED", "error": "injected: before"}],
    "error": CAUSE,
    "needs_attention": False,
    "due_at": "2026-01-31T12:00:00Z",
}


def test_a_stalled_saga_says_which_call_does_not_succeed_and_why_and_then_why_it_turned_back() -> None:
    assert one_line(SAGA) == (
        "0193  STALLED      signup  A:compensating B:no effect  stuck at undo A: injected: undo; again at "
        "2026-01-31T12:00:00Z; the cause: B failed: injected: before"
    )


def test_a_saga_that_is_not_orchestrated_says_so() -> None:
    line = one_line({**SAGA, "mode": "choreography", "status": "COMPENSATED"})
    assert line == "0193  COMPENSATED  signup (choreography)  A:compensating B:no effect  B failed: injected: before"
