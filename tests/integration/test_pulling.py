"""Events are pulled, so that only what is begun counts as delivered; several stacks share a broker unseen."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from typing import Any

import nats
import pytest
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig
from sqlalchemy import text

from saga.choreography import outbox
from saga.choreography.abandoned_sagas import AbandonedSagas
from saga.choreography.broker import ACK, Broker, Delivery, Reaction
from saga.choreography.dead_letter import DEAD, DEAD_STREAM
from saga.choreography.events import EventKind, SagaEvent
from saga.choreography.jetstream.broker import NatsBroker
from saga.choreography.memory_broker import MemoryBroker
from saga.choreography.memory_server import MemoryServer
from saga.choreography.namespace import covers
from saga.choreography.outbox import Relay
from saga.errors import BrokerUnavailable
from saga.storage.database import connect, create_tables
from tests.support.nats_server import NatsServer
from tests.support.stack import eventually

SUBJECT = "saga.signup.started"
PLACES = 3


class Holding:
    """A handler that remembers what it was given, and holds each until it is let go."""

    def __init__(self, react: Callable[[Delivery], Reaction] = lambda delivery: ACK) -> None:
        self.seen: list[Delivery] = []
        self.go_on = threading.Event()
        self._react = react

    def timeout_for(self, subject: str) -> float:
        return 60.0

    def ordering_key(self, subject: str, payload: bytes) -> str | None:
        return None

    def handle(self, delivery: Delivery) -> Reaction:
        self.seen.append(delivery)
        self.go_on.wait(30)
        return self._react(delivery)

    def on_timeout(self, delivery: Delivery) -> Reaction:
        raise AssertionError


class Free(Holding):
    """One that holds nothing."""

    def __init__(self, react: Callable[[Delivery], Reaction] = lambda delivery: ACK) -> None:
        super().__init__(react)
        self.go_on.set()


Opened = Callable[..., Broker]


@pytest.fixture(params=["nats", "memory"])
def opened(request: pytest.FixtureRequest) -> Iterator[Opened]:
    """`opened(handler, prefix)`: a process's connection, on which `handler` consumes as A."""
    made: list[Broker] = []
    memory = MemoryServer()

    def make(handler: Holding | None, prefix: str = "", **more: Any) -> Broker:
        connection: Broker
        if request.param == "memory":
            connection = MemoryBroker(memory, "A", at_once=PLACES)
        else:
            url = request.getfixturevalue("nats_server").url
            connection = NatsBroker(url, "A", ack_wait=0.6, prefix=prefix, at_once=PLACES, look_every=0.1)
        if handler:
            connection.consume("A", [SUBJECT], handler, **more)
        connection.open()
        made.append(connection)
        eventually(connection.created_at)
        return connection

    yield make
    for each in made:
        each.close()


on_nats = pytest.mark.parametrize("opened", ["nats"], indirect=True)


def payload(number: int) -> bytes:
    return b'{"saga_id": "saga-%d"}' % number


def publish(to: Broker, *numbers: int) -> None:
    assert all(to.publish([(f"id-{number}", SUBJECT, payload(number)) for number in numbers]))


def at_the_broker(server: NatsServer, work: Callable[[Any], Any]) -> Any:
    async def run() -> Any:
        async with await nats.connect(server.url) as client:
            return await work(client.jetstream())

    return asyncio.run(run())


@on_nats
def test_no_more_is_delivered_than_there_are_places(nats_server: NatsServer, opened: Opened) -> None:
    holding = Holding()
    publish(opened(holding), *range(20))
    eventually(lambda: len(holding.seen) == PLACES)
    info = at_the_broker(nats_server, lambda stream: stream.consumer_info("SAGA", "A"))
    assert (info.num_ack_pending, info.num_pending) == (PLACES, 20 - PLACES)
    holding.go_on.set()
    eventually(lambda: len(holding.seen) == 20)
    assert [delivery.number for delivery in holding.seen] == [1] * 20


def test_events_that_wait_at_a_service_that_dies_again_and_again_use_up_no_attempt(opened: Opened) -> None:
    """Those that were begun do: each death was an attempt at them."""
    first = opened(dying := Holding())
    publish(first, *range(20))
    for death in range(4):
        eventually(lambda handler=dying: len(handler.seen) == PLACES)
        first.close()
        dying.go_on.set()
        dying = Holding()
        if death < 3:
            first = opened(dying)
    opened(survivor := Free())
    eventually(lambda: {delivery.payload for delivery in survivor.seen} == {payload(number) for number in range(20)})
    last = {delivery.payload: delivery.number for delivery in survivor.seen}
    assert sum(number - 1 for number in last.values()) <= 4 * PLACES  # a death costs what was begun an attempt each


def test_places_are_used_again_after_each_kind_of_reaction(opened: Opened) -> None:
    def react(delivery: Delivery) -> Reaction:
        if delivery.number == 1 and delivery.sequence % 3 == 0:
            return Reaction(again=0.01)
        return Reaction(park="no") if delivery.sequence % 3 == 1 else ACK

    to = opened(handler := Free(react))
    publish(to, *range(60))
    eventually(lambda: len(handler.seen) == 80)
    eventually(lambda: to.count_dead_letters() == 20)


@on_nats
def test_an_earlier_versions_consumer_is_made_anew_and_loses_nothing(nats_server: NatsServer, opened: Opened) -> None:
    """It was sent its events, and had acknowledged the first of three."""

    async def before(stream: Any) -> None:
        await stream.add_stream(StreamConfig("SAGA", subjects=["saga.>"]))
        for number in range(3):
            await stream.publish(SUBJECT, payload(number))
        config = ConsumerConfig(
            durable_name="A",
            filter_subjects=[SUBJECT],
            deliver_subject="deliver.SAGA.A",
            deliver_group="A",
            ack_policy=AckPolicy.EXPLICIT,
        )
        await stream.add_consumer("SAGA", config)
        client = stream._nc
        sub = await client.subscribe("deliver.SAGA.A", queue="A")
        message = await sub.next_msg(5)
        await message.ack_sync()

    at_the_broker(nats_server, before)
    opened(handler := Free())
    eventually(lambda: {each.payload for each in handler.seen} >= {payload(1), payload(2)})
    assert payload(0) not in {each.payload for each in handler.seen}
    opened(again := Free())  # the next process finds it as it is
    publish(opened(None), 3)
    eventually(lambda: payload(3) in {each.payload for each in [*handler.seen, *again.seen]})


@on_nats
def test_a_consumer_that_is_deleted_while_it_waits_is_made_again(nats_server: NatsServer, opened: Opened) -> None:
    to = opened(handler := Free())
    publish(to, 1)
    eventually(lambda: len(handler.seen) == 1)
    at_the_broker(nats_server, lambda stream: stream.delete_consumer("SAGA", "A"))
    publish(to, 2)
    eventually(lambda: payload(2) in [delivery.payload for delivery in handler.seen])


@on_nats
def test_a_broker_that_was_away_is_asked_again(nats_server: NatsServer, opened: Opened) -> None:
    to = opened(handler := Free())
    publish(to, 1)
    eventually(lambda: len(handler.seen) == 1)
    nats_server.kill()
    nats_server.start()

    def published() -> bool:
        try:
            return to.publish([("id-2", SUBJECT, payload(2))]) == [True]
        except BrokerUnavailable:
            return False

    eventually(published)
    eventually(lambda: payload(2) in [delivery.payload for delivery in handler.seen])


def test_a_replayed_event_takes_the_number_of_its_attempts_along(opened: Opened) -> None:
    """Parked at its second delivery, replayed, and parked again at the first one after that."""
    to = opened(handler := Free(lambda delivery: Reaction(again=0.01) if delivery.number < 2 else Reaction(park="no")))
    publish(to, 1)
    letter = eventually(lambda: to.dead_letters(1))[0]
    assert letter["attempts"] == 2
    to.replay(letter["letter"])
    eventually(lambda: len(handler.seen) == 4)
    assert [(each.before, each.number) for each in handler.seen] == [(0, 1), (0, 2), (2, 1), (2, 2)]
    assert eventually(lambda: to.dead_letters(1))[0]["attempts"] == 4


@on_nats
def test_two_stacks_with_prefixes_of_their_own_share_a_broker_and_do_not_see_each_other(opened: Opened) -> None:
    handlers = {prefix: Free(lambda delivery: Reaction(park="no")) for prefix in ("", "team-1", "team_2")}
    stacks = {prefix: opened(handler, prefix) for prefix, handler in handlers.items()}
    for number, stack in enumerate(stacks.values()):
        publish(stack, number, number + 10)
    for number, (prefix, handler) in enumerate(handlers.items()):
        eventually(lambda to=stacks[prefix]: to.count_dead_letters() == 2)
        assert sorted(each.payload for each in handler.seen) == sorted([payload(number), payload(number + 10)])
        assert {each.subject for each in handler.seen} == {SUBJECT}
        assert {each["subject"] for each in stacks[prefix].dead_letters(10)} == {SUBJECT}
        assert [(each.durable, list(each.subjects)) for each in stacks[prefix].consumers()] == [("A", [SUBJECT])]
    stacks["team-1"].replay(stacks["team-1"].dead_letters(1)[0]["letter"])
    eventually(lambda: len(handlers["team-1"].seen) == 3)
    eventually(lambda: stacks["team-1"].count_dead_letters() == 2)
    assert [len(handlers[prefix].seen) for prefix in ("", "team_2")] == [2, 2]


@on_nats
def test_without_a_prefix_the_names_are_as_they_always_were(nats_server: NatsServer, opened: Opened) -> None:
    publish(opened(Free()), 1)

    async def look(stream: Any) -> list[Any]:
        return [await stream.stream_info(name) for name in ("SAGA", DEAD_STREAM)]

    assert [info.config.subjects for info in at_the_broker(nats_server, look)] == [["saga.>"], [f"{DEAD}>"]]


def abandon(to: Broker, number: int) -> None:
    body = SagaEvent("signup", f"saga-{number}", EventKind.ABANDONED, None, {})
    assert to.publish([(body.id, body.subject, body.payload())]) == [True]


def test_whoever_gets_an_event_after_its_saga_was_abandoned_knows_it(opened: Opened) -> None:
    """Whatever order they are in the stream: also an event that was published before, and one published late."""
    to = opened(None)
    publish(to, 1, 2)
    abandon(to, 1)
    abandon(to, 3)
    publish(to, 3)
    opened(handler := Free(), abandonable=[SUBJECT])
    eventually(lambda: len(handler.seen) == 3)
    assert {each.payload: each.abandoned for each in handler.seen} == {
        payload(1): True, payload(2): False, payload(3): True
    }  # fmt: skip


def test_whoever_abandons_after_an_event_was_delivered_sees_that(opened: Opened) -> None:
    to = opened(holding := Holding(), abandonable=[SUBJECT])
    publish(to, 1)
    eventually(lambda: holding.seen)
    publish(to, *range(2, 12))  # beyond the places there are

    def has(number: int) -> bool:
        (heard,) = to.consumers()
        return to.has_event(f"saga-{number}", SUBJECT, 0.0, heard.delivered)

    eventually(lambda: has(2))
    assert has(1)
    assert not has(11)
    holding.go_on.set()
    eventually(lambda: has(11))


def test_an_event_that_was_stored_before_a_saga_began_is_not_its_own(opened: Opened) -> None:
    to = opened(handler := Free())
    publish(to, *range(5))
    eventually(lambda: len(handler.seen) == 5)
    assert to.has_event("saga-3", SUBJECT, handler.seen[0].at, 5)
    assert not to.has_event("saga-3", SUBJECT, handler.seen[-1].at + 1, 5)
    assert not to.has_event("saga-3", SUBJECT, 0.0, 3)


def test_those_who_ask_at_the_same_time_share_an_answer_that_was_looked_up_after_they_asked() -> None:
    there: list[bytes] = []
    looks = 0

    async def next_after(number: int) -> tuple[int, bytes] | None:
        nonlocal looks
        looks += 1
        found = (number + 1, there[number]) if number < len(there) else None
        await asyncio.sleep(0)
        return found

    async def run() -> None:
        known = AbandonedSagas(next_after)
        first = asyncio.create_task(known.has(payload(1)))
        await asyncio.sleep(0)  # it has looked, and found nothing
        there.append(payload(1))
        later = [asyncio.create_task(known.has(payload(1))) for _ in range(50)]
        assert not await first
        assert all([await task for task in later])

    asyncio.run(run())
    assert looks <= 4


@pytest.mark.parametrize(
    ("pattern", "subject", "heard"),
    [
        ("saga.signup.started", "saga.signup.started", True),
        ("saga.*.started", "saga.signup.started", True),
        ("saga.>", "saga.signup.B.done", True),
        (">", "saga.signup.B.done", True),
        ("saga.*.started", "saga.signup.B.started", False),
        ("saga.signup", "saga.signup.started", False),
        ("saga.signup.started.>", "saga.signup.started", False),
    ],
)
def test_a_filter_covers_what_the_broker_lets_through(pattern: str, subject: str, heard: bool) -> None:
    assert covers(pattern, subject) is heard


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("payload", "'{broken'", "is not valid JSON"),
        ("payload", "'[1]'", "must be a JSON object"),
        ("payload", "''", "is not valid JSON"),
        ("subject", "'saga..started'", "is no subject"),
        ("subject", "'other.subject'", "is no subject"),
        ("subject", "'saga.signup.*'", "is no subject"),
        ("subject", "'saga signup'", "is no subject"),
    ],
)
def test_a_row_of_an_outbox_that_cannot_be_published_is_parked_and_stops_no_other(
    opened: Opened, database: Callable[[str], str], column: str, value: str, said: str
) -> None:
    to = opened(handler := Free())
    engine = connect(database("service_a"))
    create_tables(engine, outbox.metadata)
    events = [SagaEvent("signup", f"saga-{number}", EventKind.STARTED, None, {}) for number in range(3)]
    outbox.put(engine, *outbox.written(events, engine))
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE saga_outbox SET {column} = {value} WHERE event_id = 'saga-0::started'"))
    relay = Relay(engine, to, name="A")
    relay.round()
    relay.mark()
    eventually(lambda: len(handler.seen) == 2)
    (letter,) = to.dead_letters(10)
    assert said in letter["message"]
    assert "published_at to NULL in the saga_outbox of A where event_id is saga-0::started" in letter["message"]
    assert relay.round() is False  # there is nothing left
    assert to.count_dead_letters() == 1
    engine.dispose()


def test_a_row_that_is_no_text_is_parked_too(opened: Opened, tmp_path: Any) -> None:
    """Which only SQLite stores."""
    to = opened(handler := Free())
    engine = connect(f"sqlite:///{tmp_path}/service_a.db")
    create_tables(engine, outbox.metadata)
    outbox.put(
        engine, *outbox.written([SagaEvent("signup", f"saga-{n}", EventKind.STARTED, None, {}) for n in (0, 1)], engine)
    )
    with engine.begin() as connection:
        connection.execute(text("UPDATE saga_outbox SET payload = CAST(x'ff00fe' AS TEXT) WHERE id = 1"))
    relay = Relay(engine, to, name="A")
    relay.round()
    eventually(lambda: [each.payload for each in handler.seen] == [b'{"saga_id":"saga-1"}'])
    assert to.count_dead_letters() == 1
    engine.dispose()
