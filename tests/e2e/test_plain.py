"""The stack on plain libraries alone (SAGA_PLAIN=1) keeps the same promises, only more slowly."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.support.stack import INPUT, Stack, eventually

ONE_EACH = {"A": 1, "B": 1, "C": 1}


@pytest.fixture(params=["sqlite", "mysql"])
def stack(request: pytest.FixtureRequest, make_stack: Callable[..., Stack]) -> Stack:
    return make_stack(request.param, SAGA_PLAIN="1", FAULT_HOLD_SECONDS="2", LEASE_SECONDS="3")


def test_without_our_own_speed_every_saga_ends_all_or_nothing(stack: Stack) -> None:
    """Faults of several kinds, a service that crashes, and an orchestrator that is killed while it makes a call."""
    assert stack.get("/healthz").headers["Server"].startswith("Werkzeug")
    assert stack.post_start().json()["status"] == "COMPLETED"
    assert stack.counts() == ONE_EACH

    for flags in ("fail=b:refuse", "fail=c:before", "fail=b:after", "fail=c:refuse&fail=b:undo:1"):
        ended = stack.ended(stack.post_start(flags).json()["saga_id"])
        assert ended["status"] == "COMPENSATED", flags
        assert stack.counts() == ONE_EACH, flags

    retried = stack.ended(
        stack.post_start("fail=b:crash-after:1").json()["saga_id"]
    )  # the process exits; it is restarted
    assert retried["status"] == "COMPLETED"
    assert stack.counts() == {"A": 2, "B": 2, "C": 2}

    key = {"Idempotency-Key": "plain"}
    threading.Thread(target=_start_unheard, args=(stack, key), daemon=True).start()
    eventually(lambda: stack.counts()["A"] == 3)
    stack.kill("orchestrator")
    stack.start("orchestrator")
    ended = stack.ended(stack.post_start("delay=b:1500", INPUT, headers=key).json()["saga_id"])
    assert ended["status"] == "COMPLETED"
    assert stack.counts() == {"A": 3, "B": 3, "C": 3}


def _start_unheard(stack: Stack, key: dict[str, str]) -> None:
    """Start a saga at an orchestrator that dies before it answers."""
    with suppress(OSError):
        stack.post_start("delay=b:1500", INPUT, headers=key)
