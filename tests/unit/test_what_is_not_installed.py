"""A process whose settings ask for what is not installed says so and ends: it does not start a worker that dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import orchestrator.__main__
import saga.choreography
import service_a.app
import up
from saga.process import server


@pytest.fixture(autouse=True)
def nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(*args: Any, **kwargs: Any) -> None:
        raise SystemExit("served")

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(orchestrator.__main__, "serve", serve)
    monkeypatch.setattr(up, "port_problem", lambda *arguments: "every port is taken")
    monkeypatch.setattr(saga.choreography, "find_spec", lambda name: None)


def start_service() -> None:
    service_a.app.service.serve("service_a.app:create_app")


@pytest.mark.parametrize("start", [orchestrator.__main__.main, up.main, start_service])
def test_choreography_without_the_client_of_nats(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    with pytest.raises(SystemExit, match=r"saga-stack\[nats\].*NATS_URL=off"):
        start()
    monkeypatch.setenv("NATS_URL", "off")
    with pytest.raises(SystemExit, match=r"served|every port is taken"):
        start()


def test_a_service_that_is_a_step_of_no_saga_needs_no_client_of_nats(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NATS_URL", "nats://127.0.0.1:1")
    (tmp_path / "broken.yaml").write_text("steps: 7")
    monkeypatch.setenv("SAGAS_DIR", str(tmp_path))
    with pytest.raises(SystemExit, match="served"):
        start_service()
