"""What the broker that ships with the stack promises: what it has acknowledged, it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import nats
import requests

from tests.nats_server import NatsServer, answers
from tests.stack import Stack, free_port


async def publish(url: str, payload: bytes) -> int:
    """Into a stream on disk: the sequence number that the broker acknowledged."""
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        await stream.add_stream(name="KEPT", subjects=["kept.>"])
        return (await stream.publish("kept.one", payload)).seq
    finally:
        await client.close()


async def read(url: str, seq: int) -> bytes | None:
    client = await nats.connect(url)
    try:
        return (await client.jetstream().get_msg("KEPT", seq)).data
    finally:
        await client.close()


def test_an_acknowledged_message_outlives_kill_9_of_the_broker(nats_server: NatsServer) -> None:
    seq = asyncio.run(publish(nats_server.url, b"told"))
    killed = nats_server.pid
    nats_server.kill()
    nats_server.start()
    assert nats_server.pid != killed
    assert asyncio.run(read(nats_server.url, seq)) == b"told"


def test_an_acknowledged_message_is_on_the_disk(ports: Iterator[int]) -> None:
    """Not in the system's buffers, which a power cut empties."""
    monitor = free_port(ports)
    with NatsServer(free_port(ports), ["--http_port", str(monitor)]):
        config = requests.get(f"http://127.0.0.1:{monitor}/varz", timeout=10).json()["jetstream"]["config"]
    assert config["sync_always"] is True


def test_a_stacks_broker_is_killed_and_started_like_its_other_processes(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", broker=True)
    seq = asyncio.run(publish(stack.environ["NATS_URL"], b"told"))
    stack.kill("nats")
    assert not answers(stack.ports["nats"])
    assert stack.post_start().status_code == 200  # an orchestrated saga needs none
    stack.start("nats")
    assert asyncio.run(read(stack.environ["NATS_URL"], seq)) == b"told"


def test_a_stack_without_a_broker_looks_for_none(make_stack: Callable[..., Stack]) -> None:
    assert make_stack("sqlite").environ["NATS_URL"] == "off"
