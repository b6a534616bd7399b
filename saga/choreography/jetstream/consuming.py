"""How events are consumed from JetStream: each delivery is handled on a thread, and its reaction sent to the broker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from saga.choreography.abandoned_sagas import AbandonedSagas
from saga.choreography.broker import RETRY_AFTER, Consumer, Delivery, Reaction, on_failure
from saga.choreography.dead_letter import DEAD, headers_of
from saga.choreography.jetstream.connection import Connection
from saga.choreography.jetstream.pulling import REST, Puller

logger = logging.getLogger("saga")

HELD = 64  # threads for handlers that outlasted their time-out, beside those for the events that are handled at once

NextAbandoned = Callable[[int], Awaitable[tuple[int, bytes] | None]]


class Consuming:
    """Delivers events to the handlers of one process's consumers. All but `close` runs on the event loop."""

    def __init__(
        self, connection: Connection, ack_wait: float, at_once: int, failures: int, next_abandoned: NextAbandoned
    ):
        self.consumers: list[Consumer] = []
        self.abandoned = AbandonedSagas(next_abandoned)
        self._connection = connection
        self._names = connection.names
        self._ack_wait = ack_wait  # seconds
        self._at_once = at_once
        self._failures = failures
        self._pool = ThreadPoolExecutor(at_once + HELD, thread_name_prefix="event")
        self._pullers: list[Puller] = []
        self._latest: dict[tuple[str, str], asyncio.Task[Any]] = {}  # by (consumer, ordering key)

    async def start(self) -> None:
        """Begin to pull the events of every consumer."""
        for consumer in self.consumers:
            stream, durable = self._names.name(consumer.stream), self._names.name(consumer.durable)
            puller = Puller(
                self._connection.client,
                f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}",
                self._at_once,
                partial(self._received, consumer),
                self._connection.spawn,
            )
            await puller.open()
            self._pullers.append(puller)
            self._connection.spawn(puller.look())

    def disconnected(self) -> None:
        """Forget every request for events, as the connection was lost."""
        for puller in self._pullers:
            puller.forget()

    def close(self) -> None:
        """Handle nothing more; handlers that run are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _received(self, consumer: Consumer, message: Msg) -> asyncio.Task[Any]:
        ordering_key = consumer.handler.ordering_key(self._names.plain(message.subject), message.data)
        if ordering_key is None:
            return self._connection.spawn(self._deliver(consumer, message, None))
        key = consumer.durable, ordering_key
        task = self._connection.spawn(self._deliver(consumer, message, self._latest.get(key)))
        self._latest[key] = task
        task.add_done_callback(partial(self._delivered, key))
        return task

    def _delivered(self, key: tuple[str, str], task: asyncio.Task[Any]) -> None:
        if self._latest.get(key) is task:
            del self._latest[key]

    async def _deliver(self, consumer: Consumer, message: Msg, before: asyncio.Task[Any] | None) -> None:
        """Handle a delivery, after the one `before` it with the same ordering key, and tell the broker the reaction."""
        delivery = self._delivery(message)
        extending = self._connection.loop.create_task(self._extend_ack_deadline(message))
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
            extending.cancel()

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
        """Ask the broker after the delivery, for as long as it takes: nobody may act before it is known."""
        while True:
            try:
                return await self.abandoned.has(delivery.payload)
            except (TimeoutError, NatsError, OSError):
                await asyncio.sleep(REST)

    async def _handled(self, consumer: Consumer, delivery: Delivery) -> Reaction:
        """Return the handler's reaction; where it takes longer than its time-out, what it decides about that."""
        handler = consumer.handler
        timeout = handler.timeout_for(delivery.subject)
        for handle in (handler.handle, handler.on_timeout):
            running = self._connection.loop.run_in_executor(self._pool, handle, delivery)
            done, _ = await asyncio.wait({running}, timeout=timeout)
            if done:
                try:
                    return running.result()
                except Exception as error:  # whatever a handler raises: its thread and its consumer go on
                    logger.exception("event_failed subject=%s", delivery.subject)
                    return on_failure(consumer, delivery, error, self._failures)
        return Reaction(again=RETRY_AFTER)

    async def _extend_ack_deadline(self, message: Msg) -> None:
        """Tell the broker, again and again, that the event is being handled: else it delivers it to another process."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            with suppress(NatsError, OSError):
                await message.in_progress()

    async def _park(self, consumer: Consumer, delivery: Delivery, reason: str, attempts: int | None) -> None:
        headers = headers_of(consumer.durable, attempts or delivery.before + delivery.number, reason)
        headers["Nats-Msg-Id"] = f"{consumer.durable}:{delivery.sequence}"
        subject = self._names.subject(DEAD + delivery.subject)
        await self._connection.stream.publish(subject, delivery.payload, headers=headers)
        logger.error("event_parked subject=%s reason=%s", delivery.subject, headers["Saga-Reason"])
