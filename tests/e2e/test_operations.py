"""Several orchestrators, slow and dead services, stuck sagas: as real processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from saga.runtime.bulkhead import CALLS_PER_SERVICE
from tests.support.stack import INPUT, ROOT, Stack, eventually

ONE_EACH = {"A": 1, "B": 1, "C": 1}
NONE = {"A": 0, "B": 0, "C": 0}
SECOND = "orchestrator_2"  # on the same log


def to_all(stack: Stack, process: str, number: int) -> None:
    """A signal to a process and its worker."""
    os.killpg(stack.running[process].pid, number)


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_a_paused_orchestrator_is_refused_when_it_wakes_up(make_stack: Callable[..., Stack], kind: str) -> None:
    """Pitfall 22."""
    stack = make_stack(kind, [SECOND], LEASE_SECONDS="1.5")
    saga_id = stack.post_start("wait=0&delay=b:400").json()["saga_id"]
    eventually(lambda: "action_done" in [line["event"] for line in stack.lines(saga_id)])
    to_all(stack, "orchestrator", signal.SIGSTOP)
    other = stack.url_of(SECOND)
    ended = eventually(lambda: _ended(other, saga_id), within=30)
    assert ended["status"] == "COMPLETED"
    lines = requests.get(f"{other}/sagas/{saga_id}/log", timeout=5).json()["lines"]
    assert "claimed" in [line["event"] for line in lines]
    to_all(stack, "orchestrator", signal.SIGCONT)
    assert eventually(lambda: stack.post_start(), within=30).status_code == 200  # it is awake, and works
    assert requests.get(f"{other}/sagas/{saga_id}/log", timeout=5).json()["lines"] == lines
    assert stack.counts() == {"A": 2, "B": 2, "C": 2}


def _ended(url: str, saga_id: str) -> dict[str, Any] | None:
    saga = requests.get(f"{url}/sagas/{saga_id}", timeout=5).json()
    return saga if saga["status"] in ("COMPLETED", "COMPENSATED") else None


def test_a_terminated_orchestrator_hands_over_at_once(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", [SECOND], LEASE_SECONDS="300")  # nobody could wait for that
    saga_ids = [stack.post_start("wait=0&delay=b:700").json()["saga_id"] for _ in range(5)]
    eventually(lambda: stack.counts()["A"] == 5)
    assert stack.stop("orchestrator") == 0
    for saga_id in saga_ids:
        ended = eventually(lambda: _ended(stack.url_of(SECOND), saga_id), within=30)  # noqa: B023
        assert ended["status"] == "COMPLETED"
    assert stack.counts() == {"A": 5, "B": 5, "C": 5}


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_one_key_starts_one_saga_at_any_number_of_orchestrators(make_stack: Callable[..., Stack], kind: str) -> None:
    stack = make_stack(kind, [SECOND])
    urls = [stack.url, stack.url_of(SECOND)] * 8

    def start(url: str) -> Any:
        headers = {"Idempotency-Key": "the same"}
        return requests.post(f"{url}/start", json=INPUT, headers=headers, timeout=30).json()["saga_id"]

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(start, urls))) == 1
    assert stack.counts() == ONE_EACH


class Hole:
    """A service that accepts and never answers, or answers 500; counts what it is sent."""

    def __init__(self, port: int, answers: bool):
        self.times: list[float] = []
        self._socket = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._answers = answers
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                peer, _ = self._socket.accept()
                self._open.append(peer)
                threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        with suppress(OSError):
            while peer.recv(65536):
                self.times.append(time.monotonic())
                if self._answers:
                    peer.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    peer.close()

    def close(self) -> None:
        self._socket.close()
        for peer in self._open:
            peer.close()


def take_port(port: int) -> Hole | None:
    """Once its service's worker is gone, too."""
    try:
        return Hole(port, answers=True)
    except OSError:
        return None


def test_a_service_that_hangs_takes_nothing_from_the_others(
    make_stack: Callable[..., Stack], tmp_path: Path, ports: Iterator[int]
) -> None:
    """Pitfall 14: 500 sagas wait for a service that accepts and never answers; all else goes on as ever."""
    hole = Hole(port := next(ports), answers=False)
    sagas = tmp_path / "sagas"
    sagas.mkdir()
    (sagas / "signup.yaml").write_text((ROOT / "orchestrator" / "sagas" / "signup.yaml").read_text())
    step = f"{{name: X, action: 'http://127.0.0.1:{port}/x', timeout: 50, retries: 0, compensation: none}}"
    (sagas / "hang.yaml").write_text(f"name: hang\nsteps: [{step}]\n")
    stack = make_stack("sqlite", SAGAS_DIR=str(sagas), LEASE_SECONDS="5")
    with ThreadPoolExecutor(250) as pool:
        hanging = [pool.submit(stack.post_start, "saga=hang", {}) for _ in range(500)]
        eventually(lambda: len(hole.times) >= 40, within=30)
        in_line = len(hanging) - CALLS_PER_SERVICE  # and their callers have their 202: all others wait for a call
        eventually(lambda: sum(future.done() for future in hanging) >= in_line, within=60)
        for path in ("/healthz", "/readyz", "/", "/sagas", "/metrics"):
            assert stack.get(path).status_code == 200
        assert [stack.post_start().status_code for _ in range(5)] == [200] * 5
        assert len(hole.times) < 100  # no more at a time than have a place
        assert all(future.result().status_code == 202 for future in hanging if future.done())
        hole.close()
    assert stack.counts() == {"A": 5, "B": 5, "C": 5}
    running = "/sagas?status=RUNNING&saga=hang&limit=1"
    eventually(lambda: stack.get(running).json().get("sagas") == [], within=90)  # a 503 is no answer yet


def test_a_service_that_is_down_sees_a_bounded_and_falling_rate_and_its_sagas_heal_by_themselves(
    make_stack: Callable[..., Stack],
) -> None:
    """Pitfalls 25, 26: forty sagas wait to undo A, which is down."""
    stack = make_stack("sqlite", STALL_BASE_SECONDS="0.3", STALL_MAX_SECONDS="3")
    with ThreadPoolExecutor(20) as pool:
        started = list(pool.map(lambda _: stack.post_start("wait=0&fail=b&delay=b:300"), range(40)))
    assert {answer.status_code for answer in started} == {202}
    eventually(lambda: stack.counts()["A"] == 40)
    stack.kill("service_a")
    hole: Hole = eventually(lambda: take_port(stack.ports["service_a"]))
    try:
        eventually(lambda: len(stack.get("/sagas?status=STALLED&limit=500").json()["sagas"]) == 40, within=60)
        quiet = time.monotonic()
        eventually(lambda: time.monotonic() - quiet > 8, within=10)
    finally:
        hole.close()
    since = [at for at in hole.times if at > quiet]
    assert len(since) <= 5 * 3 + 8 * 3, "five tries at once, then a probe at a time, of three attempts each"
    assert len(since) < len(hole.times) - len(since), "the rate does not fall"
    stack.start("service_a")
    for answer in started:
        assert stack.ended(answer.json()["saga_id"], within=60)["status"] == "COMPENSATED"
    assert stack.counts() == NONE


def test_a_saga_that_stays_stuck_asks_for_attention(make_stack: Callable[..., Stack]) -> None:
    """Pitfall 26."""
    stack = make_stack("sqlite", STALL_BASE_SECONDS="0.02", STALL_MAX_SECONDS="0.05", RECOVERY_INTERVAL="0.05")
    saga_id = stack.post_start("wait=0&fail=b:refuse&fail=a:undo").json()["saga_id"]
    eventually(lambda: stack.saga(saga_id)["needs_attention"], within=60)
    assert stack.saga(saga_id)["status"] in ("STALLED", "COMPENSATING")  # it goes on trying
    resolve = ("resolve", saga_id, "--note", "removed by hand")
    eventually(lambda: cli(stack, *resolve).returncode == 0, within=60)  # not while it is just being tried again
    assert stack.ended(saga_id)["status"] == "COMPENSATED"
    audit = cli(stack, "audit")
    assert (audit.returncode, "step A" in audit.stdout) == (1, True)  # nobody had removed it: the services say so


def cli(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "saga.cli", "--url", stack.url, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_the_saga_command(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite")
    good = cli(stack, "start", "-i", json.dumps(INPUT), "--json")
    assert (good.returncode, json.loads(good.stdout)["status"]) == (0, "COMPLETED")
    bad = cli(stack, "start", "signup", "-i", json.dumps(INPUT), "--fail", "b:after")
    assert (bad.returncode, "COMPENSATED" in bad.stdout) == (1, True)
    open_still = cli(stack, "start", "-i", json.dumps(INPUT), "--delay", "b:4000", "--wait", "0", "--json")
    assert open_still.returncode == 3
    saga_id = json.loads(open_still.stdout)["saga_id"]
    assert cli(stack, "cancel", saga_id).returncode == 0
    assert stack.ended(saga_id)["error"]["kind"] == "cancelled"
    again = cli(stack, "cancel", saga_id)
    assert (again.returncode, "cancelled before" in again.stderr) == (2, True)
    shown = cli(stack, "show", saga_id)
    assert "cancelled" in shown.stdout
    assert len(json.loads(cli(stack, "list", "--json").stdout)["sagas"]) == 3
    assert cli(stack, "audit").stdout.strip() == "3 checked, 0 violations"
    assert cli(stack, "start", "-i", "{}").returncode == 2
    assert "username" in cli(stack, "start", "-i", "{}").stderr
    assert cli(stack, "prune", "--older-than", "x", "--yes").returncode == 2
    assert "3 forgotten" in cli(stack, "prune", "--older-than", "0s", "--yes").stdout
    assert stack.get("/sagas").json()["sagas"] == []
    stack.kill("orchestrator")
    away = cli(stack, "list")
    assert (away.returncode, "is it up?" in away.stderr) == (4, True)


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_the_metrics_tell_what_waits_and_what_the_services_did(make_stack: Callable[..., Stack], kind: str) -> None:
    stack = make_stack(kind, STALL_BASE_SECONDS="300")
    saga_id = stack.post_start("wait=0&fail=b&fail=a:undo").json()["saga_id"]
    eventually(lambda: stack.saga(saga_id)["status"] == "STALLED")
    eventually(lambda: "saga_stalled 1.0" in stack.get("/metrics").text.splitlines())
    assert "saga_log_up 1.0" in stack.get("/metrics").text.splitlines()
    told = requests.get(f"{stack.url_of('service_a')}/metrics", timeout=10).text
    assert 'saga_participant_calls_total{call="action",step="A",verdict="done"} 1.0' in told.splitlines()
    assert 'saga_participant_calls_total{call="compensation",step="A",verdict="failed"} 3.0' in told.splitlines()
