"""A process's connection to the broker: it outlives a stream that is deleted, and no event comes back for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import nats
import pytest

from saga import broker
from saga.broker import ACK, DEAD, DEAD_STREAM, STREAM, Broker, Delivery, Reaction
from saga.errors import BrokerUnavailable
from tests.nats_server import NatsServer
from tests.stack import eventually


class Handled:
    """A handler that remembers what it was given; it fails where the event says so."""

    def __init__(self) -> None:
        self.seen: list[Delivery] = []

    def patience(self, subject: str) -> float:
        return 5.0

    def line(self, subject: str, payload: bytes) -> str | None:
        return payload.decode().partition(" ")[0] if b" " in payload else None

    def handle(self, delivery: Delivery) -> Reaction:
        if delivery.payload == b"one 0":
            eventually(lambda: self.payloads().count(b"two 0") == 1)
        self.seen.append(delivery)
        if delivery.payload == b"poison":
            raise KeyError("at")
        return ACK

    def overslept(self, delivery: Delivery) -> Reaction:
        raise AssertionError

    def payloads(self) -> list[bytes]:
        return [delivery.payload for delivery in self.seen]


@pytest.fixture
def handled() -> Handled:
    return Handled()


@pytest.fixture
def connected(nats_server: NatsServer, handled: Handled, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    monkeypatch.setattr(broker, "LOOK", 0.1)
    monkeypatch.setattr(broker, "FAILURES", 2)
    made = Broker(nats_server.url, "A", ack_wait=2.0)
    made.consume("A", ["saga.signup.started"], handled)
    made.open()
    eventually(made.since)
    yield made
    made.close()


def publish(to: Broker, id: str, payload: bytes) -> bool:
    try:
        return to.publish([(id, "saga.signup.started", payload)]) == [True]
    except BrokerUnavailable:
        return False


def delete_stream(server: NatsServer) -> None:
    async def run() -> None:
        async with await nats.connect(server.url) as client:
            await client.jetstream().delete_stream(STREAM)

    asyncio.run(run())


def test_a_stream_that_is_deleted_is_made_again_and_known_to_be_another(
    nats_server: NatsServer, connected: Broker, handled: Handled
) -> None:
    assert publish(connected, "1", b"before")
    eventually(lambda: handled.payloads() == [b"before"])
    before = connected.since()
    delete_stream(nats_server)
    eventually(lambda: connected.since() > before)
    eventually(lambda: publish(connected, "1", b"after"))
    eventually(lambda: handled.payloads() == [b"before", b"after"])


def test_an_event_on_which_the_handler_fails_is_parked_in_the_end(connected: Broker, handled: Handled) -> None:
    publish(connected, "1", b"poison")
    letter = eventually(lambda: connected.dead_letters(10))[0]
    assert (letter["subject"], letter["message"]) == ("saga.signup.started", "it fails: KeyError")
    assert handled.payloads() == [b"poison", b"poison"]


def test_a_dead_letter_on_which_the_handler_fails_is_let_go(
    nats_server: NatsServer, connected: Broker, handled: Handled
) -> None:
    watching = Broker(nats_server.url, "watching", ack_wait=2.0)
    watching.consume("watching", [f"{DEAD}>"], handled, stream=DEAD_STREAM)
    watching.open()
    publish(connected, "1", b"poison")
    eventually(lambda: [each.subject for each in handled.seen].count("dead.saga.signup.started") == 2)
    publish(connected, "2", b"fine")
    eventually(lambda: b"fine" in handled.payloads())
    assert len(connected.dead_letters(10)) == 1
    watching.close()


def test_an_event_that_is_too_large_holds_back_no_other(connected: Broker, handled: Handled) -> None:
    large = b"x" * (9 << 20)
    told = connected.publish([("1", "saga.signup.started", large), ("2", "saga.signup.started", b"small")])
    assert told == [False, True]
    eventually(lambda: handled.payloads() == [b"small"])


def test_an_event_as_large_as_a_start_may_be_is_published(connected: Broker, handled: Handled) -> None:
    assert publish(connected, "1", b"x" * (1 << 20))
    eventually(lambda: [len(payload) for payload in handled.payloads()] == [1 << 20])


def test_publishing_leaves_nothing_behind(connected: Broker) -> None:
    publish(connected, "0", b"first")
    before = len(connected._client._subs)
    for number in range(1, 6):
        assert publish(connected, str(number), b"more")
    assert len(connected._client._subs) == before


def test_deliveries_in_one_line_are_handled_in_order_and_hold_up_no_other_line(
    connected: Broker, handled: Handled
) -> None:
    """The first in line one waits for line two."""
    events = [f"{line} {number}" for number in range(5) for line in ("one", "two")]
    connected.publish([(event, "saga.signup.started", event.encode()) for event in events])
    eventually(lambda: len(handled.seen) == len(events))
    for line in ("one", "two"):
        assert [name for name in handled.payloads() if name.decode().startswith(line)] == [
            f"{line} {number}".encode() for number in range(5)
        ]
