"""`make up`, as a person runs it: in a terminal's process group, ended with Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.support import nats_server
from tests.support.stack import INPUT, PROCESSES, ROOT, eventually, free_port

pytestmark = pytest.mark.xdist_group("make_up")  # both write var/ of this checkout


class Up:
    """A running `make up`, with ports and databases of its own."""

    def __init__(self, directory: Path, ports: Iterator[int], environ: dict[str, str]):
        self.ports = {name: free_port(ports) for name in (*PROCESSES, "nats", "temporal", "temporal_ui")}
        self.output = directory / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                ["make", "--no-print-directory", "up"],
                cwd=ROOT,
                env={
                    **os.environ,
                    **{f"{name.upper()}_PORT": str(port) for name, port in self.ports.items()},
                    "SAGA_LOG_URL": f"sqlite:///{directory}/orchestrator.db",
                    **{
                        f"{n.upper()}_DB_URL": f"sqlite:///{directory}/{n}.db" for n in PROCESSES if n != "orchestrator"
                    },
                    "NATS_URL": "",  # the default, whatever this shell has
                    "SAGA_NATS_STORE": str(directory / "nats"),
                    "ENGINE": "",
                    "SAGA_TEMPORAL_FILE": str(directory / "temporal.db"),
                    **environ,
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def main_process(self, name: str) -> psutil.Process | None:
        """The process that the supervisor started for `name`, not its worker."""
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                parent = process.parent()
                if process.cmdline()[-2:] == ["-m", name] and parent and parent.cmdline()[-2:] != ["-m", name]:
                    return process
        return None

    def server(self, name: str) -> psutil.Process | None:
        """The process of a server that is not ours: the broker's, or Temporal's."""
        for process in self.family():
            with contextlib.suppress(psutil.Error):
                if process.name() == name:
                    return process
        return None

    def broker(self) -> psutil.Process | None:
        """The broker's process."""
        return self.server("nats-server")

    def start(self, flags: str = "") -> int:
        url = f"http://localhost:{self.ports['orchestrator']}/start?{flags}"
        return requests.post(url, json=INPUT, timeout=60).status_code

    def stop(self, within: float) -> str:
        """Ctrl-C in its terminal; gives what it says from then on. Nothing of it is left afterwards."""
        family, before = self.family(), len(self.said)
        os.killpg(self.process.pid, signal.SIGINT)
        assert self.process.wait(within) in (0, 130, -signal.SIGINT)
        assert not psutil.wait_procs(family, timeout=10)[1]
        return self.said[before:]


NOISE = re.compile("away|waits|error|exception|traceback|warn|destroyed|refused|kill", re.IGNORECASE)

MakeUp = Callable[..., Up]


@pytest.fixture
def make_up(tmp_path: Path, ports: Iterator[int]) -> Iterator[MakeUp]:
    made: list[Up] = []

    def make(**environ: str) -> Up:
        made.append(Up(tmp_path, ports, environ))
        return made[-1]

    yield make
    for up in made:
        for process in [*up.family(), psutil.Process(up.process.pid) if up.process.poll() is None else None]:
            with contextlib.suppress(psutil.NoSuchProcess):
                if process:
                    process.kill()
        up.process.wait()


def test_it_says_where_the_dashboard_is_restarts_what_dies_and_ctrl_c_leaves_nothing(make_up: MakeUp) -> None:
    up = make_up()
    address = f"http://localhost:{up.ports['orchestrator']}/"
    eventually(lambda: f"The dashboard is at {address}" in up.said, within=60)
    assert requests.get(address, timeout=10).status_code == 200
    assert up.start() == 200
    # Without the setting nothing of Temporal is started.
    assert up.server("temporal") is None
    assert up.main_process("orchestrator.temporal_worker") is None
    assert "Temporal" not in up.said
    for name in ("service_b", "orchestrator"):
        victim = eventually(lambda name=name: up.main_process(name))
        workers = victim.children(recursive=True)
        victim.kill()
        assert not psutil.wait_procs(workers, timeout=10)[1]  # one that dies with it could answer once more
        eventually(lambda name=name, victim=victim: up.main_process(name) not in (None, victim))
        eventually(lambda name=name: answers(up.ports[name]))
    eventually(lambda: nats_server.answers(up.ports["nats"]))
    broker = eventually(up.broker)
    broker.kill()
    eventually(lambda: up.broker() not in (None, broker))
    eventually(lambda: nats_server.answers(up.ports["nats"]))
    assert up.start() == 200
    ctrl_c_says_nothing_that_looks_like_a_failure(up)


def test_with_engine_temporal_it_starts_that_too_and_restarts_what_dies_of_it(make_up: MakeUp) -> None:
    up = make_up(ENGINE="temporal")
    eventually(lambda: "The dashboard is at" in up.said, within=90)
    assert f"Temporal's own pages are at http://localhost:{up.ports['temporal_ui']}/" in up.said
    assert up.start() == 200
    sagas = requests.get(f"http://localhost:{up.ports['orchestrator']}/sagas", timeout=10).json()["sagas"]
    assert [saga["engine"] for saga in sagas] == ["temporal"]
    assert requests.get(f"http://localhost:{up.ports['temporal_ui']}/", timeout=10).ok
    server = eventually(lambda: up.server("temporal"))
    server.kill()
    worker = eventually(lambda: up.main_process("orchestrator.temporal_worker"))
    worker.kill()
    eventually(lambda: up.server("temporal") not in (None, server), within=30)
    eventually(lambda: up.main_process("orchestrator.temporal_worker") not in (None, worker), within=30)
    assert eventually(lambda: up.start("fail=b:refuse") == 409, within=60)
    ctrl_c_says_nothing_that_looks_like_a_failure(up)


def ctrl_c_says_nothing_that_looks_like_a_failure(up: Up) -> None:
    """Not even where sagas of both modes are under way; and `make up` said beforehand that it holds the terminal."""
    assert "This terminal stays with it: Ctrl-C stops everything" in up.said
    eventually(lambda: up.start("mode=choreography") == 200, within=60)
    for flags in ("mode=choreography&delay=b:3000&wait=0", "delay=b:3000&wait=0"):
        assert up.start(flags) == 202
    said = re.sub(r".* event=attempt .*", "", up.stop(within=25))  # a call whose service left first is a plain fact
    assert not NOISE.search(said), said
    assert "Traceback" not in up.said


@pytest.mark.parametrize("elsewhere", ["off", "nats://127.0.0.1:1"])
def test_no_broker_is_started_where_another_is_set_or_none(make_up: MakeUp, elsewhere: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # not our port then
        up = make_up(NATS_URL=elsewhere, NATS_PORT=str(taken.getsockname()[1]))
        eventually(lambda: "The dashboard is at" in up.said, within=60)
    assert up.broker() is None
    assert up.start() == 200


def answers(port: int) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=5).ok
    return False


def test_ctrl_c_before_it_is_ready_leaves_nothing_either(make_up: MakeUp) -> None:
    up = make_up()
    eventually(lambda: up.main_process("orchestrator"), within=60)
    up.stop(within=20)
    assert "Traceback" not in up.said


def test_pitfall_28_every_taken_port_is_named_before_anything_starts(make_up: MakeUp, tmp_path: Path) -> None:
    """Pitfall 28: the port is taken: who has it, and how to move."""
    with contextlib.ExitStack() as taken:
        variables = ("ORCHESTRATOR_PORT", "SERVICE_B_PORT", "NATS_PORT")
        sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in variables]
        ports = {name: str(held.getsockname()[1]) for name, held in zip(variables, sockets, strict=True)}
        assert (up := make_up(**ports)).process.wait(30) != 0
    for variable in variables:
        assert f"(pid {os.getpid()}). Set {variable} to a free one" in up.said
    assert not list(tmp_path.glob("*.db"))


def test_a_wrong_setting_or_saga_is_said_before_anything_starts(make_up: MakeUp, tmp_path: Path) -> None:
    assert "FAULTS must be on or off" in ended(make_up(FAULTS="perhaps"))
    (tmp_path / "sagas").mkdir()
    (tmp_path / "sagas" / "mine.yaml").write_text("name: mine\nsteps: 7\n")
    assert "mine.yaml:2" in ended(make_up(SAGAS_DIR=str(tmp_path / "sagas")))
    assert not list(tmp_path.glob("*.db"))


def ended(up: Up) -> str:
    assert up.process.wait(30) != 0
    return up.said


@pytest.mark.parametrize("missing", [True, False])
def test_a_venv_that_cannot_be_made_is_told_as_python_tells_it(tmp_path: Path, missing: bool) -> None:
    """Only where the module is missing does it say how to install it."""
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\ncase "$*" in\n'
        '"-m venv"*) echo "No space left on device" >&2; exit 1;;\n'
        f"*ensurepip*) exit {int(missing)};;\nesac\n"
    )
    python.chmod(0o755)
    command = ["make", "-f", str(ROOT / "Makefile"), f"PYTHON={python}", ".venv/bin/python"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert "No space left on device" in ran.stderr
    assert ("apt install python3-venv" in ran.stdout) == missing
