"""A private Temporal for the tests: the development server that `make up` starts, on a port and a file of its own."""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from tests.support.private_server import PrivateServer

BINARY = str(Path(sysconfig.get_path("scripts"), "temporal"))
ATTRIBUTES = ("SagaName=Keyword", "SagaStatus=Keyword", "SagaNeedsAttention=Bool")


def command(port: int, file: Path, options: Sequence[str] = ()) -> list[str]:
    """Return what starts the server, with its state in `file`."""
    flags = [*(f"--search-attribute={attribute}" for attribute in ATTRIBUTES), "--log-level=error", "--headless"]
    return [BINARY, "server", "start-dev", f"--port={port}", f"--db-filename={file}", *flags, *options]


def answers(port: int) -> bool:
    """Return whether a server is ready there: it takes connections a moment before it answers."""
    asked = [BINARY, "operator", "cluster", "health", f"--address=127.0.0.1:{port}"]
    return subprocess.run(asked, capture_output=True, timeout=30).returncode == 0


class TemporalServer(PrivateServer):
    """A running Temporal; `kill` and `start` leave it its port and its file."""

    def __init__(self, port: int, options: Sequence[str] = ()):
        self.address = f"127.0.0.1:{port}"
        super().__init__(
            "Temporal", lambda folder: command(port, folder / "temporal.db", options), lambda: answers(port)
        )
