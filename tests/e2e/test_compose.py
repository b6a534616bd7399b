"""The whole stack in Docker, on MySQL: `make test-compose`. Brought up once, and taken down with its data."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.support import nats_server
from tests.support.stack import INPUT, ROOT, SERVICES, eventually

pytestmark = [pytest.mark.compose, pytest.mark.timeout(900)]

PORT = 25000
URL = f"http://127.0.0.1:{PORT}"
ENVIRON = {
    **os.environ,
    "COMPOSE_PROJECT_NAME": "saga-stack-test",
    "ORCHESTRATOR_PORT": str(PORT),
    **{f"SERVICE_{name}_PORT": str(PORT + 1 + index) for index, name in enumerate(SERVICES)},
    "NATS_PORT": str(PORT + 9),
    "TEMPORAL_PORT": str(PORT + 10),
    "TEMPORAL_UI_PORT": str(PORT + 11),
    "ENGINE": "",
    "MYSQL_ROOT_PASSWORD": "a-test-of-our-own",
    "SERVICE_B_DB_PASSWORD": "another-one",
}


def compose(*arguments: str, **environ: str) -> str:
    """The output of `docker compose …`; what it said on failure is the assertion's message."""
    environ = {**ENVIRON, **environ}
    run = subprocess.run(["docker", "compose", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module", autouse=True)
def stack() -> Iterator[None]:
    compose("down", "--volumes")
    try:
        compose("up", "--build", "--detach")
        eventually(lambda: ready(PORT), within=240)
        for index in range(len(SERVICES)):
            eventually(lambda: ready(PORT + 1 + index), within=60)  # noqa: B023
        yield
    finally:
        print(compose("logs", "--tail=100"))  # noqa: T201  # shown when a test fails
        compose("--profile", "temporal", "down", "--volumes")


def ready(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).ok
    except requests.ConnectionError:
        return False


def query(statement: str) -> int:
    """A number, as MySQL's administrator sees it."""
    client = 'MYSQL_PWD="$MYSQL_ROOT_PASSWORD" mysql --user=root --skip-column-names --execute'
    return int(compose("exec", "-T", "mysql", "sh", "-c", f'{client} "{statement}"'))


def counts() -> dict[str, int]:
    """The rows of each service's table."""
    return {name: query(f"SELECT COUNT(*) FROM {service}.TABLE_{name}") for name, service in SERVICES.items()}


def start(flags: str = "") -> requests.Response:
    return requests.post(f"{URL}/start?{flags}", json=INPUT, timeout=90)


@pytest.mark.parametrize("mode", ["orchestration", "choreography"])
@pytest.mark.parametrize(
    ("flags", "code", "added"),
    [("", 200, 1), ("fail=a", 500, 0), ("fail=b", 500, 0), ("fail=b:after", 500, 0), ("fail=c", 500, 0),
     ("fail=b:after:1", 200, 1), ("fail=b:refuse", 409, 0), ("fail=b:crash:1", 200, 1)],
)  # fmt: skip
def test_the_scenarios_leave_the_rows_that_they_should(mode: str, flags: str, code: int, added: int) -> None:
    before = counts()
    assert start(f"mode={mode}&{flags}").status_code == code
    assert counts() == {name: count + added for name, count in before.items()}


def ended(saga_id: str) -> str | None:
    try:
        status = requests.get(f"{URL}/sagas/{saga_id}", timeout=5).json().get("status")
    except (requests.ConnectionError, requests.Timeout):
        return None
    return status if status in ("COMPLETED", "COMPENSATED") else None


@pytest.mark.parametrize("mode", ["orchestration", "choreography"])
@pytest.mark.parametrize("killed", ["service_b", "orchestrator", "mysql", "nats"])
def test_what_is_killed_in_the_middle_comes_back_and_all_ends_well(killed: str, mode: str) -> None:
    before = counts()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: start(f"mode={mode}&wait=0&delay=b:2000"), range(8)))
        saga_ids = [answer.json()["saga_id"] for answer in answers]
        time.sleep(0.5)  # in the middle: every saga is at B, for two seconds
        compose("kill", killed)
        compose("up", "--detach", killed)  # Docker takes `kill` for a wish and does not restart what it hit
        ends = list(pool.map(lambda saga_id: eventually(lambda: ended(saga_id), within=120), saga_ids))
    completed = ends.count("COMPLETED")
    assert counts() == {name: count + completed for name, count in before.items()}


def test_a_process_that_dies_is_started_again_by_docker() -> None:
    with pytest.raises(requests.ConnectionError):
        start("fail=orchestrator:before-B")
    newest = eventually(lambda: newest_saga())
    assert eventually(lambda: ended(newest), within=60) == "COMPLETED"


def test_replicas_take_over_what_a_killed_orchestrator_leaves() -> None:
    compose("--profile", "replicas", "up", "--detach")
    try:
        saga_id = start("wait=0&delay=b:3000").json()["saga_id"]
        compose("kill", "orchestrator")
        events = f"SELECT COUNT(*) FROM orchestrator.sagas WHERE id = '{saga_id}' AND state = 'completed'"
        eventually(lambda: query(events) == 1, within=60)
        claims = f"SELECT COUNT(*) FROM orchestrator.saga_log WHERE saga_id = '{saga_id}' AND event = 'claimed'"
        assert query(claims) >= 1
    finally:
        compose("up", "--detach", "orchestrator")
        eventually(lambda: ready(PORT), within=60)
        compose("--profile", "replicas", "rm", "--stop", "--force", "orchestrator_replica")


def test_the_broker_is_back_after_a_kill_with_what_it_acknowledged() -> None:
    url = nats_server.url_on(PORT + 9)
    seq = nats_server.publish(url, b"told")
    compose("kill", "nats")
    assert not nats_server.answers(PORT + 9)
    compose("up", "--detach", "nats")
    eventually(lambda: nats_server.answers(PORT + 9), within=60)
    assert nats_server.read(url, seq) == b"told"


def test_a_setting_moves_new_sagas_to_temporal_and_back_on_the_same_data() -> None:
    """... and a worker that is killed, and the server, come back to what they left."""
    up = ("--profile", "temporal", "up", "--build", "--detach")
    compose(*up, ENGINE="temporal")
    try:
        eventually(lambda: ready(PORT), within=120)
        answer = eventually(lambda: completed_on("temporal"), within=120)
        before = counts()
        assert start("fail=b:after").status_code == 500
        assert counts() == before
        for killed in ("temporal_worker", "temporal"):
            saga_id = start("wait=0&delay=b:3000").json()["saga_id"]
            time.sleep(0.5)  # in the middle
            compose("--profile", "temporal", "kill", killed, ENGINE="temporal")
            compose(*up, ENGINE="temporal")
            assert eventually(lambda: ended(saga_id), within=120) == "COMPLETED"  # noqa: B023
    finally:
        compose("up", "--detach")
        eventually(lambda: ready(PORT), within=120)
        compose("--profile", "temporal", "rm", "--stop", "--force", "temporal_worker", "temporal")
    assert completed_on("builtin")
    assert ended(answer["saga_id"]) == "COMPLETED"


def completed_on(engine: str) -> dict[str, Any] | None:
    """A new saga, if it completes at once, on this engine."""
    try:
        answer = start()
    except requests.ConnectionError:
        return None
    assert answer.json()["engine"] == engine
    return dict(answer.json()) if answer.status_code == 200 else None


def newest_saga() -> str | None:
    try:
        return str(requests.get(f"{URL}/sagas?limit=1", timeout=5).json()["sagas"][0]["saga_id"])
    except requests.ConnectionError:
        return None


def test_mysql_itself_is_not_published_and_each_user_can_touch_only_its_own() -> None:
    assert compose("port", "service_a", "5001").startswith("127.0.0.1:")
    assert not any("3306->" in line for line in compose("ps").splitlines())
    client = "mysql --user=service_b --password=another-one --execute"
    run = subprocess.run(
        ["docker", "compose", "exec", "-T", "mysql", "sh", "-c", f"{client} 'SELECT * FROM service_a.TABLE_A'"],
        cwd=ROOT,
        env=ENVIRON,
        capture_output=True,
        text=True,
    )
    assert "denied" in run.stderr
