"""What a service has loaded once it has made its app: its own side of the contract, and what is configured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.stack import ROOT

SCRIPT = """
import sys
from service_a.app import create_app
from saga.kits.flask import load_settings
app = create_app(load_settings({settings!r}))
print(*sys.modules)
app.close()
"""


def loaded(directory: Path, **settings: str) -> set[str]:
    """The modules of a process that has made service A's app, with its database in `directory`."""
    settings["SERVICE_A_DB_URL"] = f"sqlite:///{directory}/a.db"
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(settings=settings)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(run.stdout.split())


def rooms(modules: set[str]) -> set[str]:
    """The folders of the library that the modules are in, and the name of the broker's client."""
    return {".".join(name.split(".")[:2]) for name in modules if name.startswith("saga.")} | ({"nats"} & modules)


def test_a_service_without_broker_and_faults_loads_neither(tmp_path: Path) -> None:
    found = rooms(loaded(tmp_path, NATS_URL="off", FAULTS="off"))
    assert "saga.participant" in found
    optional = {"choreography", "faults", "temporal", "step_functions", "runtime", "http_client", "driver", "saga_log"}
    assert not found & ({f"saga.{name}" for name in optional} | {"nats"})


def test_failure_injection_is_loaded_where_it_is_on_and_choreography_not_without_sagas(
    tmp_path: Path,
) -> None:
    """NATS_URL has a default, so that it alone does not say that a service takes part in choreographed sagas."""
    settings = {"NATS_URL": "nats://127.0.0.1:1", "SAGAS_DIR": str(tmp_path / "nowhere")}
    found = rooms(loaded(tmp_path, FAULTS="on", **settings))
    assert "saga.faults" in found
    assert not found & {"saga.driver", "saga.choreography", "nats"}


def test_choreography_is_loaded_where_there_are_a_broker_and_sagas(tmp_path: Path) -> None:
    found = rooms(loaded(tmp_path, FAULTS="off", NATS_URL="nats://127.0.0.1:1", SAGAS_DIR=str(tmp_path)))
    assert "saga.choreography" in found
    assert "saga.faults" not in found
