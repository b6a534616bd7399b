"""A private Temporal for the tests: the development server that `make up` starts, on a port and a file of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType

START_WITHIN = 60  # seconds
ATTRIBUTES = ("SagaName=Keyword", "SagaStatus=Keyword", "SagaNeedsAttention=Bool")


def command(port: int, file: Path, options: Sequence[str] = ()) -> list[str]:
    """What starts the server, with its state in `file`."""
    binary = str(Path(sysconfig.get_path("scripts"), "temporal"))
    flags = [*(f"--search-attribute={attribute}" for attribute in ATTRIBUTES), "--log-level=error", "--headless"]
    return [binary, "server", "start-dev", f"--port={port}", f"--db-filename={file}", *flags, *options]


class TemporalServer:
    """A running server; `kill` and `start` leave it its port and its file."""

    def __init__(self, port: int, options: Sequence[str] = ()):
        self.address = f"127.0.0.1:{port}"
        self._port = port
        self._directory = Path(tempfile.mkdtemp(prefix="saga-temporal-"))
        self._command = command(port, self._directory / "temporal.db", options)
        self.start()

    def __enter__(self) -> TemporalServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has said."""
        return (self._directory / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the tests' Temporal did not start:\n{self.log}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with closing(socket.socket()) as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def send(self, number: int) -> None:
        """A signal."""
        self._process.send_signal(number)

    def restart(self) -> None:
        """After it was killed, or told to end."""
        self._process.wait()
        self.start()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and its file."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
