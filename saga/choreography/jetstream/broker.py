"""The Broker on NATS JetStream: the one class of this folder that others use."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from saga.choreography.broker import ANSWERS_WITHIN, EVENTS_AT_ONCE, FAILURES, STREAM, Consumer, ConsumerStatus, Handler
from saga.choreography.jetstream.connection import Connection
from saga.choreography.jetstream.consuming import Consuming
from saga.choreography.jetstream.publishing import Publishing
from saga.choreography.jetstream.streams import Streams

STREAMS_LOOK_EVERY = 5.0  # seconds between two looks whether the streams and the consumers are there
SEARCHED_WITHIN = 30.0  # seconds for an answer for which many events have to be looked through


class NatsBroker:
    """A Broker on NATS JetStream. It reconnects by itself, for as long as it takes."""

    def __init__(
        self,
        url: str,
        name: str,
        ack_wait: float,
        prefix: str = "",
        *,
        at_once: int = EVENTS_AT_ONCE,
        failures: int = FAILURES,
        look_every: float = STREAMS_LOOK_EVERY,
    ):
        self._connection = connection = Connection(url, name, prefix, look_every)
        self._streams = Streams(connection, ack_wait, self._on_new_stream)
        self._consuming = Consuming(connection, ack_wait, at_once, failures, self._streams.next_abandoned)
        publishing = Publishing(connection, name)
        self.publish = publishing.publish
        self.park = publishing.park
        self.publish_unconfirmed = publishing.publish_unconfirmed
        connection.on_first_connect = self._consuming.start
        connection.on_connect = self._declare
        connection.on_disconnect = self._consuming.disconnected

    def consume(
        self,
        durable: str,
        subjects: Sequence[str],
        handler: Handler,
        stream: str = STREAM,
        abandonable: Collection[str] = (),
    ) -> None:
        """See Broker.consume."""
        self._consuming.consumers.append(Consumer(durable, stream, subjects, handler, abandonable))

    def open(self) -> None:
        """See Broker.open."""
        self._connection.open()

    def close(self) -> None:
        """See Broker.close."""
        self._connection.close()
        self._consuming.close()

    def created_at(self) -> float:
        """See Broker.created_at."""
        return self._streams.created_at

    def consumers(self, seconds: float = 2 * ANSWERS_WITHIN) -> list[ConsumerStatus]:
        """See Broker.consumers."""
        return self._connection.ask(self._streams.consumers(), seconds)

    def has_event(self, saga_id: str, subject: str, since: float, upto: int) -> bool:
        """See Broker.has_event."""
        return self._connection.ask(self._streams.has_event(saga_id, subject, since, upto), SEARCHED_WITHIN)

    def dead_letters(self, most: int) -> list[dict[str, Any]]:
        """See Broker.dead_letters."""
        return self._connection.ask(self._streams.dead_letters(most))

    def count_dead_letters(self) -> int:
        """See Broker.count_dead_letters."""
        return self._connection.ask(self._streams.count_dead_letters())

    def replay(self, letter: int) -> dict[str, Any]:
        """See Broker.replay."""
        return self._connection.ask(self._streams.replay(letter))

    async def _declare(self) -> None:
        await self._streams.declare(self._consuming.consumers)

    def _on_new_stream(self) -> None:
        self._consuming.abandoned.start_again()
