"""What the broker that ships with the stack promises: what it has acknowledged, it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import requests

from tests.support.nats_server import NatsServer, answers, publish, read
from tests.support.stack import Stack, free_port


def test_an_acknowledged_message_outlives_kill_9_of_the_broker(nats_server: NatsServer) -> None:
    seq = publish(nats_server.url, b"told")
    killed = nats_server.pid
    nats_server.kill()
    nats_server.start()
    assert nats_server.pid != killed
    assert read(nats_server.url, seq) == b"told"


def test_an_acknowledged_message_is_on_the_disk(ports: Iterator[int]) -> None:
    """Not in the system's buffers, which a power cut empties."""
    monitor = free_port(ports)
    with NatsServer(free_port(ports), ["--http_port", str(monitor)]):
        config = requests.get(f"http://127.0.0.1:{monitor}/varz", timeout=10).json()["jetstream"]["config"]
    assert config["sync_always"] is True


def test_a_stacks_broker_is_killed_and_started_like_its_other_processes(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", broker=True)
    seq = publish(stack.environ["NATS_URL"], b"told")
    stack.kill("nats")
    assert not answers(stack.ports["nats"])
    assert stack.post_start().status_code == 200  # an orchestrated saga needs none
    stack.start("nats")
    assert read(stack.environ["NATS_URL"], seq) == b"told"


def test_a_stack_without_a_broker_looks_for_none(make_stack: Callable[..., Stack]) -> None:
    assert make_stack("sqlite").environ["NATS_URL"] == "off"
