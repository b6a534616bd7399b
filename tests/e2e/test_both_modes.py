"""The same saga with the same faults, orchestrated and choreographed: the same rows and the same answers."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from tests.conftest import on_one_worker
from tests.support.stack import SERVICES, Stack, impatient_sagas

MODES = ("orchestration", "choreography")
KINDS = ("before", "after", "refuse", "lost", "late", "garbage")
FLAGS = [
    "",
    *[f"fail={step}:{kind}" for step in "abc" for kind in KINDS],
    *[f"fail={step}:{kind}:1" for step in "abc" for kind in KINDS],
    "fail=b:after:2",
    "fail=a:undo:1&fail=b",
    "fail=a:undo:4&fail=b",
    "fail=b:undo:2&fail=b:after",
    "fail=a:undo:2&fail=b:undo:4&fail=c:refuse",
    "fail=c:undo:2&fail=c:late",
    "fail=a:before:1&fail=b:garbage:1&fail=c:after:1",
    "delay=a:50&delay=c:50",
]
CRASHES = [f"fail={step}:{kind}:1" for step in "abc" for kind in ("crash", "crash-after")]


@dataclass(frozen=True)
class Seen:
    """What a client sees of one saga, and what the services have of it."""

    code: int
    saga: dict[str, Any]
    rows: dict[str, int]
    barriers: dict[str, str]


@pytest.fixture(scope="module", params=on_one_worker("both modes", "sqlite", "mysql"))
def stack(
    request: pytest.FixtureRequest, make_shared_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    environ = {"FAULT_HOLD_SECONDS": "7", "STALL_BASE_SECONDS": "0.2", "LEASE_SECONDS": "6"}
    sagas = str(impatient_sagas(tmp_path_factory.mktemp("sagas"), 1.0))
    return make_shared_stack(request.param, broker=True, SAGAS_DIR=sagas, **environ)


@pytest.fixture(scope="module")
def seen(stack: Stack) -> dict[tuple[str, str], Seen]:
    """All sagas that kill no process, several at once, by mode and flags."""
    work = [(mode, flags) for flags in FLAGS for mode in MODES]
    with ThreadPoolExecutor(6) as pool:
        return dict(zip(work, pool.map(lambda each: run(stack, *each), work), strict=True))


def run(stack: Stack, mode: str, flags: str) -> Seen:
    """One saga to its end; its answer is asked for again where it took longer than its client waited."""
    ask = {"Idempotency-Key": f"{mode} {flags}"}
    answer = stack.post_start(f"mode={mode}&{flags}", headers=ask)
    saga = stack.ended(answer.json()["saga_id"])
    code = stack.post_start(f"mode={mode}&{flags}", headers=ask).status_code
    rows, barriers = {}, {}
    for service, process in SERVICES.items():
        told = requests.get(f"{stack.url_of(process)}/records/{saga['saga_id']}", timeout=10).json()
        rows[service] = len(told["records"])
        barriers |= {row["step"]: row["state"] for row in told["barrier"]}
    return Seen(code, saga, rows, barriers)


def compare(one: Seen, other: Seen) -> None:
    """Equal but for ids, times, numbers of attempts, and the words of a time-out.

    A step that gives up seals itself where nobody is in charge: an orchestrator knows without a row that it never calls
    the step again.
    """
    assert one.code == other.code
    assert one.rows == other.rows == dict.fromkeys("ABC", int(one.saga["status"] == "COMPLETED"))
    assert {step: other.barriers[step] for step in one.barriers} == one.barriers
    assert {other.barriers[step] for step in other.barriers.keys() - one.barriers.keys()} <= {"sealed"}
    assert plain(one.saga) == plain(other.saga)
    assert one.saga.keys() == other.saga.keys()


def plain(saga: dict[str, Any]) -> dict[str, Any]:
    shown = {name: saga[name] for name in ("saga", "status", "input", "due_at", "overdue", "needs_attention")}
    error = saga["error"] and {name: saga["error"][name] for name in ("step", "kind", "status_code")}
    steps = [(step["name"], step["status"], step["effect"], step["attempts"] > 0) for step in saga["steps"]]
    return {**shown, "error": error, "steps": steps, "result": sorted(saga["result"])}


@pytest.mark.parametrize("flags", FLAGS)
def test_both_modes_give_the_same_rows_and_answers(seen: dict[tuple[str, str], Seen], flags: str) -> None:
    compare(*[seen[mode, flags] for mode in MODES])


@pytest.mark.parametrize("flags", CRASHES)
def test_a_service_that_crashes_is_waited_for_where_nobody_calls_it(stack: Stack, flags: str) -> None:
    """An orchestrator gives up where it is not back within three attempts: all or nothing in both modes."""
    called, told = (run(stack, mode, flags) for mode in MODES)
    assert called.rows == dict.fromkeys("ABC", int(called.saga["status"] == "COMPLETED"))
    assert told.saga["status"] == "COMPLETED"
    assert told.code == 200
    assert told.rows == dict.fromkeys("ABC", 1)
