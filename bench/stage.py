"""The stack that is measured, as real processes on one database server, and how much of the machine it uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nats
import psutil
from sqlalchemy import make_url

from bench.load import Load
from saga.choreography.broker import STREAM
from saga.process.settings import load_settings
from saga.saga_log import SagaLog
from saga.storage.database import connect
from tests.support import mysql_server
from tests.support.stack import ROOT, SERVICES, Stack, eventually, free_port, own_ports
from tests.support.temporal_server import TemporalServer

DURABLE = ["--innodb-flush-log-at-trx-commit=1", "--sync-binlog=1", "--max-connections=1000"]
DURABLE += ["--innodb-buffer-pool-size=1G"]
STEPS = (1, 2, 4, 8, 16)  # of the sagas that show how the cost grows
HASTY = "hasty"  # the shipped saga without back-off, so that neither side of a ratio sleeps


class Stage:
    """One running stack, its load and its neighbours."""

    def __init__(self, kind: str, directory: Path, server: Any, environ: Mapping[str, str]):
        self.kind = kind
        self.directory = directory
        self.server = server
        self._schemas = 0
        self._neighbours: list[subprocess.Popen[bytes]] = []
        self._temporal: TemporalServer | None = None
        self._ports = own_ports()
        environ = {"SAGAS_DIR": str(_sagas(directory)), **environ}
        self.stack = Stack(self._database(), directory, self._ports, environ, broker=True)  # as `make up` has one
        self.stack.start_all()
        self.load = Load()

    def _database(self) -> Any:
        self._schemas += 1
        prefix = f"b{self._schemas}_"
        if self.kind == "sqlite":
            return lambda name: f"sqlite:///{self.directory / prefix}{name}.db"
        return mysql_server.mysql_schemas(self.server.url, prefix).__getitem__

    @property
    def services(self) -> list[str]:
        """The addresses of A, B and C."""
        return [self.stack.url_of(process) for process in SERVICES.values()]

    def another_orchestrator(self, name: str, own_log: bool, **environ: str) -> str:
        """Start a second orchestrator beside the first, and return its address."""
        self.stack.ports[name] = free_port(self._ports)
        url = self._database()("orchestrator") if own_log else self.stack.urls["orchestrator"]
        self.stack.urls[name] = url
        self.stack.start(name, SAGA_LOG_URL=url, **environ)
        return self.stack.url_of(name)

    def on_temporal(self) -> str:
        """Start an orchestrator and a worker with a Temporal of their own, and return the orchestrator's address."""
        self._temporal = TemporalServer(free_port(self._ports))
        environ = {"ENGINE": "temporal", "TEMPORAL_ADDRESS": self._temporal.address}
        url = self.another_orchestrator("orchestrator_on_temporal", own_log=True, **environ)
        self.stack.workers = ("worker",)
        self.stack.start("worker", SAGA_LOG_URL=self.stack.urls["orchestrator_on_temporal"], **environ)
        return url

    def log(self, process: str = "orchestrator") -> SagaLog:
        """Return the saga log of an orchestrator."""
        return SagaLog(connect(self.stack.urls[process]))

    def published(self) -> int:
        """Return how many events the broker has taken."""

        async def count() -> int:
            async with await nats.connect(self.stack.environ["NATS_URL"]) as client:
                return (await client.jetstream().stream_info(STREAM)).state.last_seq

        return asyncio.run(count())

    def log_size(self, process: str) -> int:
        """Bytes of an orchestrator's SQLite file."""
        return Path(str(make_url(self.stack.urls[process]).database)).stat().st_size

    def neighbour(self, module: str, database: str, **environ: str) -> str:
        """Start `python -m bench.<module>` on an empty copy of this process's database, and return its address."""
        port = free_port(self._ports)
        with (self.directory / f"{module}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"bench.{module}"],
                cwd=ROOT,
                env={**self.stack.environ, "PORT": str(port), "DB_URL": self._database()(database), **environ},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._neighbours.append(process)
        _await(port, process)
        return f"http://127.0.0.1:{port}"

    def settings(self) -> Any:
        """As the processes have them."""
        return load_settings(self.stack.environ)

    def cpu(self, *processes: str) -> float:
        """Seconds of processor time that they have used."""
        total = 0.0
        for process in processes:
            total += _cpu(self._pid(process))
        return total

    def _pid(self, process: str) -> int:
        if process == "database":
            return int(self.server.pid)
        return self._temporal.pid if process == "temporal" and self._temporal else self.stack.running[process].pid

    def memory(self, process: str) -> float:
        """Resident MiB, of the process that serves."""
        root = psutil.Process(self.stack.running[process].pid)
        return sum(part.memory_info().rss for part in [root, *root.children(recursive=True)]) / 2**20

    def close(self) -> None:
        """End all processes."""
        self.load.close()
        for process in self._neighbours:
            _kill(process)
        self.stack.stop_all()
        if self._temporal:
            self._temporal.close()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its workers."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for part in psutil.Process(process.pid).children(recursive=True):
            part.kill()
    process.kill()
    process.wait()


def _cpu(pid: int) -> float:
    root = psutil.Process(pid)
    return sum(sum(part.cpu_times()[:2]) for part in [root, *root.children(recursive=True)])


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    def listening() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}: {process.args}")
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    eventually(listening, within=60)


def _sagas(directory: Path) -> Path:
    """Return a folder with the shipped saga, and the same without back-off."""
    sagas = directory / "sagas"
    sagas.mkdir()
    shipped = (ROOT / "orchestrator" / "sagas" / "signup.yaml").read_text()
    (sagas / "signup.yaml").write_text(shipped)
    hasty = re.sub(r"^name: .*", f"name: {HASTY}", re.sub(r"    backoff: .*\n", "", shipped), flags=re.MULTILINE)
    (sagas / "hasty.yaml").write_text(re.sub(r"(  - name: .*\n)", r"\1    backoff: 0\n", hasty))
    for number in STEPS:
        (sagas / f"steps-{number}.yaml").write_text(_steps(number))
    return sagas


def _steps(number: int) -> str:
    """Return a saga with so many steps, all of them at service A; what is in `note` travels with each."""
    steps = "".join(
        f"  - name: S{step}\n    action: ${{SERVICE_A_URL}}/invoke\n    compensation: ${{SERVICE_A_URL}}/compensate\n"
        "    send: [username, note]\n"
        for step in range(1, number + 1)
    )
    return f"name: steps-{number}\nsteps:\n{steps}"


@contextlib.contextmanager
def stage(kind: str, **environ: str) -> Iterator[Stage]:
    """Run the stack with its load on "mysql" (a flush at each commit) or on "sqlite" (synchronous=FULL)."""
    with tempfile.TemporaryDirectory(prefix="saga-bench-") as name:
        server = None
        if kind == "mysql":
            server = mysql_server.private(DURABLE)
            if server is None:
                raise RuntimeError("no MySQL or MariaDB: put mysqld or mariadbd on the PATH")
        made = None
        try:
            made = Stage(kind, Path(name), server, environ)
            yield made
        finally:
            if made:
                made.close()
            if server:
                server.close()


def hardware() -> dict[str, Any]:
    """Return what the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "fsync_ms": fsync_ms(),
    }


def fsync_ms() -> float:
    """Return the median of a small write that is made durable, in milliseconds."""
    took: list[float] = []
    with tempfile.NamedTemporaryFile(dir=tempfile.gettempdir()) as file:
        for number in range(100):
            os.pwrite(file.fileno(), b"x" * 512, number * 512)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return round(sorted(took)[50] * 1000, 3)
