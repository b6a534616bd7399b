"""The broker of choreographed sagas: NATS JetStream, whose client (asyncio) runs on a thread of its own here.

At least once, with explicit acknowledgements: an event is delivered again until whoever handles it says that it is
done with it, or parks it as a dead letter. https://docs.nats.io/nats-concepts/jetstream
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

from saga.dead_letter import DEAD, DEAD_STREAM, WITHOUT, headers_of, shown, too_large
from saga.errors import BadInput, BrokerUnavailable, NoSuchLetter

logger = logging.getLogger("saga")

STREAM, SUBJECTS = "SAGA", "saga.>"
KEPT = 7 * 86_400.0  # seconds that events are kept: a choreographed saga must end within them
KNOWN_IDS = 120.0  # seconds that the broker knows an event's id
AT_ONCE = 24  # events handled at once, by each consumer
HELD = 64  # threads beside them, for those that outlasted their time-out
DELIVERED_AT_MOST = 5000  # not yet acknowledged
ANSWERS_WITHIN = 5.0  # seconds
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


@dataclass(frozen=True)
class Reaction:
    """What becomes of a delivery: done with it, or again after so many seconds, or parked for a reason."""

    again: float | None = None
    park: str | None = None


ACK = Reaction()


class Handler(Protocol):
    """Who handles deliveries, each on a thread."""

    def patience(self, subject: str) -> float:
        """Seconds that handling it may take."""

    def line(self, subject: str, payload: bytes) -> str | None:
        """Deliveries that stand in the same line are handled one after the other, as they came; None: in none."""

    def handle(self, delivery: Delivery) -> Reaction:
        """Handle it."""

    def overslept(self, delivery: Delivery) -> Reaction:
        """What to do where `handle` has taken longer, and still runs."""


@dataclass(frozen=True)
class _Consumer:
    durable: str
    stream: str
    subjects: Sequence[str]
    handler: Handler


class Broker:
    """A process's connection to the broker: reconnects by itself, for as long as it takes."""

    def __init__(self, url: str, name: str, ack_wait: float):
        self._servers = url.split(",")
        self._name = name
        self._ack_wait = ack_wait  # seconds after which a silent handler's events go to another
        self._consumers: list[_Consumer] = []
        self._client = Client()
        self._stream = self._client.jetstream()
        self._since = 0.0
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(AT_ONCE + HELD, thread_name_prefix="event")
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._lines: dict[tuple[str, str], asyncio.Task[Any]] = {}  # the last delivery in each
        self._away = False
        self._closing = False  # then nobody need be told that the connection ends
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def consume(self, durable: str, subjects: Sequence[str], handler: Handler, stream: str = STREAM) -> None:
        """Let `handler` handle what is published on `subjects`, in turns with all who consume as `durable`."""
        self._consumers.append(_Consumer(durable, stream, subjects, handler))

    def open(self) -> None:
        """Connect, in the background."""
        self._thread.start()

    def close(self) -> None:
        """Let go; what is being handled is delivered again, to another."""
        self._closing = True
        if self._thread.is_alive():
            with suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(2)
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join(timeout=2)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def publish(self, events: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """Publish (id, subject, payload) in this order; gives which are durable at the broker. BrokerUnavailable.

        One that is larger than the broker takes is parked instead, without what it carries.
        """
        return self._ask(self._publish(events))

    def since(self) -> float:
        """When the stream was made, in seconds since the epoch; 0 before it has been seen."""
        return self._since

    def tell(self, id: str, subject: str, payload: bytes) -> None:
        """Publish something that may be lost."""

        async def publish() -> None:
            with suppress(NatsError, OSError):
                await self._client.publish(subject, payload, headers={"Nats-Msg-Id": id})

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

    def _ask(self, work: Coroutine[Any, Any, T]) -> T:
        if not self._client.is_connected:
            work.close()
            raise BrokerUnavailable("the broker (NATS_URL) does not answer")
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(2 * ANSWERS_WITHIN)
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
            callback = partial(self._received, consumer)
            await self._client.subscribe(_delivered_to(consumer), queue=consumer.durable, cb=callback)
        while True:  # somebody may delete a stream, or a consumer, while we are connected
            if self._client.is_connected:
                await self._returned()
            await asyncio.sleep(LOOK)

    def _end(self) -> None:
        """Whoever still waits is told to stop, or the loop's end would complain of it."""
        for task in self._tasks:
            task.cancel()
        self._loop.call_soon(self._loop.stop)

    async def _troubled(self, error: Exception) -> None:
        if not self._away and not self._closing and not self._client.is_connected:
            self._away = True
            logger.warning("broker_away: %s; events wait in the outbox", type(error).__name__)

    async def _left(self) -> None:
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
                await stream.stream_info(name)
            except NotFoundError:
                with suppress(BadRequestError):  # another process was quicker
                    await stream.add_stream(
                        StreamConfig(
                            name,
                            subjects=[subjects],
                            storage=StorageType.FILE,
                            max_age=kept,
                            duplicate_window=KNOWN_IDS,
                        )
                    )
        for consumer in self._consumers:
            config = ConsumerConfig(
                durable_name=consumer.durable,
                filter_subjects=list(consumer.subjects),
                deliver_subject=_delivered_to(consumer),
                deliver_group=consumer.durable,
                ack_policy=AckPolicy.EXPLICIT,
                ack_wait=self._ack_wait,
                max_ack_pending=DELIVERED_AT_MOST,
            )
            await stream.add_consumer(consumer.stream, config)
        made = (await stream.stream_info(STREAM)).created
        self._since = made.timestamp() if made else 0.0

    async def _received(self, consumer: _Consumer, message: Msg) -> None:
        line = consumer.handler.line(message.subject, message.data)
        if line is None:
            self._spawn(self._deliver(consumer, message, None))
            return
        key = consumer.durable, line
        task = self._spawn(self._deliver(consumer, message, self._lines.get(key)))
        self._lines[key] = task
        task.add_done_callback(partial(self._left_line, key))

    def _left_line(self, key: tuple[str, str], task: asyncio.Task[Any]) -> None:
        if self._lines.get(key) is task:
            del self._lines[key]

    async def _deliver(self, consumer: _Consumer, message: Msg, before: asyncio.Task[Any] | None) -> None:
        metadata = message.metadata
        headers = dict(message.headers or {})
        number, sequence = metadata.num_delivered or 1, metadata.sequence.stream
        delivery = Delivery(message.subject, message.data, number, sequence, headers, metadata.timestamp.timestamp())
        alive = self._loop.create_task(self._keep(message))
        try:
            if before:
                await asyncio.wait({before})
            async with self._slots:
                reaction = await self._handled(consumer, delivery)
            with suppress(NatsError, OSError, asyncio.TimeoutError):  # else it is delivered again
                if reaction.park is not None:
                    await self._park(consumer, delivery, reaction.park)
                if reaction.again is not None:
                    await message.nak(max(reaction.again, 0.001))
                else:
                    await message.ack()
        finally:
            alive.cancel()

    async def _handled(self, consumer: _Consumer, delivery: Delivery) -> Reaction:
        handler = consumer.handler
        patience = handler.patience(delivery.subject)
        for handle in (handler.handle, handler.overslept):
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

    async def _publish(self, events: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        stream = self._stream
        sent: list[asyncio.Future[Any]] = []
        for id, subject, payload in events:
            headers = {"Nats-Msg-Id": id}
            if len(payload) + HEADERS > self._client.max_payload:  # it must not hold back the others
                logger.error("event_too_large event_id=%s bytes=%d", id, len(payload))
                subject, payload, headers = too_large(self._name, id, subject, payload, self._client.max_payload)
            sent.append(await stream.publish_async(subject, payload, headers=headers))
        if sent:
            await asyncio.wait(sent, timeout=ANSWERS_WITHIN)
        for future in sent:
            if not future.done():
                future.cancel()
        return [not future.cancelled() and not future.exception() for future in sent]

    async def _park(self, consumer: _Consumer, delivery: Delivery, reason: str) -> None:
        headers = headers_of(consumer.durable, delivery.number, reason)
        headers["Nats-Msg-Id"] = f"{consumer.durable}:{delivery.sequence}"
        await self._stream.publish(DEAD + delivery.subject, delivery.payload, headers=headers)
        logger.error("event_parked subject=%s reason=%s", delivery.subject, headers["Saga-Reason"])

    async def _dead_letters(self, most: int) -> list[dict[str, Any]]:
        """Looked for in ever longer stretches of numbers, from the last one back: most of them may be gone."""
        state = (await self._stream.stream_info(DEAD_STREAM)).state
        found: list[dict[str, Any]] = []
        upper, stretch = state.last_seq + 1, most
        while len(found) < min(most, state.messages) and upper > state.first_seq:
            lower = max(state.first_seq, upper - stretch)
            found = [*await self._letters_between(lower, upper), *found]
            upper, stretch = lower, 2 * stretch
        return found[::-1][:most]

    async def _letters_between(self, lower: int, upper: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        with suppress(NotFoundError):  # there is none from here on
            while lower < upper:
                message = await self._stream.get_msg(DEAD_STREAM, lower, subject=f"{DEAD}>", next=True)
                lower = (message.seq or lower) + 1
                if lower <= upper:
                    found.append(shown(message))
        return found

    async def _count_dead_letters(self) -> int:
        return (await self._client.jetstream().stream_info(DEAD_STREAM)).state.messages

    async def _replay(self, letter: int) -> dict[str, Any]:
        stream = self._stream
        try:
            message = await stream.get_msg(DEAD_STREAM, letter)
        except NotFoundError:
            raise NoSuchLetter(f"there is no dead letter {letter}") from None
        if WITHOUT in (message.headers or {}):
            raise BadInput(f"dead letter {letter} is without what it carried: {shown(message)['message']}")
        subject = (message.subject or "").removeprefix(DEAD)
        await stream.publish(subject, message.data or b"", headers={"Nats-Msg-Id": f"replay:{letter}"})
        await stream.delete_msg(DEAD_STREAM, letter)
        return {"letter": letter, "subject": subject, "payload": message.data or b""}


def _failed(consumer: _Consumer, delivery: Delivery, error: Exception) -> Reaction:
    """A bug, or an event that nobody could foresee: it must not come back for ever."""
    if delivery.number < FAILURES:
        return Reaction(again=1.0)
    return Reaction(park=f"it fails: {type(error).__name__}") if consumer.stream == STREAM else ACK


def _delivered_to(consumer: _Consumer) -> str:
    return f"deliver.{consumer.stream}.{consumer.durable}"
