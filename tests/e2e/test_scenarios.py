"""What a client of the orchestrator is told, and what its crashes and a service's lose: nothing; on both databases."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from tests.conftest import on_one_worker
from tests.support.stack import INPUT, Stack, eventually

ONE_EACH = {"A": 1, "B": 1, "C": 1}
NONE = {"A": 0, "B": 0, "C": 0}
MODES = ("orchestration", "choreography")
TEMPORAL = "temporal"  # orchestrated by another engine


STACKS = [f"{kind}-{mode}" for kind in ("sqlite", "mysql") for mode in (*MODES, TEMPORAL)]


@pytest.fixture(scope="module", params=on_one_worker("scenarios", *STACKS))
def stack(request: pytest.FixtureRequest, make_shared_stack: Callable[..., Stack]) -> Stack:
    """One stack for all that kills nothing."""
    kind, mode = request.param.split("-")
    if mode == TEMPORAL:
        return make_shared_stack(kind, engine=TEMPORAL)
    return make_shared_stack(kind, mode=mode)


class Rows:
    """The rows that a scenario added."""

    def __init__(self, stack: Stack):
        self.stack = stack
        self.before = stack.counts()

    def added(self) -> dict[str, int]:
        now = self.stack.counts()
        return {service: now[service] - self.before[service] for service in now}


@pytest.fixture
def rows(stack: Stack) -> Rows:
    return Rows(stack)


def statuses(saga: dict) -> dict[str, str]:
    return {step["name"]: step["status"] for step in saga["steps"]}


def test_a_refusal_is_told_with_its_reason(stack: Stack) -> None:
    saga = stack.post_start("fail=b:refuse").json()
    assert saga["error"] == {"step": "B", "kind": "refused", "status_code": 409, "message": "injected: refuse"}
    assert statuses(saga) == {"A": "COMPENSATED", "B": "REFUSED", "C": "PENDING"}
    assert [step["attempts"] for step in saga["steps"]] == [1, 1, 0]  # a refusal is not tried again


def test_no_compensation_is_called_where_nothing_took_effect(stack: Stack) -> None:
    """Pitfall 3."""
    saga = stack.post_start("fail=a").json()
    assert [line["event"] for line in stack.lines(saga["saga_id"])] == [
        "started",
        "attempt",
        "attempt",
        "attempt",
        "action_refused",
    ]


@pytest.mark.parametrize(
    ("flags", "body", "named"),
    [
        ("", b"{not json", "JSON"),
        ("", b"[]", "object"),
        ("", b"{}", "username"),
        ("", b'{"username": 7}', "username"),
        ("", b'{"username": ""}', "username"),
        ("fail=b:nonsense", b'{"username": "ada"}', "nonsense"),
        ("fail=x", b'{"username": "ada"}', "'x'"),
        ("fial=b", b'{"username": "ada"}', "fial"),
        ("saga=nope", b'{"username": "ada"}', "nope"),
        ("wait=soon", b'{"username": "ada"}', "wait"),
        ("delay=b:x", b'{"username": "ada"}', "delay"),
    ],
)
def test_bad_input_is_named_and_starts_nothing(stack: Stack, rows: Rows, flags: str, body: bytes, named: str) -> None:
    newest = stack.get("/sagas?limit=1").json()
    response = requests.post(f"{stack.url}/start?{flags}", data=body, timeout=10)
    assert response.status_code == 400
    assert named in response.json()["error"]
    assert stack.get("/sagas?limit=1").json() == newest
    assert rows.added() == NONE


def test_an_idempotency_key_starts_one_saga(stack: Stack, rows: Rows) -> None:
    headers = {"Idempotency-Key": f"key-{rows.before}"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: stack.post_start(headers=headers), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["saga_id"] for answer in answers}) == 1
    assert rows.added() == ONE_EACH
    other = stack.post_start(body={"username": "eve"}, headers=headers)
    assert other.status_code == 422
    assert rows.added() == ONE_EACH


def test_respond_async_answers_at_once_and_says_where_to_look(stack: Stack) -> None:
    response = stack.post_start("delay=a:300", headers={"Prefer": "respond-async"})
    assert response.status_code == 202
    assert response.headers["Location"] == f"/sagas/{response.json()['saga_id']}"
    assert stack.ended(response.json()["saga_id"])["status"] == "COMPLETED"


def test_secrets_are_masked_everywhere(stack: Stack, rows: Rows) -> None:
    saga = stack.post_start("fail=c").json()
    shown = [stack.get(f"/sagas/{saga['saga_id']}").text, stack.get(f"/sagas/{saga['saga_id']}/log").text]
    shown += [stack.get("/sagas").text, stack.get("/logs").text, stack.get("/").text]
    shown += [stack.get(f"/ui/sagas/{saga['saga_id']}").text]
    shown += [stack.log_of(process) for process in ("orchestrator", "service_c", *stack.workers)]
    assert not [text for text in shown if INPUT["payment"] in text]


@pytest.mark.parametrize("service", ["a", "b", "c"])
def test_test_status_calls_a_service_and_leaves_no_row(stack: Stack, rows: Rows, service: str) -> None:
    response = requests.post(f"{stack.url}/test_status?service={service}", timeout=10)
    assert response.status_code == 200
    assert response.json()["service"] == service
    assert response.json()["status_code"] == 200
    assert rows.added() == NONE


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_a_service_that_is_down_rolls_back(make_stack: Callable[..., Stack], kind: str) -> None:
    """... also where the orchestrator is killed in the middle of it and started again (pitfalls 11, 15)."""
    stack = make_stack(kind, LEASE_SECONDS="2", STALL_BASE_SECONDS="0.2")
    assert stack.post_start().status_code == 200  # so that there are idle connections to it
    stack.kill("service_c")
    response = stack.post_start()
    assert response.status_code == 500, response.text
    assert response.json()["error"]["step"] == "C"
    assert stack.counts() == ONE_EACH

    saga_id = stack.post_start("delay=b:1500&wait=0").json()["saga_id"]
    eventually(lambda: stack.counts()["A"] == 2)
    stack.kill("orchestrator")
    stack.start("orchestrator")
    assert stack.ended(saga_id)["status"] == "COMPENSATED"
    assert stack.counts() == ONE_EACH


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
@pytest.mark.parametrize("point", ["before-B", "after-B", "before-C", "after-C", "before-undo-A", "after-undo-B"])
def test_a_crash_of_the_orchestrator_loses_nothing(
    make_stack: Callable[..., Stack], mode: str, kind: str, point: str
) -> None:
    """Pitfall 11."""
    stack = make_stack(kind, mode=mode, LEASE_SECONDS="2", STALL_BASE_SECONDS="0.2")
    fail = "&fail=c" if "undo" in point else ""
    crashed: list[Exception] = []

    def start() -> None:
        try:
            stack.post_start(f"fail=orchestrator:{point}{fail}", headers={"Idempotency-Key": "it"})
        except requests.ConnectionError as error:
            crashed.append(error)

    caller = threading.Thread(target=start)
    caller.start()
    caller.join(30)
    assert crashed
    stack.await_ready("orchestrator")
    again = stack.post_start(headers={"Idempotency-Key": "it"})
    saga = stack.ended(again.json()["saga_id"])
    assert saga["status"] == ("COMPENSATED" if fail else "COMPLETED")
    assert stack.counts() == (NONE if fail else ONE_EACH)
