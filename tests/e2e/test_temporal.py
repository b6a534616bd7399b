"""What the stack promises, on Temporal: a real server, workers, orchestrator and services."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.stack import INPUT, Stack, eventually, free_port
from tests.support.temporal_server import TemporalServer

ONE_EACH = {"A": 1, "B": 1, "C": 1}
NONE = {"A": 0, "B": 0, "C": 0}
QUICK = {"LEASE_SECONDS": "2", "STALL_BASE_SECONDS": "0.2", "RECOVERY_INTERVAL": "0.2"}

MakeStack = Callable[..., Stack]


@pytest.fixture
def own_server(ports: Iterator[int]) -> Iterator[TemporalServer]:
    """A Temporal that this test may kill."""
    with TemporalServer(free_port(ports)) as server:
        yield server


def events(stack: Stack, saga_id: str) -> list[str]:
    return [line["event"] for line in stack.lines(saga_id)]


def numbered(stack: Stack, saga_id: str) -> bool:
    """Whether the saga log has each line once."""
    lines = stack.lines(saga_id)
    return [line["seq"] for line in lines] == list(range(1, len(lines) + 1))


def post(stack: Stack, saga_id: str, verb: str, body: Any = None) -> requests.Response:
    return requests.post(f"{stack.url}/sagas/{saga_id}/{verb}", json=body or {}, timeout=30)


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_a_killed_worker_is_replaced_in_the_middle_of_a_call(make_stack: MakeStack, kind: str) -> None:
    stack = make_stack(kind, engine="temporal", more_workers=["worker_2"], **QUICK)
    stack.kill("worker_2")  # so that the other one has them all
    saga_ids = [stack.post_start("wait=0&delay=b:3000").json()["saga_id"] for _ in range(6)]
    eventually(lambda: stack.counts()["A"] == 6)
    stack.kill("worker")
    stack.start("worker_2")
    for saga_id in saga_ids:
        assert stack.ended(saga_id)["status"] == "COMPLETED"
        assert numbered(stack, saga_id)
    assert stack.counts() == {"A": 6, "B": 6, "C": 6}
    lines = [line for saga_id in saga_ids for line in stack.lines(saga_id)]
    taken = [number for number, line in enumerate(lines) if line["event"] == "claimed"]
    assert taken
    assert {lines[number + 1]["attempt"] for number in taken} == {2}  # the one that was interrupted counts


def test_a_killed_server_that_is_started_again_has_lost_nothing(
    make_stack: MakeStack, own_server: TemporalServer
) -> None:
    stack = make_stack("sqlite", engine="temporal", temporal=own_server.address, **QUICK)
    saga_ids = [stack.post_start(f"wait=0&delay=b:1500&{flag}").json()["saga_id"] for flag in ("", "fail=c:refuse")]
    eventually(lambda: stack.counts()["A"] == 2)
    own_server.kill()
    while_away = stack.post_start("wait=1")
    assert (while_away.status_code, while_away.json()["status"]) == (202, "RUNNING")  # it is in the saga log
    own_server.start()
    ended = [stack.ended(saga_id, within=60)["status"] for saga_id in (*saga_ids, while_away.json()["saga_id"])]
    assert ended == ["COMPLETED", "COMPENSATED", "COMPLETED"]
    assert stack.counts() == {"A": 2, "B": 2, "C": 2}


def test_a_saga_whose_orchestrator_dies_before_its_workflow_is_started_is_started_by_a_worker(
    make_stack: MakeStack, own_server: TemporalServer
) -> None:
    stack = make_stack("sqlite", engine="temporal", temporal=own_server.address, **QUICK)
    own_server.kill()
    saga_id = stack.post_start("wait=0").json()["saga_id"]
    stack.kill("orchestrator")
    own_server.start()
    eventually(lambda: stack.counts() == ONE_EACH, within=60)
    stack.start("orchestrator")
    assert stack.ended(saga_id)["status"] == "COMPLETED"


def test_a_saga_that_temporal_does_not_take_keeps_no_other_from_it(
    make_stack: MakeStack, own_server: TemporalServer
) -> None:
    stack = make_stack("sqlite", engine="temporal", temporal=own_server.address, **QUICK)
    stack.kill("worker")  # it looks for what was not started, too
    own_server.kill()
    large = b'{"username": "ada", "numbers": [%s]}' % b",".join([b"1e9"] * 240_000)  # written out they are 3 MB
    started = requests.post(f"{stack.url}/start?wait=0", data=large, timeout=60)
    assert started.status_code == 202
    others = [stack.post_start("wait=0").json()["saga_id"] for _ in range(2)]
    own_server.start()
    eventually(lambda: "event=cannot_be_started" in stack.log_of("orchestrator"), within=60)
    stack.start("worker")
    assert [stack.ended(saga_id, within=60)["status"] for saga_id in others] == ["COMPLETED"] * 2
    assert stack.saga(started.json()["saga_id"])["status"] == "RUNNING"


def test_an_input_of_a_megabyte_in_any_alphabet_is_driven(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **QUICK)
    large = json.dumps({**INPUT, "poem": "é" * 450_000}, ensure_ascii=False)  # escaped it would be 2.7 MB
    answer = requests.post(f"{stack.url}/start", data=large.encode(), timeout=60)
    assert answer.json()["status"] == "COMPLETED"


class Verbose(BaseHTTPRequestHandler):
    """A participant that answers with 800 kB, whatever it is asked."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({self.headers["Saga-Step"]: "a" * 800_000}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def verbose() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Verbose) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_results_that_are_too_large_for_temporal_together_are_rolled_back(
    make_stack: MakeStack, tmp_path: Path, verbose: str
) -> None:
    directory = tmp_path / "sagas"
    directory.mkdir()
    steps = [f"  - {{name: {name}, action: '{verbose}/do', compensation: '{verbose}/undo'}}\n" for name in "ABC"]
    (directory / "verbose.yaml").write_text("name: verbose\nsteps:\n" + "".join(steps))
    stack = make_stack("sqlite", engine="temporal", SAGAS_DIR=str(directory), **QUICK)
    saga = stack.ended(stack.post_start("saga=verbose&wait=0").json()["saga_id"])
    assert (saga["status"], saga["error"]["step"]) == ("COMPENSATED", "B")
    assert "larger than Temporal takes" in saga["error"]["message"]
    lines = stack.lines(saga["saga_id"])
    assert [line["step"] for line in lines if line["event"] == "compensation_done"] == ["B", "A"]


def test_the_same_key_is_the_same_saga_and_a_start_that_is_repeated_changes_nothing(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", ["orchestrator_2"], engine="temporal", **QUICK)
    headers = {"Idempotency-Key": "it"}
    first = stack.post_start("wait=0&delay=a:4000", headers=headers).json()  # so long that it is started again
    second = requests.post(f"{stack.url_of('orchestrator_2')}/start", json=INPUT, headers=headers, timeout=60)
    assert (second.status_code, second.json()["saga_id"]) == (200, first["saga_id"])
    assert stack.counts() == ONE_EACH
    assert numbered(stack, first["saga_id"])


def test_cancel_rolls_back_at_once_and_only_once(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **QUICK)
    saga_id = stack.post_start("wait=0&delay=b:3000").json()["saga_id"]
    eventually(lambda: "action_done" in events(stack, saga_id))
    answer = post(stack, saga_id, "cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "COMPENSATING")
    assert "cancelled before" in post(stack, saga_id, "cancel").json()["error"]
    saga = stack.ended(saga_id)
    assert (saga["status"], saga["error"]["kind"], saga["error"]["step"]) == ("COMPENSATED", "cancelled", "B")
    assert [line["step"] for line in stack.lines(saga_id) if line["event"] == "compensation_done"] == ["B", "A"]
    (claim,) = [line["detail"] for line in stack.lines(saga_id) if line["event"] == "claimed"]
    assert (claim["interrupted"], claim["why"]) == (True, "cancelled")  # its call was under way, and no crash
    assert stack.counts() == NONE
    late = post(stack, saga_id, "cancel")
    assert late.status_code == 409


def test_cancel_while_the_pivot_decides_is_noted_and_the_pivot_decides(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **QUICK)
    saga_id = stack.post_start("wait=0&delay=c:2000").json()["saga_id"]
    eventually(lambda: events(stack, saga_id).count("action_done") == 2)
    assert post(stack, saga_id, "cancel").status_code == 202
    assert "cancel_requested" in events(stack, saga_id)
    assert "cancelled before" in post(stack, saga_id, "cancel").json()["error"]
    saga = stack.ended(saga_id)
    assert (saga["status"], saga["steps"][2]["attempts"]) == ("COMPLETED", 1)  # no second call while one is under way
    assert "claimed" not in events(stack, saga_id)
    assert stack.counts() == ONE_EACH


def test_a_stalled_saga_rests_durably_and_is_resumed_or_resolved_by_hand(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **{**QUICK, "STALL_BASE_SECONDS": "300"})
    resumed, resolved = (stack.post_start("wait=0&fail=b&fail=a:undo:3").json()["saga_id"] for _ in range(2))
    for saga_id in (resumed, resolved):
        saga = eventually(lambda saga_id=saga_id: _stalled(stack, saga_id))
        assert saga["due_at"] > saga["started_at"]
        assert post(stack, saga_id, "cancel").status_code == 409
    stack.kill("worker")  # the rest is the server's to keep
    assert post(stack, resumed, "resume").status_code == 503  # nobody is there to hear it
    stack.start("worker")
    eventually(lambda: post(stack, resumed, "resume").status_code == 202 or "resumed" in events(stack, resumed))
    assert stack.ended(resumed)["status"] == "COMPENSATED"
    assert post(stack, resolved, "resolve", {"note": " "}).status_code == 400
    assert post(stack, resolved, "resolve", {"note": "removed by hand"}).status_code == 202
    assert stack.ended(resolved)["status"] == "COMPENSATED"
    line = next(line for line in stack.lines(resolved) if line["event"] == "resolved")
    assert line["detail"]["note"] == "removed by hand"
    assert stack.counts() == {"A": 1, "B": 0, "C": 0}  # nobody had removed it


def _stalled(stack: Stack, saga_id: str) -> dict[str, Any] | None:
    saga = stack.saga(saga_id)
    return saga if saga["status"] == "STALLED" else None


def test_a_compensation_that_fails_is_tried_until_it_succeeds(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **QUICK)
    saga_id = stack.post_start("wait=0&fail=b&fail=a:undo:7").json()["saga_id"]
    saga = stack.ended(saga_id)
    assert (saga["status"], saga["error"]["step"]) == ("COMPENSATED", "B")
    assert events(stack, saga_id).count("compensation_refused") == 2
    assert stack.counts() == NONE


def test_the_dashboard_starts_and_shows_sagas_on_temporal_too(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **QUICK)
    shown = requests.post(f"{stack.url}/ui/start", data={"username": "ada", "mode": "orchestration"}, timeout=30)
    assert shown.ok, shown.text
    saga_id = stack.get("/sagas?limit=1").json()["sagas"][0]["saga_id"]
    assert stack.ended(saga_id)["engine"] == "temporal"
    crashed = stack.post_start("fail=b:refuse&fail=orchestrator:after-a").json()["saga_id"]
    assert stack.ended(crashed)["status"] == "COMPENSATED"
    for page in (f"/ui/sagas/{saga_id}", f"/ui/sagas/{crashed}"):
        assert "on Temporal" in stack.get(page).text
    assert crashed in stack.get("/").text


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
@pytest.mark.parametrize("point", ["before-B", "after-B", "before-C", "after-C", "before-undo-A", "after-undo-B"])
def test_a_crash_of_the_worker_loses_nothing(make_stack: MakeStack, kind: str, point: str) -> None:
    stack = make_stack(kind, engine="temporal", **QUICK)
    fail = "&fail=c" if "undo" in point else ""
    saga = stack.post_start(f"fail=orchestrator:{point}{fail}").json()
    saga = stack.ended(saga["saga_id"])
    assert saga["status"] == ("COMPENSATED" if fail else "COMPLETED")
    assert events(stack, saga["saga_id"]).count("fault") == 1
    assert "code=17" in stack.log_of("worker")
    assert stack.counts() == (NONE if fail else ONE_EACH)


def test_a_crash_before_a_call_and_one_after_it_both_strike(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **QUICK)
    flags = "wait=0&fail=orchestrator:before-B&fail=orchestrator:after-B"
    saga_id = stack.post_start(flags).json()["saga_id"]
    assert stack.ended(saga_id)["status"] == "COMPLETED"
    struck = [line["detail"]["fault"] for line in stack.lines(saga_id) if line["event"] == "fault"]
    assert struck == ["before-B", "after-B"]
    assert stack.log_of("worker").count("code=17") == 2
    assert stack.counts() == ONE_EACH


def test_a_terminated_worker_hands_over_between_two_attempts(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **{**QUICK, "LEASE_SECONDS": "300"})  # nobody could wait for that
    saga_id = stack.post_start("wait=0&fail=b:after:2&delay=b:1000").json()["saga_id"]
    eventually(lambda: stack.counts()["B"] == 1)  # the first of three
    assert stack.stop("worker") == 0
    stack.start("worker")
    assert stack.ended(saga_id)["status"] == "COMPLETED"
    attempts = [line["attempt"] for line in stack.lines(saga_id) if line["step"] == "B" and line["attempt"]]
    assert attempts == [1, 2, 3]  # none was interrupted
    assert "released" in events(stack, saga_id)


def test_without_its_log_a_saga_goes_on_and_the_log_learns_of_it_later(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **QUICK)
    saga_id = stack.post_start("wait=0&delay=a:1000").json()["saga_id"]
    with locked(stack):
        eventually(lambda: stack.counts() == ONE_EACH, within=60)
    assert stack.ended(saga_id)["status"] == "COMPLETED"
    assert numbered(stack, saga_id)


@contextmanager
def locked(stack: Stack) -> Iterator[None]:
    """Nobody else can write the saga log, or read it as we do."""
    connection = sqlite3.connect(stack.urls["orchestrator"].removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_a_change_of_the_engine_drains_the_old_one(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **{**QUICK, "STALL_BASE_SECONDS": "300"})
    on_temporal = stack.post_start("wait=0&fail=b&fail=a:undo:4").json()["saga_id"]
    stack.kill("orchestrator")
    stack.start("orchestrator", ENGINE="builtin")
    assert eventually(lambda: _stalled(stack, on_temporal))["engine"] == "temporal"
    builtin = stack.post_start("wait=0&fail=b&fail=a:undo:4").json()
    assert builtin["engine"] == "builtin"
    eventually(lambda: _stalled(stack, builtin["saga_id"]))
    stack.kill("orchestrator")
    stack.start("orchestrator")  # on Temporal again
    new = stack.post_start().json()
    assert (new["engine"], new["status"]) == ("temporal", "COMPLETED")
    for saga_id in (on_temporal, builtin["saga_id"]):
        assert post(stack, saga_id, "resume").status_code == 202
        assert stack.ended(saga_id)["status"] == "COMPENSATED"
        assert numbered(stack, saga_id)
    engines = {saga["saga_id"]: saga["engine"] for saga in stack.get("/sagas").json()["sagas"]}
    assert engines == {on_temporal: "temporal", builtin["saga_id"]: "builtin", new["saga_id"]: "temporal"}
    assert stack.counts() == ONE_EACH


def test_an_operators_word_reaches_temporal_from_an_orchestrator_of_the_other_engine(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **{**QUICK, "STALL_BASE_SECONDS": "300"})
    saga_id = stack.post_start("wait=0&fail=b&fail=a:undo:3").json()["saga_id"]
    eventually(lambda: _stalled(stack, saga_id))
    stack.kill("orchestrator")
    stack.start("orchestrator", ENGINE="builtin", TEMPORAL_ADDRESS="")
    answer = post(stack, saga_id, "resume")
    assert (answer.status_code, "TEMPORAL_ADDRESS" in answer.json()["error"]) == (503, True)
    stack.kill("orchestrator")
    stack.start("orchestrator", ENGINE="builtin")
    assert post(stack, saga_id, "resume").status_code == 202
    assert stack.ended(saga_id)["status"] == "COMPENSATED"
    assert stack.counts() == NONE


def test_a_worker_that_was_asleep_writes_nothing_backwards(make_stack: MakeStack) -> None:
    stack = make_stack("mysql", engine="temporal", more_workers=["worker_2"], **QUICK)
    stack.kill("worker_2")  # so that the other one has them all
    saga_ids = [stack.post_start("wait=0&delay=b:3000").json()["saga_id"] for _ in range(6)]
    eventually(lambda: stack.counts()["A"] == 6)
    os.killpg(stack.running["worker"].pid, signal.SIGSTOP)
    stack.start("worker_2")
    lines = {saga_id: (stack.ended(saga_id, within=90), stack.lines(saga_id)) for saga_id in saga_ids}
    assert any("claimed" in events(stack, saga_id) for saga_id in saga_ids)
    os.killpg(stack.running["worker"].pid, signal.SIGCONT)
    stack.kill("worker_2")
    assert eventually(lambda: stack.post_start(), within=60).status_code == 200  # it is awake, and works
    assert {saga_id: (stack.saga(saga_id), stack.lines(saga_id)) for saga_id in saga_ids} == lines
    assert stack.counts() == {"A": 7, "B": 7, "C": 7}
