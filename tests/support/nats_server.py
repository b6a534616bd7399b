"""A private broker for the tests: the nats-server that `make up` starts, on a port and a directory of its own."""

from __future__ import annotations

import asyncio
import socket
import sysconfig
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nats

from tests.support.private_server import PrivateServer

CONFIG = Path(__file__).parents[2] / "db" / "nats.conf"


def command(port: int, store: Path) -> list[str]:
    """Return what starts the server, with its streams in `store`."""
    binary = str(Path(sysconfig.get_path("scripts"), "nats-server"))
    return [binary, "--config", str(CONFIG), "--addr", "127.0.0.1", "--port", str(port), "--store_dir", str(store)]


def url_on(port: int) -> str:
    """Return the URL of the server on this port."""
    return f"nats://127.0.0.1:{port}"


def answers(port: int) -> bool:
    """Return whether a server greets there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            return connection.recv(5) == b"INFO "
    except OSError:
        return False


def run_apart(work: Coroutine[Any, Any, Any]) -> Any:
    """Return what `work` gives, on an event loop in a thread of its own: the browser's tests leave one in theirs."""
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
    """Return what the stream holds under this number."""

    async def run() -> bytes | None:
        async with await nats.connect(url) as client:
            return (await client.jetstream().get_msg("KEPT", seq)).data

    return run_apart(run())


class NatsServer(PrivateServer):
    """A running broker; `kill` and `start` leave it its port and its streams."""

    def __init__(self, port: int, options: Sequence[str] = ()):
        self.url = url_on(port)
        super().__init__("NATS", lambda folder: [*command(port, folder / "store"), *options], lambda: answers(port))
