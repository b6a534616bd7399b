"""Choreographed sagas as real processes on a real broker: what dies in the middle, what is parked, who is told what."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import nats
import pytest
import requests

from tests.support.nats_server import run_apart
from tests.support.stack import INPUT, ROOT, Stack, eventually, impatient_sagas

ONE_EACH = {"A": 1, "B": 1, "C": 1}
NONE = {"A": 0, "B": 0, "C": 0}
QUICK = {"LEASE_SECONDS": "2", "STALL_BASE_SECONDS": "0.05", "STALL_MAX_SECONDS": "0.1"}


def published(stack: Stack) -> list[tuple[str, str]]:
    """Everything in the stream: (subject, payload)."""

    async def read() -> list[tuple[str, str]]:
        client = await nats.connect(stack.environ["NATS_URL"])
        stream = client.jetstream()
        state = (await stream.stream_info("SAGA")).state
        found = [await stream.get_msg("SAGA", number) for number in range(1, state.last_seq + 1)]
        await client.close()
        return [(message.subject or "", (message.data or b"").decode()) for message in found]

    return run_apart(read())


def publish(stack: Stack, subject: str, payload: bytes) -> None:
    async def send() -> None:
        client = await nats.connect(stack.environ["NATS_URL"])
        await client.jetstream().publish(subject, payload)
        await client.close()

    run_apart(send())


def delete_letter(stack: Stack, letter: int) -> None:
    async def delete() -> None:
        client = await nats.connect(stack.environ["NATS_URL"])
        await client.jetstream().delete_msg("SAGA_DEAD", letter)
        await client.close()

    run_apart(delete())


def dead_letters(stack: Stack) -> list[dict[str, Any]]:
    return list(stack.get("/dead-letters").json()["dead_letters"])


def saga_command(stack: Stack, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "saga.cli", "--url", stack.url, *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
@pytest.mark.parametrize("flags", ["", "fail=c", "fail=b:after"])
def test_stopping_the_orchestrator_in_the_middle_stops_nothing(
    make_stack: Callable[..., Stack], kind: str, flags: str
) -> None:
    stack = make_stack(kind, mode="choreography", **QUICK)
    saga_id = stack.post_start(f"{flags}&delay=b:700&wait=0").json()["saga_id"]
    eventually(lambda: stack.rows("A"))
    stack.kill("orchestrator")
    wanted = NONE if flags else ONE_EACH
    if flags:
        eventually(lambda: stack.counts() == NONE)
    else:
        eventually(lambda: stack.counts() == ONE_EACH)
    stack.start("orchestrator")
    saga = stack.ended(saga_id)
    assert saga["status"] == ("COMPENSATED" if flags else "COMPLETED")
    assert saga["mode"] == "choreography"
    assert stack.counts() == wanted


@pytest.mark.parametrize("victim", ["nats", "service_a", "service_b", "service_c"])
def test_what_is_killed_in_the_middle_goes_on_when_it_is_back(make_stack: Callable[..., Stack], victim: str) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    sagas = [stack.post_start(f"{flags}&delay=b:400&wait=0").json()["saga_id"] for flags in ["", "fail=c", ""]]
    eventually(lambda: stack.rows("A"))
    stack.kill(victim)
    refused = stack.post_start("wait=0.5")  # durable, though it cannot go on
    assert refused.status_code == 202
    stack.start(victim)
    ended = [stack.ended(saga_id)["status"] for saga_id in [*sagas, refused.json()["saga_id"]]]
    assert ended == ["COMPLETED", "COMPENSATED", "COMPLETED", "COMPLETED"]
    assert stack.counts() == {"A": 3, "B": 3, "C": 3}
    assert stack.get("/audit").json()["violations"] == []


def test_a_broker_that_comes_back_with_an_empty_disk_is_told_again(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    assert stack.post_start().status_code == 200
    stack.kill("service_b")
    held_up = [stack.post_start(f"{flags}wait=0").json()["saga_id"] for flags in ("", "fail=c&")]
    eventually(lambda: stack.counts()["A"] == 3)
    eventually(lambda: "saga.signup.A.done" in [subject for subject, _ in published(stack)][-1])
    stack.kill("nats")
    shutil.rmtree(stack.logs / "nats")
    stack.start("nats")
    stack.start("service_b")
    assert [stack.ended(saga_id)["status"] for saga_id in held_up] == ["COMPLETED", "COMPENSATED"]
    assert stack.counts() == {"A": 2, "B": 2, "C": 2}
    assert dead_letters(stack) == []


def test_nobody_is_in_charge(make_stack: Callable[..., Stack], tmp_path: Any) -> None:
    """A service that is away holds its sagas up; past their deadline they are marked, and that is all."""
    sagas = impatient_sagas(tmp_path, 0.5)
    file = sagas / "signup.yaml"
    file.write_text("\n".join("deadline: 1" if "deadline" in line else line for line in file.read_text().splitlines()))
    stack = make_stack("sqlite", mode="choreography", SAGAS_DIR=str(sagas), RECOVERY_INTERVAL="0.2", **QUICK)
    stack.kill("service_b")
    answer = stack.post_start("wait=0.5")
    assert answer.status_code == 202
    saga_id = answer.json()["saga_id"]
    saga = eventually(lambda: (found := stack.saga(saga_id))["overdue"] and found)
    assert saga["status"] == "RUNNING"
    assert saga["needs_attention"]
    for verb in ("cancel", "resolve", "resume"):
        refused = requests.post(f"{stack.url}/sagas/{saga_id}/{verb}", json={"note": "by hand"}, timeout=10)
        assert refused.status_code == 409
    stack.start("service_b")
    saga = stack.ended(saga_id)
    assert saga["status"] == "COMPLETED"
    assert not saga["overdue"]


@pytest.mark.parametrize("command", ["resume", "replay"])
def test_a_dead_letter_is_seen_and_replayed_by_one_command(make_stack: Callable[..., Stack], command: str) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    stack.kill("service_a")
    stack.start("service_a", FAULTS="off")  # so it cannot handle an event that asks for a fault
    saga_id = stack.post_start("fail=b&fail=a:undo:1&wait=0").json()["saga_id"]
    letter = eventually(lambda: dead_letters(stack))[0]
    assert letter["subject"] == "saga.signup.B.refused"
    assert letter["service"] == "A"
    assert letter["saga_id"] == saga_id
    assert "FAULTS=off" in letter["message"]
    saga = eventually(lambda: (found := stack.saga(saga_id))["needs_attention"] and found)
    assert saga["status"] == "STALLED"
    eventually(lambda: "parked" in [line["event"] for line in stack.lines(saga_id)])
    assert str(letter["letter"]) in saga_command(stack, "dead-letters").stdout
    assert "is parked" in saga_command(stack, "show", saga_id).stdout
    assert stack.counts() == {"A": 1, "B": 0, "C": 0}

    stack.kill("service_a")
    stack.start("service_a")
    words = [command, saga_id if command == "resume" else str(letter["letter"])]
    assert saga_command(stack, *words).returncode == 0
    saga = stack.ended(saga_id)
    assert saga["status"] == "COMPENSATED"
    assert not saga["needs_attention"]
    assert stack.counts() == NONE
    assert dead_letters(stack) == []
    assert saga_command(stack, *words).returncode == 2  # there is no dead letter any more


def test_a_dead_letter_that_is_gone_does_not_keep_its_saga_from_being_resumed(make_stack: Callable[..., Stack]) -> None:
    """As where it was published again, and that could not be noted."""
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    stack.kill("service_a")
    stack.start("service_a", FAULTS="off")
    saga_id = stack.post_start("fail=b&fail=a:undo:1&wait=0").json()["saga_id"]
    eventually(lambda: "parked" in [line["event"] for line in stack.lines(saga_id)])
    delete_letter(stack, dead_letters(stack)[0]["letter"])
    assert stack.saga(saga_id)["needs_attention"]
    assert saga_command(stack, "resume", saga_id).returncode == 0
    assert not stack.saga(saga_id)["needs_attention"]
    noted = [line["detail"]["subject"] for line in stack.lines(saga_id) if line["event"] == "replayed"]
    assert noted == ["saga.signup.B.refused"]


def test_an_event_that_is_no_event_is_parked_and_holds_up_nobody(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    assert stack.post_start().status_code == 200
    publish(stack, "saga.signup.started", b'{"payment": "4111-1111"}')
    letter = eventually(lambda: dead_letters(stack))[0]
    assert letter["saga_id"] is None
    assert "saga_id" in letter["message"]
    assert "4111-1111" not in stack.get("/dead-letters").text
    assert stack.post_start().status_code == 200


def test_secrets_are_given_to_nobody_who_does_not_need_them(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    saga_id = stack.post_start().json()["saga_id"]
    told = published(stack)
    assert {subject for subject, payload in told if INPUT["payment"] in payload} == {"saga.signup.C.given"}
    assert all(json.loads(payload)["saga_id"] == saga_id for _, payload in told)
    ends = [subject for subject, _ in told]
    assert ends.index("saga.signup.C.given") < ends.index("saga.signup.started")
    assert {"saga.signup.A.done", "saga.signup.B.done", "saga.signup.C.done", "saga.signup.completed"} <= set(ends)
    logs = [stack.log_of(process) for process in stack.processes]
    assert not [log for log in logs if INPUT["payment"] in log]


def test_an_idempotency_key_is_one_saga_and_refused_in_the_other_mode(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    first = stack.post_start(headers={"Idempotency-Key": "it"}).json()
    stack.mode = "orchestration"
    other = stack.post_start(headers={"Idempotency-Key": "it"})
    assert other.status_code == 422
    assert f"was used in another mode: it belongs to the saga {first['saga_id']}" in other.json()["error"]
    stack.mode = "choreography"
    again = stack.post_start(headers={"Idempotency-Key": "it"}).json()
    assert (again["saga_id"], again["mode"]) == (first["saga_id"], "choreography")
    assert stack.counts() == ONE_EACH


def test_two_orchestrators_observe_together(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("mysql", ["orchestrator_2"], mode="choreography", **QUICK)
    urls = [stack.url, stack.url_of("orchestrator_2")]
    flags = ["", "fail=c", "fail=b:after", "fail=b:refuse"] * 6
    ids = []
    for number, flag in enumerate(flags):
        answer = requests.post(f"{urls[number % 2]}/start?mode=choreography&wait=0&{flag}", json=INPUT, timeout=30)
        ids.append(answer.json()["saga_id"])
    ended = [stack.ended(saga_id)["status"] for saga_id in ids]
    assert ended == ["COMPLETED", "COMPENSATED", "COMPENSATED", "COMPENSATED"] * 6
    assert stack.counts() == {"A": 6, "B": 6, "C": 6}
    for saga_id in ids:
        lines = stack.lines(saga_id)
        assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))


@pytest.mark.parametrize("mode", ["neither", "Choreography", ""])
def test_another_mode_is_refused(make_stack: Callable[..., Stack], mode: str) -> None:
    stack = make_stack("sqlite")
    answer = requests.post(f"{stack.url}/start?mode={mode}", json=INPUT, timeout=10)
    assert answer.status_code == 400
    assert "mode" in answer.json()["error"]


def test_without_a_broker_setting_it_says_so(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite")
    for answer in (
        requests.post(f"{stack.url}/start?mode=choreography", json=INPUT, timeout=10),
        requests.get(f"{stack.url}/dead-letters", timeout=10),
    ):
        assert answer.status_code == 400
        assert "NATS_URL" in answer.json()["error"]
    assert stack.get("/sagas").json() == {"sagas": []}


def test_while_the_broker_is_away_orchestrated_sagas_go_on(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", broker=True, **QUICK)
    stack.kill("nats")
    began = time.monotonic()
    assert stack.post_start().status_code == 200
    assert time.monotonic() - began < 30
    assert stack.get("/dead-letters").status_code == 503
