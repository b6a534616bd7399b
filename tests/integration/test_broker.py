"""A connection to the broker, NATS or in memory, outlives a stream that is deleted; no event comes back for ever."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nats
import pytest

from saga.choreography import outbox
from saga.choreography.broker import ACK, STREAM, Broker, Delivery, Reaction
from saga.choreography.dead_letter import DEAD, DEAD_STREAM
from saga.choreography.event_body import saga_id_of
from saga.choreography.events import EventKind, SagaEvent
from saga.choreography.jetstream.broker import NatsBroker
from saga.choreography.memory_broker import MemoryBroker
from saga.choreography.memory_server import MemoryServer
from saga.errors import BadInput, BrokerUnavailable
from saga.storage.database import connect, create_tables
from tests.support.nats_server import NatsServer
from tests.support.stack import eventually


class Handled:
    """A handler that remembers what it was given; it fails where the event says so."""

    def __init__(self) -> None:
        self.seen: list[Delivery] = []

    def timeout_for(self, subject: str) -> float:
        return 5.0

    def ordering_key(self, subject: str, payload: bytes) -> str | None:
        return payload.decode().partition(" ")[0] if b" " in payload else None

    def handle(self, delivery: Delivery) -> Reaction:
        if delivery.payload == b"one 0":
            eventually(lambda: self.payloads().count(b"two 0") == 1)
        self.seen.append(delivery)
        if delivery.payload == b"poison":
            raise KeyError("at")
        return ACK

    def on_timeout(self, delivery: Delivery) -> Reaction:
        raise AssertionError

    def payloads(self) -> list[bytes]:
        return [delivery.payload for delivery in self.seen]


@pytest.fixture
def handled() -> Handled:
    return Handled()


@dataclass
class Server:
    """A running broker: how to connect to it, and how to lose its stream of events."""

    connect: Callable[..., Broker]  # (name) -> a connection
    lose_events: Callable[[], None]


@pytest.fixture(params=["nats", "memory"])
def server(request: pytest.FixtureRequest) -> Server:
    if request.param == "memory":
        memory = MemoryServer()
        return Server(lambda name: MemoryBroker(memory, name, failures=2), memory.lose_events)
    nats_server: NatsServer = request.getfixturevalue("nats_server")

    def connect(name: str) -> Broker:
        return NatsBroker(nats_server.url, name, ack_wait=2.0, failures=2, look_every=0.1)

    return Server(connect, lambda: delete_stream(nats_server))


@pytest.fixture
def connected(server: Server, handled: Handled) -> Iterator[Broker]:
    made = server.connect("A")
    made.consume("A", ["saga.signup.started"], handled)
    made.open()
    eventually(made.created_at)
    yield made
    made.close()


on_nats = pytest.mark.parametrize("server", ["nats"], indirect=True)


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
    server: Server, connected: Broker, handled: Handled
) -> None:
    assert publish(connected, "1", b"before")
    eventually(lambda: handled.payloads() == [b"before"])
    before = connected.created_at()
    server.lose_events()
    eventually(lambda: connected.created_at() > before)
    eventually(lambda: publish(connected, "1", b"after"))
    eventually(lambda: handled.payloads() == [b"before", b"after"])


def test_an_event_on_which_the_handler_fails_is_parked_in_the_end(connected: Broker, handled: Handled) -> None:
    publish(connected, "1", b"poison")
    letter = eventually(lambda: connected.dead_letters(10))[0]
    assert (letter["subject"], letter["message"]) == ("saga.signup.started", "it fails: KeyError")
    assert handled.payloads() == [b"poison", b"poison"]


def test_a_dead_letter_on_which_the_handler_fails_is_let_go(
    server: Server, connected: Broker, handled: Handled
) -> None:
    watching = server.connect("watching")
    watching.consume("watching", [f"{DEAD}>"], handled, stream=DEAD_STREAM)
    watching.open()
    publish(connected, "1", b"poison")
    eventually(lambda: [each.subject for each in handled.seen].count("dead.saga.signup.started") == 2)
    publish(connected, "2", b"fine")
    eventually(lambda: b"fine" in handled.payloads())
    assert len(connected.dead_letters(10)) == 1
    watching.close()


def test_an_event_that_is_too_large_is_parked_without_what_it_carries_and_holds_back_no_other(
    connected: Broker, handled: Handled, tmp_path: Path
) -> None:
    """The outbox goes on, and forgets in time: the relay's round does not raise."""
    database = connect(f"sqlite:///{tmp_path}/a.db")
    create_tables(database, outbox.metadata)
    told = [
        SagaEvent("signup", "big", EventKind.STARTED, None, {"fields": {"payment": "x" * (9 << 20)}}),
        SagaEvent("signup", "small", EventKind.STARTED, None, {"fields": {}}),
    ]
    for event in told:
        outbox.put(database, *outbox.written([event], database))
    relay = outbox.Relay(database, connected)
    eventually(lambda: handled.seen or relay.round())
    relay.mark()
    assert not relay.round()
    with database.begin() as connection:
        assert connection.execute(outbox.UNPUBLISHED, {"most": 9}).all() == []
    eventually(lambda: [saga_id_of(payload) for payload in handled.payloads()] == ["small"])
    letter = connected.dead_letters(10)[0]
    assert (letter["subject"], letter["service"]) == ("saga.signup.started", "A")
    assert json.loads(letter["payload"]) == {"saga_id": "big"}
    assert "bytes is too large for the broker: raise its max_payload (8388608)" in letter["message"]
    assert "event_id is big::started" in letter["message"]
    with pytest.raises(BadInput, match="without what it carried"):
        connected.replay(letter["letter"])
    assert connected.count_dead_letters() == 1
    database.dispose()


@on_nats
def test_an_old_dead_letter_is_listed_however_many_after_it_were_replayed(
    nats_server: NatsServer, connected: Broker
) -> None:
    async def run() -> None:
        async with await nats.connect(nats_server.url) as client:
            stream = client.jetstream()
            for number in range(3):
                await stream.publish(f"{DEAD}kept.{number}", b"")
                for _ in range(800):
                    await stream.publish_async(f"{DEAD}gone", b"")
                await stream.publish_async_completed()
            await stream.purge_stream(DEAD_STREAM, subject=f"{DEAD}gone")

    asyncio.run(run())
    assert connected.count_dead_letters() == 3
    for most in (1, 2, 3, 100):
        subjects = [letter["subject"] for letter in connected.dead_letters(most)]
        assert subjects == ["kept.2", "kept.1", "kept.0"][:most]


@on_nats
def test_a_dead_letter_that_others_parked_is_listed_and_its_time_is_written_as_any_other(
    nats_server: NatsServer, connected: Broker
) -> None:
    async def run() -> None:
        async with await nats.connect(nats_server.url) as client:
            await client.jetstream().publish(f"{DEAD}theirs", b"?", headers={"Saga-Deliveries": "many"})

    asyncio.run(run())
    letter = connected.dead_letters(10)[0]
    assert (letter["subject"], letter["attempts"], letter["message"]) == ("theirs", 0, "")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", letter["at"])


def test_an_event_as_large_as_a_start_may_be_is_published(connected: Broker, handled: Handled) -> None:
    assert publish(connected, "1", b"x" * (1 << 20))
    eventually(lambda: [len(payload) for payload in handled.payloads()] == [1 << 20])


@on_nats
def test_publishing_leaves_nothing_behind(connected: Broker) -> None:
    publish(connected, "0", b"first")
    before = len(connected._connection.client._subs)
    for number in range(1, 6):
        assert publish(connected, str(number), b"more")
    assert len(connected._connection.client._subs) == before


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
