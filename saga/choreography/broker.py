"""The broker of choreographed sagas: NATS JetStream, whose client (asyncio) runs on a thread of its own here.

At least once, with explicit acknowledgements: an event is delivered again until whoever handles it says that it is
done with it, or parks it as a dead letter. https://docs.nats.io/nats-concepts/jetstream
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Collection, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    RawStreamMsg,
    StorageType,
    StreamConfig,
)
from nats.js.errors import BadRequestError, NotFoundError

from saga.choreography.abandoned import Abandoned
from saga.choreography.dead_letter import (
    DEAD,
    DEAD_STREAM,
    WITHOUT,
    attempts_before,
    fits,
    headers_of,
    instead,
    misfit,
    replayed,
    shown,
)
from saga.choreography.event_body import saga_id_of
from saga.choreography.events import PREFIX, EventKind
from saga.choreography.namespace import Namespace
from saga.choreography.pulling import REST, Puller
from saga.errors import BadInput, BrokerUnavailable, NoSuchLetter

logger = logging.getLogger("saga")

STREAM, SUBJECTS = "SAGA", "saga.>"
KEPT = 7 * 86_400.0  # seconds that events are kept: a choreographed saga must end within them
KNOWN_IDS = 120.0  # seconds that the broker knows an event's id
AT_ONCE = 24  # events that each consumer of a process handles at once: no more are delivered to it
HELD = 64  # threads beside them, for those that outlasted their time-out
DELIVERED_AT_MOST = 5000  # not yet acknowledged
ANSWERS_WITHIN = 5.0  # seconds
SEARCHED_WITHIN = 30.0  # ... where it has to look through many events
PAGE = 256  # consumers that it names at once
HEADERS = 1000  # bytes at the most
LOOK = 5.0  # seconds between two looks whether the streams and the consumers are there
FAILURES = 20  # of a handler, on one event, before it is parked

T = TypeVar("T")


@dataclass(frozen=True)
class Delivery:
    """An event as it arrived; `number` counts how often it has."""

    subject: str
    payload: bytes
    number: int
    sequence: int  # in its stream
    headers: dict[str, str]
    at: float = 0.0  # when the stream stored it, in seconds since the epoch
    abandoned: bool = False  # an operator has abandoned its saga; only known where it was asked for

    @property
    def before(self) -> int:
        """How many attempts there were at it before it was parked, and an operator let it be published again."""
        return attempts_before(self.headers)


@dataclass(frozen=True)
class Reaction:
    """What becomes of a delivery: done with it, or again after so many seconds, or parked for a reason.

    `attempts`: how many there were when it is parked, where that is not the number of its deliveries.
    """

    again: float | None = None
    park: str | None = None
    attempts: int | None = None


ACK = Reaction()


class Handler(Protocol):
    """Who handles deliveries, each on a thread."""

    def timeout_for(self, subject: str) -> float:
        """Seconds that handling it may take."""

    def ordering_key(self, subject: str, payload: bytes) -> str | None:
        """Deliveries that stand in the same line are handled one after the other, as they came; None: in none."""

    def handle(self, delivery: Delivery) -> Reaction:
        """Handle it."""

    def on_timeout(self, delivery: Delivery) -> Reaction:
        """What to do where `handle` has taken longer, and still runs."""


@dataclass(frozen=True)
class _Consumer:
    durable: str
    stream: str
    subjects: Sequence[str]
    handler: Handler
    abandonable: Collection[str]


@dataclass(frozen=True)
class ConsumerStatus:
    """Who listens to a stream, as the broker knows it, whether or not a process of it is up."""

    durable: str
    subjects: Sequence[str]
    delivered: int  # the highest number of an event in the stream that it has got


class Broker:
    """A process's connection to the broker: reconnects by itself, for as long as it takes."""

    def __init__(self, url: str, name: str, ack_wait: float, prefix: str = ""):
        self._servers = url.split(",")
        self._name = name
        self._names = Namespace(prefix)
        self._ack_wait = ack_wait  # seconds after which a silent handler's events go to another
        self._consumers: list[_Consumer] = []
        self._client = Client()
        self._stream = self._client.jetstream()
        self._since = 0.0
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(AT_ONCE + HELD, thread_name_prefix="event")
        self._pullers: list[Puller] = []
        self._abandoned = Abandoned(self._next_abandoned)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lines: dict[tuple[str, str], asyncio.Task[Any]] = {}  # the last delivery in each
        self._away = False
        self._closing = False  # then nobody need be told that the connection ends
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def consume(
        self,
        durable: str,
        subjects: Sequence[str],
        handler: Handler,
        stream: str = STREAM,
        abandonable: Collection[str] = (),
    ) -> None:
        """Let `handler` handle what is published on `subjects`, in turns with all who consume as `durable`.

        `abandonable`: those of the subjects whose deliveries say whether an operator has abandoned their saga.
        """
        self._consumers.append(_Consumer(durable, stream, subjects, handler, abandonable))

    def open(self) -> None:
        """Connect, in the background."""
        self._thread.start()

    def close(self) -> None:
        """Let go; what is being handled is delivered again, to another."""
        self._closing = True
        if self._thread.is_alive():
            with suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(2)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(timeout=2)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _end(self) -> None:
        with suppress(Exception):
            await self._client.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def publish(self, events: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """Publish (id, subject, payload) in this order; gives which are durable at the broker. BrokerUnavailable.

        One that can never be published, for what it is, is parked instead, without what it carries: it is larger than
        the broker takes, or no event at all.
        """
        return self._ask(self._publish([self._fitting(*event) for event in events]))

    def park(self, id: str, subject: str, payload: bytes, reason: str) -> bool:
        """Let a dead letter, without what it carried, say why an event is not published. BrokerUnavailable."""
        logger.error("event_not_published service=%s reason=%s", self._name, reason)
        return self._ask(self._publish([instead(self._name, id, subject, payload, reason)])) == [True]

    def _fitting(self, id: str, subject: str, payload: bytes) -> tuple[str, bytes, dict[str, str]]:
        """(subject, payload, headers) of an event, or of the dead letter that is published instead of it."""
        if len(payload) + HEADERS > self._client.max_payload or not fits(id, subject):
            reason = misfit(self._name, id, subject, payload, self._client.max_payload)
            logger.error("event_not_published service=%s reason=%s", self._name, reason)
            return instead(self._name, id, subject, payload, reason)
        return subject, payload, {"Nats-Msg-Id": id}

    def listening(self, seconds: float = 2 * ANSWERS_WITHIN) -> list[ConsumerStatus]:
        """Who listens to the sagas' events. BrokerUnavailable, where it is not told within so many seconds."""
        return self._ask(self._listening(), seconds)

    def has_event(self, saga_id: str, subject: str, since: float, upto: int) -> bool:
        """Whether an event of a saga on `subject`, stored since a time, is among the first `upto` of the stream.

        BrokerUnavailable.
        """
        return self._ask(self._has_event(saga_id, subject, since, upto), SEARCHED_WITHIN)

    def since(self) -> float:
        """When the stream was made, in seconds since the epoch; 0 before it has been seen."""
        return self._since

    def tell(self, id: str, subject: str, payload: bytes) -> None:
        """Publish something that may be lost."""

        async def publish() -> None:
            with suppress(NatsError, OSError):
                await self._client.publish(self._names.subject(subject), payload, headers={"Nats-Msg-Id": id})

        if self._client.is_connected:
            self._loop.call_soon_threadsafe(self._spawn, publish())

    def dead_letters(self, most: int) -> list[dict[str, Any]]:
        """The parked events, newest first, without what they carry. BrokerUnavailable."""
        return self._ask(self._dead_letters(most))

    def count_dead_letters(self) -> int:
        """How many events are parked. BrokerUnavailable."""
        return self._ask(self._count_dead_letters())

    def replay(self, letter: int) -> dict[str, Any]:
        """Publish a parked event again, and forget that it was parked. NoSuchLetter, BadInput, BrokerUnavailable."""
        return self._ask(self._replay(letter))

    def _ask(self, work: Coroutine[Any, Any, T], seconds: float = 2 * ANSWERS_WITHIN) -> T:
        if not self._client.is_connected:
            work.close()
            raise BrokerUnavailable("the broker (NATS_URL) does not answer")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except (TimeoutError, NatsError, OSError, FutureTimeout) as error:
            future.cancel()
            raise BrokerUnavailable(f"the broker does not answer: {type(error).__name__}") from error

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._spawn(self._connect())
        self._loop.run_forever()

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _connect(self) -> None:
        while not self._client.is_connected:
            try:
                await self._client.connect(
                    self._servers,
                    name=self._name,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=2,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._troubled,
                    disconnected_cb=self._left,
                    reconnected_cb=self._returned,
                )
            except (TimeoutError, NatsError, OSError) as error:
                await self._troubled(error)
                await asyncio.sleep(0.5)
        for consumer in self._consumers:
            asks = f"$JS.API.CONSUMER.MSG.NEXT.{self._names.name(consumer.stream)}.{self._names.name(consumer.durable)}"
            puller = Puller(self._client, asks, AT_ONCE, partial(self._received, consumer), self._spawn)
            await puller.open()
            self._pullers.append(puller)
            self._spawn(puller.look())
        while True:  # somebody may delete a stream, or a consumer, while we are connected
            if self._client.is_connected:
                await self._returned()
            await asyncio.sleep(LOOK)

    async def _troubled(self, error: Exception) -> None:
        if not self._away and not self._closing and not self._client.is_connected:
            self._away = True
            logger.warning("broker_away: %s; events wait in the outbox", type(error).__name__)

    async def _left(self) -> None:
        for puller in self._pullers:
            puller.forget()
        await self._troubled(ConnectionError())

    async def _returned(self) -> None:
        """Connected: see to it that the streams and consumers are there."""
        self._away = False
        while self._client.is_connected:
            try:
                await self._declare()
                return
            except (TimeoutError, NatsError, OSError) as error:
                if not self._closing:
                    logger.warning("broker_not_ready: %s", error)
                await asyncio.sleep(0.5)

    async def _declare(self) -> None:
        stream = self._stream
        for name, subjects, kept in ((STREAM, SUBJECTS, KEPT), (DEAD_STREAM, f"{DEAD}>", 0)):
            try:
                await stream.stream_info(self._names.name(name))
            except NotFoundError:
                with suppress(BadRequestError):  # another process was quicker
                    await stream.add_stream(
                        StreamConfig(
                            self._names.name(name),
                            subjects=[self._names.subject(subjects)],
                            storage=StorageType.FILE,
                            max_age=kept,
                            duplicate_window=KNOWN_IDS,
                        )
                    )
        made = (await stream.stream_info(self._names.name(STREAM))).created
        since = made.timestamp() if made else 0.0
        if since != self._since:  # its events are numbered from 1 again
            self._abandoned.start_again()
        for consumer in self._consumers:
            await self._declare_consumer(consumer)
        self._since = since

    async def _declare_consumer(self, consumer: _Consumer) -> None:
        """See to it that the durable consumer is there, pulls, and hears these subjects.

        One that an earlier version made was sent its events unasked, and cannot be changed: it is made again from the
        first event on that it had not acknowledged. What it had beyond that is delivered once more.
        """
        stream, durable = self._names.name(consumer.stream), self._names.name(consumer.durable)
        wanted = ConsumerConfig(
            durable_name=durable,
            filter_subjects=[self._names.subject(subject) for subject in consumer.subjects],
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait,
            max_ack_pending=DELIVERED_AT_MOST,
        )
        try:
            found = await self._stream.consumer_info(stream, durable)
        except NotFoundError:
            found = None
        if found and found.config.deliver_subject:
            await self._stream.delete_consumer(stream, durable)
            floor = found.ack_floor.stream_seq if found.ack_floor else 0
            wanted = wanted.evolve(deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=floor + 1)
        elif found:
            if _same(found.config, wanted):
                return
            # Where it began cannot be changed, and is said again.
            kept = {"deliver_policy": found.config.deliver_policy, "opt_start_seq": found.config.opt_start_seq}
            wanted = wanted.evolve(**kept)
        await self._stream.add_consumer(stream, wanted)

    def _received(self, consumer: _Consumer, message: Msg) -> asyncio.Task[Any]:
        line = consumer.handler.ordering_key(self._names.plain(message.subject), message.data)
        if line is None:
            return self._spawn(self._deliver(consumer, message, None))
        key = consumer.durable, line
        task = self._spawn(self._deliver(consumer, message, self._lines.get(key)))
        self._lines[key] = task
        task.add_done_callback(partial(self._left_line, key))
        return task

    def _left_line(self, key: tuple[str, str], task: asyncio.Task[Any]) -> None:
        if self._lines.get(key) is task:
            del self._lines[key]

    async def _deliver(self, consumer: _Consumer, message: Msg, before: asyncio.Task[Any] | None) -> None:
        delivery = self._delivery(message)
        alive = self._loop.create_task(self._keep(message))
        try:
            if before:
                await asyncio.wait({before})
            if delivery.subject in consumer.abandonable:
                delivery = replace(delivery, abandoned=await self._is_abandoned(delivery))
            reaction = await self._handled(consumer, delivery)
            with suppress(NatsError, OSError, asyncio.TimeoutError):  # else it is delivered again
                if reaction.park is not None:
                    await self._park(consumer, delivery, reaction.park, reaction.attempts)
                if reaction.again is not None:
                    await message.nak(max(reaction.again, 0.001))
                else:
                    await message.ack()
        finally:
            alive.cancel()

    def _delivery(self, message: Msg) -> Delivery:
        metadata = message.metadata
        return Delivery(
            subject=self._names.plain(message.subject),
            payload=message.data,
            number=metadata.num_delivered or 1,
            sequence=metadata.sequence.stream,
            headers=dict(message.headers or {}),
            at=metadata.timestamp.timestamp(),
        )

    async def _is_abandoned(self, delivery: Delivery) -> bool:
        """Asked of the broker after the delivery, for as long as it takes: nobody may act before it is known."""
        while True:
            try:
                return await self._abandoned.has(delivery.payload)
            except (TimeoutError, NatsError, OSError):
                await asyncio.sleep(REST)

    async def _next_abandoned(self, after: int) -> tuple[int, bytes] | None:
        """The next event after this number of the stream that says that a saga was abandoned."""
        subject = self._names.subject(f"{PREFIX}.*.{EventKind.ABANDONED}")
        with suppress(NotFoundError):
            found = await self._stream.get_msg(self._names.name(STREAM), after + 1, subject=subject, next=True)
            return found.seq or after + 1, found.data or b""
        return None

    async def _handled(self, consumer: _Consumer, delivery: Delivery) -> Reaction:
        handler = consumer.handler
        patience = handler.timeout_for(delivery.subject)
        for handle in (handler.handle, handler.on_timeout):
            running = self._loop.run_in_executor(self._pool, handle, delivery)
            done, _ = await asyncio.wait({running}, timeout=patience)
            if done:
                try:
                    return running.result()
                except Exception as error:
                    logger.exception("event_failed subject=%s", delivery.subject)
                    return _failed(consumer, delivery, error)
        return Reaction(again=1.0)

    async def _keep(self, message: Msg) -> None:
        """Tell the broker that somebody is at work on it."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            with suppress(NatsError, OSError):
                await message.in_progress()

    async def _publish(self, events: Sequence[tuple[str, bytes, dict[str, str]]]) -> list[bool]:
        sent: list[asyncio.Future[Any]] = []
        for subject, payload, headers in events:
            sent.append(await self._stream.publish_async(self._names.subject(subject), payload, headers=headers))
        if sent:
            await asyncio.wait(sent, timeout=ANSWERS_WITHIN)
        for future in sent:
            if not future.done():
                future.cancel()
        return [not future.cancelled() and not future.exception() for future in sent]

    async def _listening(self) -> list[ConsumerStatus]:
        found: list[ConsumerInfo] = []
        while page := await self._stream.consumers_info(self._names.name(STREAM), offset=len(found)):
            found += page
            if len(page) < PAGE:
                break
        return [self._seen(consumer) for consumer in found]

    def _seen(self, consumer: ConsumerInfo) -> ConsumerStatus:
        config = consumer.config
        subjects = config.filter_subjects or [config.filter_subject or ">"]
        delivered = consumer.delivered.stream_seq if consumer.delivered else 0
        plain = [self._names.plain(subject) for subject in subjects]
        return ConsumerStatus(self._names.plain_name(consumer.name), plain, delivered)

    async def _has_event(self, saga_id: str, subject: str, since: float, upto: int) -> bool:
        name, wire = self._names.name(STREAM), self._names.subject(subject)
        number = await self._first_since(since, upto)
        with suppress(NotFoundError):
            while number <= upto:
                message = await self._stream.get_msg(name, number, subject=wire, next=True)
                number = (message.seq or number) + 1
                if number <= upto + 1 and saga_id_of(message.data or b"") == saga_id:
                    return True
        return False

    async def _first_since(self, since: float, upto: int) -> int:
        """The number of the first event that was stored at this time or later; one above `upto` where none is."""
        name, wire = self._names.name(STREAM), self._names.subject(SUBJECTS)
        lower, upper = (await self._stream.stream_info(name)).state.first_seq, upto + 1
        while lower < upper:
            middle = (lower + upper) // 2
            message = None
            with suppress(NotFoundError):  # there is none from there on
                message = await self._stream.get_msg(name, middle, subject=wire, next=True)
            if message and message.time and message.time.timestamp() < since:
                lower = (message.seq or middle) + 1
            else:
                upper = middle
        return lower

    async def _park(self, consumer: _Consumer, delivery: Delivery, reason: str, attempts: int | None) -> None:
        headers = headers_of(consumer.durable, attempts or delivery.before + delivery.number, reason)
        headers["Nats-Msg-Id"] = f"{consumer.durable}:{delivery.sequence}"
        subject = self._names.subject(DEAD + delivery.subject)
        await self._stream.publish(subject, delivery.payload, headers=headers)
        logger.error("event_parked subject=%s reason=%s", delivery.subject, headers["Saga-Reason"])

    async def _dead_letters(self, most: int) -> list[dict[str, Any]]:
        """Looked for in ever longer stretches of numbers, from the last one back: most of them may be gone."""
        state = (await self._stream.stream_info(self._names.name(DEAD_STREAM))).state
        found: list[dict[str, Any]] = []
        upper, stretch = state.last_seq + 1, most
        while len(found) < min(most, state.messages) and upper > state.first_seq:
            lower = max(state.first_seq, upper - stretch)
            found = [*await self._letters_between(lower, upper), *found]
            upper, stretch = lower, 2 * stretch
        return found[::-1][:most]

    async def _letters_between(self, lower: int, upper: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        stream, subject = self._names.name(DEAD_STREAM), self._names.subject(f"{DEAD}>")
        with suppress(NotFoundError):  # there is none from here on
            while lower < upper:
                message = await self._stream.get_msg(stream, lower, subject=subject, next=True)
                lower = (message.seq or lower) + 1
                if lower <= upper:
                    found.append(shown(self._plain(message)))
        return found

    async def _count_dead_letters(self) -> int:
        return (await self._client.jetstream().stream_info(self._names.name(DEAD_STREAM))).state.messages

    def _plain(self, message: RawStreamMsg) -> RawStreamMsg:
        message.subject = self._names.plain(message.subject or "")
        return message

    async def _replay(self, letter: int) -> dict[str, Any]:
        stream, dead = self._stream, self._names.name(DEAD_STREAM)
        try:
            message = self._plain(await stream.get_msg(dead, letter))
        except NotFoundError:
            raise NoSuchLetter(f"there is no dead letter {letter}") from None
        if WITHOUT in (message.headers or {}):
            raise BadInput(f"dead letter {letter} is without what it carried: {shown(message)['message']}")
        subject = (message.subject or "").removeprefix(DEAD)
        headers = replayed(letter, message.headers or {})
        await stream.publish(self._names.subject(subject), message.data or b"", headers=headers)
        await stream.delete_msg(dead, letter)
        return {"letter": letter, "subject": subject, "payload": message.data or b""}


def _failed(consumer: _Consumer, delivery: Delivery, error: Exception) -> Reaction:
    """A bug, or an event that nobody could foresee: it must not come back for ever."""
    if delivery.number < FAILURES:
        return Reaction(again=1.0)
    return Reaction(park=f"it fails: {type(error).__name__}") if consumer.stream == STREAM else ACK


def _same(found: ConsumerConfig, wanted: ConsumerConfig) -> bool:
    """Whether a consumer that is there already is as it should be."""
    heard = found.filter_subjects or [found.filter_subject or ">"]
    return (
        sorted(heard) == sorted(wanted.filter_subjects or ())
        and found.ack_wait == wanted.ack_wait
        and found.max_ack_pending == wanted.max_ack_pending
    )
