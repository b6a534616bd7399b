"""What an operator does by hand over HTTP, on every engine that has somebody in charge."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.stack import ROOT, Stack, eventually

SAGA = """\
name: paid
steps:
  - {name: A, action: "${SERVICE_A_URL}/invoke", compensation: none, send: [username], pivot: true}
  - {name: C, action: "${SERVICE_C_URL}/invoke", send: [user_id, payment]}
"""


@pytest.mark.parametrize(("kind", "engine"), [("sqlite", "builtin"), ("mysql", "builtin"), ("sqlite", "temporal")])
def test_what_an_action_would_have_answered_is_given_by_hand(
    make_stack: Callable[..., Stack], tmp_path: Path, kind: str, engine: str
) -> None:
    sagas = tmp_path / "sagas"
    sagas.mkdir()
    (sagas / "paid.yaml").write_text(SAGA)
    stack = make_stack(kind, engine=engine, SAGAS_DIR=str(sagas), STALL_BASE_SECONDS="300")
    body = {"username": "ada", "payment": "4111"}
    url = f"{stack.url}/start?saga=paid&wait=0&fail=a:after"
    first, second = (requests.post(url, json=body, timeout=30).json()["saga_id"] for _ in range(2))

    def stalled(saga_id: str) -> Any:
        return requests.get(f"{stack.url}/sagas/{saga_id}", timeout=10).json()["status"] == "STALLED"

    for saga_id in (first, second):
        eventually(lambda saga_id=saga_id: stalled(saga_id), within=60)
    resolve = f"{stack.url}/sagas/{first}/resolve"
    for wrong in ([], "x", None, 7):
        answer = requests.post(resolve, json={"note": "found", "result": wrong}, timeout=30)
        assert (answer.status_code, answer.json()["field"]) == (400, "result")
    told = requests.post(resolve, json={"note": "found", "result": {"user_id": 77}}, timeout=30)
    assert told.status_code == 202
    command = [sys.executable, "-m", "saga.cli", "--url", stack.url, "resolve", second, "--note", "found"]
    assert subprocess.run([*command, "--result", "[]"], cwd=ROOT, check=False).returncode == 2
    assert subprocess.run([*command, "--result", json.dumps({"user_id": 78})], cwd=ROOT, check=False).returncode == 0
    for saga_id, user_id in ((first, 77), (second, 78)):
        saga = stack.ended(saga_id)
        assert (saga["status"], saga["result"]["user_id"]) == ("COMPLETED", user_id)
        assert [row["user_id"] for row in stack.rows("C") if row["saga_id"] == saga_id] == [user_id]


def test_on_temporal_a_compensation_takes_no_result(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", engine="temporal", STALL_BASE_SECONDS="300")
    saga_id = stack.post_start("wait=0&fail=b&fail=a:undo").json()["saga_id"]
    eventually(lambda: "stalled" in str(stack.lines(saga_id)), within=60)
    url = f"{stack.url}/sagas/{saga_id}/resolve"
    answer = requests.post(url, json={"note": "x", "result": {"user_id": 1}}, timeout=30)
    assert (answer.status_code, answer.json()["field"]) == (400, "result")
    assert "the compensation of A" in answer.json()["error"]
    assert requests.post(url, json={"note": "x"}, timeout=30).status_code == 202
    assert stack.ended(saga_id)["status"] == "COMPENSATED"
