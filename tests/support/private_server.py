"""A server that the tests start, kill and start again: one process, with a port and a temporary directory."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

START_WITHIN = 120  # seconds


class PrivateServer:
    """A running server; what starts it after a `kill` finds its port and its directory as they were."""

    def __init__(self, name: str, command: Callable[[Path], list[str]], answers: Callable[[], bool]):
        """`command` is given the directory; `answers` says whether the server can be talked to."""
        self._name, self._answers = name, answers
        self._directory = Path(tempfile.mkdtemp(prefix=f"saga-{name.lower()}-"))
        self._command = command(self._directory)
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    @property
    def log(self) -> str:
        """What it has written to its output so far."""
        return (self._directory / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start it and wait until it answers; raises RuntimeError with its log where it does not."""
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_WITHIN
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the tests' {self._name} did not start:\n{self.log}")
            time.sleep(0.02)

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def restart(self) -> None:
        """Wait for the end of a process that was killed or told to end, and start it again."""
        self._process.wait()
        self.start()

    def kill(self) -> None:
        """Send it a SIGKILL, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Kill it, and delete its directory."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
