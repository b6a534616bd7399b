"""A private Temporal for the tests: the development server that `make up` starts, on a port and a file of its own."""

from __future__ import annotations

import socket
import sysconfig
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tests.support.private_server import PrivateServer

ATTRIBUTES = ("SagaName=Keyword", "SagaStatus=Keyword", "SagaNeedsAttention=Bool")


def command(port: int, file: Path, options: Sequence[str] = ()) -> list[str]:
    """What starts the server, with its state in `file`."""
    binary = str(Path(sysconfig.get_path("scripts"), "temporal"))
    flags = [*(f"--search-attribute={attribute}" for attribute in ATTRIBUTES), "--log-level=error", "--headless"]
    return [binary, "server", "start-dev", f"--port={port}", f"--db-filename={file}", *flags, *options]


def answers(port: int) -> bool:
    """Whether a server accepts connections there."""
    with closing(socket.socket()) as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class TemporalServer(PrivateServer):
    """A running Temporal; `kill` and `start` leave it its port and its file."""

    def __init__(self, port: int, options: Sequence[str] = ()):
        self.address = f"127.0.0.1:{port}"
        super().__init__(
            "Temporal", lambda folder: command(port, folder / "temporal.db", options), lambda: answers(port)
        )
