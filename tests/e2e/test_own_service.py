"""The service and the saga that docs/participants.md shows, as they stand there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.support.stack import ROOT, Stack, eventually, free_port

PAGE = (ROOT / "docs" / "participants.md").read_text()
INPUT = {"item": "lamp", "username": "ada"}


@pytest.fixture
def stock(tmp_path: Path, ports: Iterator[int]) -> Iterator[dict[str, str]]:
    """The page's two files; the environment of who runs them."""
    (tmp_path / "own" / "sagas").mkdir(parents=True)
    code = re.search(r"`stock.py`:\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    saga = re.search(r"`sagas/order.yaml`:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert code and saga
    (tmp_path / "own" / "stock.py").write_text(code[1])
    (tmp_path / "own" / "sagas" / "order.yaml").write_text(saga[1])
    port = free_port(ports)
    yield {
        "SERVICE_STOCK_PORT": str(port),
        "SERVICE_STOCK_URL": f"http://127.0.0.1:{port}",
        "SAGAS_DIR": str(tmp_path / "own" / "sagas"),
    }


@pytest.mark.parametrize("mode", ["orchestration", "choreography"])
def test_a_service_of_ones_own_is_one_file_and_its_saga_another(
    make_stack: Callable[..., Stack], tmp_path: Path, stock: dict[str, str], mode: str
) -> None:
    stack = make_stack("sqlite", mode=mode, **stock)
    with (tmp_path / "stock.log").open("ab") as log:
        own = subprocess.Popen(
            [sys.executable, "stock.py"],
            cwd=tmp_path / "own",
            env={**stack.environ, "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        eventually(lambda: _answers(f"{stock['SERVICE_STOCK_URL']}/readyz"), within=60)
        done = stack.post_start("saga=order", body=INPUT)
        assert (done.status_code, done.json()["result"]["reservation_id"]) == (200, 1)
        refused = stack.post_start("saga=order", body={**INPUT, "item": "unicorn"})
        assert (refused.status_code, refused.json()["error"]["message"]) == (409, "there is no unicorn left")
        failed = stack.post_start("saga=order&fail=a", body=INPUT)
        assert failed.status_code == 500
        kept = requests.get(f"{stock['SERVICE_STOCK_URL']}/records", timeout=10).json()["records"]
        assert [row["saga_id"] for row in kept] == [done.json()["saga_id"]]
        assert len(stack.rows("A")) == 1
    finally:
        os.killpg(own.pid, signal.SIGKILL)
        own.wait()


def test_a_service_whose_port_is_not_set_says_which_variable_it_wants(tmp_path: Path, stock: dict[str, str]) -> None:
    environ = {name: value for name, value in os.environ.items() if name != "SERVICE_STOCK_PORT"}
    run = subprocess.run(
        [sys.executable, "stock.py"],
        cwd=tmp_path / "own",
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 1
    assert run.stderr.strip() == "SERVICE_STOCK_PORT is not set: the port that the service Stock listens on"


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.ConnectionError:
        return False
