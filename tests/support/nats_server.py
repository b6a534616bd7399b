"""A private broker for the tests: the nats-server that `make up` starts, on a port and a directory of its own."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import nats

CONFIG = Path(__file__).parents[2] / "db" / "nats.conf"
START_WITHIN = 30  # seconds


def command(port: int, store: Path) -> list[str]:
    """What starts the server, with its streams in `store`."""
    binary = str(Path(sysconfig.get_path("scripts"), "nats-server"))
    return [binary, "--config", str(CONFIG), "--addr", "127.0.0.1", "--port", str(port), "--store_dir", str(store)]


def url_on(port: int) -> str:
    """The URL of the server on this port."""
    return f"nats://127.0.0.1:{port}"


def answers(port: int) -> bool:
    """Whether a server greets there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False


def run_apart(work: Coroutine[Any, Any, Any]) -> Any:
    """What `work` gives, on an event loop in a thread of its own: the browser's tests leave one in theirs."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def publish(url: str, payload: bytes) -> int:
    """Into a stream on disk: the sequence number that the server acknowledged."""

    async def run() -> int:
        async with await nats.connect(url) as client:
            stream = client.jetstream()
            await stream.add_stream(name="KEPT", subjects=["kept.>"])
            return (await stream.publish("kept.one", payload)).seq

    return run_apart(run())


def read(url: str, seq: int) -> bytes | None:
    """What the stream holds under this number."""

    async def run() -> bytes | None:
        async with await nats.connect(url) as client:
            return (await client.jetstream().get_msg("KEPT", seq)).data

    return run_apart(run())


class NatsServer:
    """A running server; `kill` and `start` leave it its port and its streams."""

    def __init__(self, port: int, options: Sequence[str] = ()):
        self.url = url_on(port)
        self._port = port
        self._directory = Path(tempfile.mkdtemp(prefix="saga-nats-"))
        self._command = [*command(port, self._directory / "store"), *options]
        self.start()

    def __enter__(self) -> NatsServer:
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
        while not answers(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the tests' NATS did not start:\n{self.log}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it, and its streams."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)
