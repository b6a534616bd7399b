"""The stack as real processes, for tests: started, killed, and looked at in the services' own tables."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import psutil
import requests
from sqlalchemy import create_engine, text

from saga.process.ports import port_problem
from tests.support import nats_server, odd_service, preloaded

ROOT = Path(__file__).parents[2]
SERVICES = {"A": "service_a", "B": "service_b", "C": "service_c"}
PROCESSES = ("service_a", "service_b", "service_c", "orchestrator")
INPUT = {"username": "ada", "address": "1 Main St", "payment": "4111-1111"}


def eventually(check: Callable[[], Any], within: float = 30, every: float = 0.05) -> Any:
    """Return the first true value of `check`; raise AssertionError where there is none within so many seconds."""
    deadline = time.monotonic() + within
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s; last: {value!r}")
        time.sleep(every)


def impatient_sagas(directory: Path, timeout: float) -> Path:
    """Return a folder with the saga that ships, all of whose calls have this time-out (seconds)."""
    sagas = directory / "sagas"
    sagas.mkdir()
    shipped = re.sub(r"    timeout: .*\n", "", (ROOT / "orchestrator" / "sagas" / "signup.yaml").read_text())
    (sagas / "signup.yaml").write_text(re.sub(r"(  - name: .*\n)", rf"\1    timeout: {timeout}\n", shipped))
    return sagas


class Stack:
    """Four processes on free ports, each with an empty database of its own; with `broker`, "nats" is one more.

    With `temporal`, the address of a server, new sagas are on Temporal, and "worker" is one more.
    """

    def __init__(
        self,
        database: Callable[[str], str],
        logs: Path,
        ports: Iterator[int],
        environ: dict[str, str],
        more_orchestrators: Sequence[str] = (),
        broker: bool = False,
        mode: str = "orchestration",
        temporal: str | None = None,
        more_workers: Sequence[str] = (),
    ):
        self.mode = mode  # of the sagas that `post_start` starts
        self.workers = ("worker", *more_workers) if temporal else ()
        self.processes = (*["nats"] * broker, *PROCESSES, *more_orchestrators, *self.workers)
        self.urls = {name: database(name) for name in PROCESSES}
        self.ports = {name: free_port(ports) for name in self.processes}
        self.logs = logs
        self.running: dict[str, preloaded.Process | subprocess.Popen[bytes]] = {}
        self.environ = {
            **os.environ,
            "ORCHESTRATOR_PORT": str(self.ports["orchestrator"]),
            "SAGA_LOG_URL": self.urls["orchestrator"],
            **{f"{name.upper()}_PORT": str(self.ports[name]) for name in SERVICES.values()},
            **{f"{name.upper()}_DB_URL": self.urls[name] for name in SERVICES.values()},
            "NATS_URL": nats_server.url_on(self.ports["nats"]) if broker else "off",
            **(self._on_temporal(temporal) if temporal else {}),
            **environ,
        }

    def _on_temporal(self, address: str) -> dict[str, str]:
        queue = f"stack-{os.getpid()}-{self.ports['orchestrator']}-{time.monotonic_ns()}"  # the server is shared
        return {"ENGINE": "temporal", "TEMPORAL_ADDRESS": address, "TEMPORAL_TASK_QUEUE": queue}

    def add_odd(self, ports: Iterator[int], sagas: Path) -> None:
        """Before it starts: one process more, "odd" (odd_service.py), and the saga that calls it."""
        (sagas / "odd.yaml").write_text(odd_service.SAGA)
        self.ports["odd"] = free_port(ports)
        self.processes = (*self.processes, "odd")
        self.environ["SERVICE_ODD_PORT"] = str(self.ports["odd"])
        self.environ["SERVICE_ODD_URL"] = self.url_of("odd")
        self.environ["SERVICE_ODD_DB_URL"] = f"sqlite:///{self.logs / 'odd.db'}"

    @property
    def url(self) -> str:
        return self.url_of("orchestrator")

    def url_of(self, process: str) -> str:
        return f"http://127.0.0.1:{self.ports[process]}"

    def start_all(self) -> None:
        for process in self.processes:
            self.launch(process)
        for process in self.processes:
            self.await_ready(process)

    def start(self, process: str, **environ: str) -> None:
        """Start one process, and wait until it is ready."""
        self.launch(process, **environ)
        self.await_ready(process)

    def launch(self, process: str, **environ: str) -> None:
        """Start one process, and do not wait for it."""
        port = self.ports[process if "orchestrator" in process else "orchestrator"]
        file = self.logs / f"{process}.log"
        if process == "nats":
            command = nats_server.command(self.ports["nats"], self.logs / "nats")
            with file.open("ab") as log:
                self.running[process] = subprocess.Popen(
                    command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
            return
        environ = {**self.environ, "ORCHESTRATOR_PORT": str(port), **environ}
        self.running[process] = preloaded.start(self._module(process), environ, file)

    def _module(self, process: str) -> str:
        """Return what `python -m` runs in this process."""
        if process in self.workers:
            return "orchestrator.temporal_worker"
        if process == "odd":
            return "tests.support.odd_service"
        return process if process in PROCESSES else "orchestrator"

    def await_ready(self, process: str) -> None:
        def ready() -> bool:
            assert self.running[process].poll() is None, f"{process} ended:\n{self.log_of(process)}"
            if process == "nats":
                return nats_server.answers(self.ports["nats"])
            if process in self.workers:
                return "event=working" in self.log_of(process)
            try:
                return requests.get(f"{self.url_of(process)}/readyz", timeout=5).status_code == 200
            except (requests.ConnectionError, requests.Timeout):
                return False

        eventually(ready, within=60)

    def kill(self, process: str) -> None:
        """SIGKILL to the process; the worker that dies with it a moment later is waited for, and left alone."""
        running = self.running.pop(process)
        workers = psutil.Process(running.pid).children(recursive=True)
        running.kill()
        running.wait()
        eventually(lambda: not any(map(alive, workers)), within=10)
        if process in self.ports:
            # Its threads may hold the port a moment longer than it lives, and its successor would not begin.
            eventually(lambda: port_problem("127.0.0.1", self.ports[process], process) is None, within=10)

    def stop(self, process: str, within: float = 15) -> int:
        """SIGTERM; gives the exit code."""
        running = self.running.pop(process)
        running.send_signal(signal.SIGTERM)
        return running.wait(within)

    def stop_all(self) -> None:
        for running in self.running.values():
            running.kill()
        for running in self.running.values():
            running.wait()

    def post_start(self, flags: str = "", body: Any = None, **arguments: Any) -> requests.Response:
        """POST /start?<flags>"""
        body = INPUT if body is None else body
        flags = f"mode={self.mode}&{flags}" if self.mode != "orchestration" else flags
        return requests.post(f"{self.url}/start?{flags}", json=body, timeout=60, **arguments)

    def get(self, path: str) -> requests.Response:
        return requests.get(self.url + path, timeout=10)

    def saga(self, saga_id: str) -> dict[str, Any]:
        return dict(self.get(f"/sagas/{saga_id}").json())

    def lines(self, saga_id: str) -> list[dict[str, Any]]:
        return list(self.get(f"/sagas/{saga_id}/log").json()["lines"])

    def ended(self, saga_id: str, within: float = 40) -> dict[str, Any]:
        """Return the saga, once it has ended."""

        def look() -> dict[str, Any] | None:
            try:
                saga = self.saga(saga_id)
            except (requests.ConnectionError, requests.Timeout):  # it is restarting
                return None
            return saga if saga.get("status") in ("COMPLETED", "COMPENSATED") else None

        return dict(eventually(look, within))

    def rows(self, service: str) -> list[dict[str, Any]]:
        """Return the rows of TABLE_<service>, read straight from the service's database."""
        engine = create_engine(self.urls[SERVICES[service]])
        try:
            with engine.connect() as connection:
                return [dict(row) for row in connection.execute(text(f"SELECT * FROM TABLE_{service}")).mappings()]
        finally:
            engine.dispose()

    def counts(self) -> dict[str, int]:
        """Return how many rows each service has."""
        return {service: len(self.rows(service)) for service in SERVICES}

    def log_of(self, process: str) -> str:
        return (self.logs / f"{process}.log").read_text(errors="replace")[-4000:]


_held: list[IO[str]] = []  # the locks of our blocks of ports: the system frees them when this process ends


def own_ports() -> Iterator[int]:
    """Ports that no other run of the tests uses, round and round, below those that the system gives to connections."""
    for first in range(10_000, 24_500, 500):
        lock = Path(tempfile.gettempdir(), f"saga-stack-ports-{first}")
        with contextlib.suppress(OSError):  # another run, or another user, has it
            file = lock.open("w")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _held.append(file)
            return itertools.cycle(range(first, first + 500))
    raise RuntimeError("too many runs of the tests at once")


def alive(process: psutil.Process) -> bool:
    """Return whether a process still runs: a zombie, for which nobody has waited, does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def free_port(ports: Iterator[int]) -> int:
    """Return the next of `ports` that nobody listens on."""
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("unreachable: the ports never end")
