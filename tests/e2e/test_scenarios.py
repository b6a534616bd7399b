"""The seed scenarios, as real processes on both databases; each looks at the services' own rows (pitfall 17)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from tests.conftest import databases
from tests.stack import INPUT, ROOT, Stack, eventually

ONE_EACH = {"A": 1, "B": 1, "C": 1}
NONE = {"A": 0, "B": 0, "C": 0}


MODES = ("orchestration", "choreography")
TEMPORAL = "temporal"  # orchestrated by another engine


@pytest.fixture(
    scope="module", params=[f"{kind}-{mode}" for kind in ("sqlite", "mysql") for mode in (*MODES, TEMPORAL)]
)
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ports: object) -> object:
    """One stack for all scenarios: time-outs short, so that lost and late answers need no patience."""
    kind, mode = request.param.split("-")
    directory = tmp_path_factory.mktemp(request.param)
    sagas = directory / "sagas"
    sagas.mkdir()
    signup = (ROOT / "orchestrator" / "sagas" / "signup.yaml").read_text()
    quick = signup.replace("    timeout: 5 ", "    timeout: 0.5 ").replace(
        "    pivot: true", "    pivot: true\n    timeout: 0.5"
    )
    assert quick.count("timeout: 0.5") == 2
    (sagas / "signup.yaml").write_text(quick)
    (sagas / "patient.yaml").write_text(signup.replace("name: signup", "name: patient", 1))
    environ = {"SAGAS_DIR": str(sagas), "FAULT_HOLD_SECONDS": "3", "STALL_BASE_SECONDS": "0.2", "LEASE_SECONDS": "3"}
    made = Stack(
        databases(request, kind, directory),
        Path(directory),
        ports,
        environ,
        broker=mode == MODES[1],
        mode=MODES[0] if mode == TEMPORAL else mode,
        temporal=request.getfixturevalue("temporal_server").address if mode == TEMPORAL else None,
    )
    made.start_all()
    yield made
    made.stop_all()


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


def compensated(stack: Stack, saga_id: str) -> list[str]:
    """The steps whose compensation was done, in order."""
    return [line["step"] for line in stack.lines(saga_id) if line["event"] == "compensation_done"]


def test_all_succeed(stack: Stack, rows: Rows) -> None:
    """Pitfalls 16, 17."""
    response = stack.post_start()
    saga = response.json()
    assert response.status_code == 200
    assert saga["status"] == "COMPLETED"
    assert saga["error"] is None
    assert rows.added() == ONE_EACH
    assert [row["username"] for row in stack.rows("A") if row["saga_id"] == saga["saga_id"]] == ["ada"]
    assert [row["user_id"] for row in stack.rows("C") if row["saga_id"] == saga["saga_id"]] == [
        saga["result"]["user_id"]
    ]


@pytest.mark.parametrize(
    ("flag", "code", "undone"),
    [
        ("a", 500, []),
        ("b", 500, ["A"]),
        ("b:after", 500, ["B", "A"]),
        ("c", 500, ["B", "A"]),
        ("c:refuse", 409, ["B", "A"]),
        ("b:garbage", 500, ["B", "A"]),
        ("b:refuse", 409, ["A"]),
        ("b:lost", 504, ["B", "A"]),
        ("b:late", 504, ["B", "A"]),
    ],
)
def test_a_failed_step_leaves_every_table_as_before(
    stack: Stack, rows: Rows, flag: str, code: int, undone: list[str]
) -> None:
    """Pitfalls 2, 3, 4, 5, 10, 14, 30: what is undone includes the failed step where it may have had its effect."""
    response = stack.post_start(f"fail={flag}")
    saga = response.json()
    assert response.status_code == code
    assert saga["status"] == "COMPENSATED"
    assert saga["error"]["step"] == flag[0].upper()
    assert compensated(stack, saga["saga_id"]) == undone
    assert rows.added() == NONE


@pytest.mark.parametrize("flag", ["b:after:1", "c:before:2", "c:after:2", "a:garbage:1", "b:lost:1", "c:lost:1"])
def test_a_retry_that_succeeds_inserts_once(stack: Stack, rows: Rows, flag: str) -> None:
    """Pitfall 1."""
    response = stack.post_start(f"fail={flag}")
    assert response.status_code == 200, response.text
    assert rows.added() == ONE_EACH


def test_a_payment_whose_answers_are_lost_is_found_committed_and_the_saga_goes_forward(
    stack: Stack, rows: Rows
) -> None:
    """Pitfall 24."""
    response = stack.post_start("fail=c:lost")
    saga = response.json()
    assert response.status_code == 200, response.text
    assert saga["error"] is None
    assert statuses(saga) == {"A": "DONE", "B": "DONE", "C": "DONE"}
    assert "compensation_refused" in [line["event"] for line in stack.lines(saga["saga_id"])]
    assert rows.added() == ONE_EACH


def test_a_late_payment_is_sealed_out(stack: Stack, rows: Rows) -> None:
    """Pitfall 21: the late action arrives after its compensation, and does nothing."""
    response = stack.post_start("fail=c:late")
    saga = response.json()
    assert response.status_code == 504, response.text
    assert saga["error"]["kind"] == "timeout"
    assert compensated(stack, saga["saga_id"]) == ["C", "B", "A"]
    barrier = requests.get(f"{stack.url_of('service_c')}/records/{saga['saga_id']}", timeout=5).json()["barrier"]
    assert [row["state"] for row in barrier] == ["sealed"]
    late = requests.post(  # one more, after all those that the service still holds back
        f"{stack.url_of('service_c')}/invoke?fail=late",
        json={"user_id": saga["result"]["user_id"], "payment": INPUT["payment"]},
        headers={"Saga-Id": saga["saga_id"]},
        timeout=20,
    )
    assert late.status_code == 409
    assert rows.added() == NONE


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


def test_a_compensation_that_fails_is_tried_until_it_succeeds(stack: Stack, rows: Rows) -> None:
    """Pitfalls 7, 8: a failed undo is no success, and does not stop the rest."""
    saga = stack.post_start("fail=b&fail=a:undo:4").json()
    assert saga["status"] == "STALLED" or saga["status"] == "COMPENSATED"
    saga = stack.ended(saga["saga_id"])
    assert saga["status"] == "COMPENSATED"
    events = [line["event"] for line in stack.lines(saga["saga_id"])]
    assert events.count("compensation_refused") == 1
    assert events.count("compensation_done") == 1
    assert rows.added() == NONE


def test_other_peoples_rows_are_left_alone(stack: Stack, rows: Rows) -> None:
    """Pitfall 6: the same user name in another saga."""
    kept = stack.post_start().json()["saga_id"]
    stack.post_start("fail=c")
    assert rows.added() == ONE_EACH
    assert kept in {row["saga_id"] for row in stack.rows("A")}


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


def test_many_sagas_at_once_each_end_as_they_should(stack: Stack, rows: Rows) -> None:
    flags = ["", "fail=b:after", "fail=c", "fail=a:after:1", "fail=b:refuse"] * 8
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda flag: stack.post_start(f"saga=patient&{flag}"), flags)
        codes = [answer.status_code for answer in answers]
    assert codes == [200, 500, 500, 200, 409] * 8
    assert rows.added() == {"A": 16, "B": 16, "C": 16}


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
