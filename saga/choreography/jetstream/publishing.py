"""Publishing events to JetStream, and dead letters instead of those that can never be published."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from nats.errors import Error as NatsError

from saga.choreography.broker import ANSWERS_WITHIN
from saga.choreography.dead_letter import Message, instead, message_of
from saga.choreography.jetstream.connection import Connection

logger = logging.getLogger("saga")


class Publishing:
    """Publishes for one process; `name` says in a dead letter who parked it."""

    def __init__(self, connection: Connection, name: str):
        self._connection = connection
        self._name = name

    def publish(self, events: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """See Broker.publish."""
        most = self._connection.client.max_payload
        return self._connection.ask(self._publish([message_of(self._name, *event, most) for event in events]))

    def park(self, id: str, subject: str, payload: bytes, reason: str) -> bool:
        """See Broker.park."""
        logger.error("event_not_published service=%s reason=%s", self._name, reason)
        return self._connection.ask(self._publish([instead(self._name, id, subject, payload, reason)])) == [True]

    def publish_unconfirmed(self, id: str, subject: str, payload: bytes) -> None:
        """See Broker.publish_unconfirmed."""
        client, loop = self._connection.client, self._connection.loop

        async def publish() -> None:
            with suppress(NatsError, OSError):
                await client.publish(self._connection.names.subject(subject), payload, headers={"Nats-Msg-Id": id})

        if client.is_connected:
            loop.call_soon_threadsafe(self._connection.spawn, publish())

    async def _publish(self, messages: Sequence[Message]) -> list[bool]:
        """Send all messages, then wait for their acknowledgements together."""
        stream, names = self._connection.stream, self._connection.names
        sent: list[asyncio.Future[Any]] = []
        for subject, payload, headers in messages:
            sent.append(await stream.publish_async(names.subject(subject), payload, headers=headers))
        if sent:
            await asyncio.wait(sent, timeout=ANSWERS_WITHIN)
        for future in sent:
            if not future.done():
                future.cancel()
        return [not future.cancelled() and not future.exception() for future in sent]
