"""A choreographed saga is not started where one of its steps certainly has no listener."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import requests

from tests.e2e.test_choreography import QUICK
from tests.support.stack import INPUT, ROOT, Stack, eventually


def sagas(directory: Path, change: Callable[[str], str] = lambda text: text) -> str:
    """A directory with `signup`, and `other`: the same with a change."""
    found = directory / "sagas"
    shutil.copytree(ROOT / "orchestrator" / "sagas", found, ignore=lambda at, names: set(names) - {"signup.yaml"})
    text = (found / "signup.yaml").read_text()
    (found / "other.yaml").write_text(change(re.sub(r"(?m)^name: signup", "name: other", text)))
    return str(found)


def test_a_step_whose_name_no_service_has_is_named_with_what_to_start(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    named = sagas(tmp_path, lambda text: text.replace("- name: B", "- name: Address"))
    stack = make_stack("sqlite", mode="choreography", SAGAS_DIR=named, **QUICK)
    answer = stack.post_start("saga=other")
    assert (answer.status_code, answer.json()["field"]) == (400, "mode")
    message = answer.json()["error"]
    assert "nobody listens to step Address of other" in message
    assert "start the service whose Participant is called 'Address', as the step is" in message
    assert "the services that listen are A, B, C" in message
    assert stack.get("/sagas").json()["sagas"] == []
    assert stack.post_start("saga=signup").json()["status"] == "COMPLETED"
    orchestrated = requests.post(f"{stack.url}/start?saga=other", json=INPUT, timeout=30)
    assert orchestrated.json()["status"] == "COMPLETED"
    form = {"saga": "other", "mode": "choreography", **INPUT}
    page = requests.post(f"{stack.url}/ui/start", data=form, timeout=30)
    assert (page.status_code, "nobody listens to step Address" in page.text) == (400, True)


def test_a_service_with_an_older_file_is_told_apart(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    directory = Path(sagas(tmp_path))
    new = (directory / "other.yaml").read_text()
    (directory / "other.yaml").unlink()
    stack = make_stack("sqlite", mode="choreography", SAGAS_DIR=str(directory), **QUICK)
    assert stack.post_start("saga=signup").json()["status"] == "COMPLETED"
    (directory / "other.yaml").write_text(new)
    stack.kill("orchestrator")
    stack.start("orchestrator")

    def refused() -> str | None:  # while the broker is not reached yet, it would be accepted
        if not stack.get("/dead-letters").ok:
            return None
        answer = stack.post_start("saga=other&wait=0")
        return answer.json()["error"] if answer.status_code == 400 else None

    assert "the service A listens to other events: start it again" in eventually(refused)
    for service in ("service_a", "service_b", "service_c"):
        stack.kill(service)
        stack.start(service)
    eventually(lambda: stack.post_start("saga=other").status_code == 200)


def test_a_service_that_was_up_once_is_waited_for(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    assert stack.post_start().status_code == 200
    for process in ("service_b", "orchestrator"):  # which forgets whom it has seen
        stack.kill(process)
    stack.start("orchestrator")
    saga_id = stack.post_start("wait=0").json()["saga_id"]
    stack.start("service_b")
    assert stack.ended(saga_id)["status"] == "COMPLETED"


def test_while_the_broker_is_away_a_start_is_accepted(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    assert stack.post_start().status_code == 200
    for process in ("nats", "orchestrator"):
        stack.kill(process)
    stack.start("orchestrator")
    answer = stack.post_start("wait=0")
    assert answer.status_code == 202
    stack.start("nats")
    assert stack.ended(answer.json()["saga_id"])["status"] == "COMPLETED"


def test_a_known_key_is_its_saga_though_nobody_listens_any_more(
    make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    named = sagas(tmp_path, lambda text: text.replace("- name: B", "- name: Address"))
    stack = make_stack("sqlite", mode="choreography", SAGAS_DIR=named, **QUICK)
    for process in ("nats", "orchestrator"):
        stack.kill(process)
    stack.start("orchestrator")
    key = {"Idempotency-Key": "once"}
    first = stack.post_start("saga=other&wait=0", headers=key)
    assert first.status_code == 202
    stack.start("nats")
    eventually(lambda: stack.get("/dead-letters").ok)
    eventually(lambda: stack.post_start("saga=other&wait=0").status_code == 400)
    again = stack.post_start("saga=other&wait=0", headers=key)
    assert again.json()["saga_id"] == first.json()["saga_id"]
