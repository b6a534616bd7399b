"""A broker in memory, which does in one process what NATS JetStream does; for tests and for trying things out.

Each MemoryBroker is the connection of one participant to a MemoryServer (memory_server.py), which they share.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import replace
from typing import Any

from saga.choreography.broker import (
    ANSWERS_WITHIN,
    EVENTS_AT_ONCE,
    FAILURES,
    RETRY_AFTER,
    STREAM,
    Consumer,
    ConsumerStatus,
    Delivery,
    Handler,
    Reaction,
    on_failure,
)
from saga.choreography.dead_letter import (
    DEAD,
    DEAD_STREAM,
    WITHOUT,
    instead,
    message_of,
    replayed,
    shown,
)
from saga.choreography.event_body import saga_id_of
from saga.choreography.events import PREFIX, EventKind
from saga.choreography.memory_server import MemoryServer
from saga.choreography.namespace import covers
from saga.errors import BadInput, BrokerUnavailable, NoSuchLetter

logger = logging.getLogger("saga")

REDELIVERY_LOOK_EVERY = 0.02  # seconds between two looks for events that are to be delivered again


class MemoryBroker:
    """A Broker on a MemoryServer, whose handlers run on threads of its own."""

    def __init__(self, server: MemoryServer, name: str, *, at_once: int = EVENTS_AT_ONCE, failures: int = FAILURES):
        self._server = server
        self._name = name
        self._at_once = at_once
        self._failures = failures
        self._consumers: list[Consumer] = []
        self._handling: dict[str, dict[int, Delivery]] = {}  # by consumer, by identity
        self._lines: dict[tuple[str, str], deque[Delivery]] = {}  # by (consumer, ordering key), the current one first
        self._closed = False
        self._threads = ThreadPoolExecutor(thread_name_prefix="delivery", max_workers=4 * at_once)
        self._handlers = ThreadPoolExecutor(thread_name_prefix="event", max_workers=8 * at_once)
        self._dispatcher = threading.Thread(target=self._dispatch, name="broker", daemon=True)

    def consume(
        self,
        durable: str,
        subjects: Sequence[str],
        handler: Handler,
        stream: str = STREAM,
        abandonable: Collection[str] = (),
    ) -> None:
        """See Broker.consume."""
        self._consumers.append(Consumer(durable, stream, subjects, handler, abandonable))
        self._handling[durable] = {}

    def open(self) -> None:
        """See Broker.open."""
        for consumer in self._consumers:
            self._server.declare(consumer.durable, consumer.subjects, consumer.stream)
        self._dispatcher.start()

    def close(self) -> None:
        """See Broker.close."""
        with self._server.changed:
            self._closed = True
            for durable, deliveries in self._handling.items():
                for delivery in deliveries.values():
                    self._server.give_back(durable, delivery)
            self._server.changed.notify_all()
        if self._dispatcher.is_alive():
            self._dispatcher.join(timeout=2)
        for pool in (self._threads, self._handlers):
            pool.shutdown(wait=False, cancel_futures=True)

    def publish(self, events: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """See Broker.publish."""
        self._check_available()
        for id, subject, payload in events:
            self._server.publish(message_of(self._name, id, subject, payload, self._server.max_payload))
        return [True] * len(events)

    def publish_unconfirmed(self, id: str, subject: str, payload: bytes) -> None:
        """See Broker.publish_unconfirmed."""
        if self._server.available:
            self._server.publish((subject, payload, {"Nats-Msg-Id": id}))

    def park(self, id: str, subject: str, payload: bytes, reason: str) -> bool:
        """See Broker.park."""
        self._check_available()
        logger.error("event_not_published service=%s reason=%s", self._name, reason)
        self._server.publish(instead(self._name, id, subject, payload, reason))
        return True

    def created_at(self) -> float:
        """See Broker.created_at."""
        return self._server.created_at

    def consumers(self, seconds: float = 2 * ANSWERS_WITHIN) -> list[ConsumerStatus]:
        """See Broker.consumers."""
        self._check_available()
        found = self._server.queues.items()
        return [
            ConsumerStatus(name, queue.subjects, queue.delivered) for name, queue in found if queue.stream == STREAM
        ]

    def has_event(self, saga_id: str, subject: str, since: float, upto: int) -> bool:
        """See Broker.has_event."""
        self._check_available()
        return any(
            event and event.subject == subject and event.at >= since and saga_id_of(event.payload) == saga_id
            for event in self._server.events()[:upto]
        )

    def dead_letters(self, most: int) -> list[dict[str, Any]]:
        """See Broker.dead_letters."""
        self._check_available()
        letters = enumerate(self._server.events(DEAD_STREAM), start=1)
        found = [shown(n, each.at, each.subject, each.payload, each.headers) for n, each in letters if each]
        return found[::-1][:most]

    def count_dead_letters(self) -> int:
        """See Broker.count_dead_letters."""
        self._check_available()
        return sum(event is not None for event in self._server.events(DEAD_STREAM))

    def replay(self, letter: int) -> dict[str, Any]:
        """See Broker.replay."""
        self._check_available()
        found = dict(enumerate(self._server.events(DEAD_STREAM), start=1)).get(letter)
        if found is None:
            raise NoSuchLetter(f"there is no dead letter {letter}")
        if WITHOUT in found.headers:
            raise BadInput(f"dead letter {letter} is without what it carried: {found.headers['Saga-Reason']}")
        subject = found.subject.removeprefix(DEAD)
        self._server.publish((subject, found.payload, replayed(letter, found.headers)))
        self._server.delete(DEAD_STREAM, letter)
        return {"letter": letter, "subject": subject, "payload": found.payload}

    def _check_available(self) -> None:
        if not self._server.available:
            raise BrokerUnavailable("the broker does not answer")

    def _dispatch(self) -> None:
        """Deliver what may be delivered, while there are free places, until the broker is closed."""
        changed = self._server.changed
        with changed:
            while not self._closed:
                taken = [self._take(consumer) for consumer in self._consumers if self._server.available]
                if not any(taken):
                    changed.wait(REDELIVERY_LOOK_EVERY)

    def _take(self, consumer: Consumer) -> bool:
        """Begin one delivery to this consumer; False where there is none, or no free place."""
        handling = self._handling[consumer.durable]
        if len(handling) >= self._at_once:
            return False
        delivery = self._server.take(consumer.durable)
        if delivery is None:
            return False
        handling[id(delivery)] = delivery
        key = consumer.handler.ordering_key(delivery.subject, delivery.payload)
        if key is not None:
            line = self._lines.setdefault((consumer.durable, key), deque())
            line.append(delivery)
            if len(line) > 1:
                return True  # it is begun once those before it are done
        self._threads.submit(self._deliver, consumer, delivery, key)
        return True

    def _deliver(self, consumer: Consumer, delivery: Delivery, key: str | None) -> None:
        handled = delivery
        if delivery.subject in consumer.abandonable:
            handled = replace(delivery, abandoned=self._is_abandoned(delivery))
        reaction = self._handled(consumer, handled)
        with self._server.changed:
            if self._closed:
                return
            self._server.settle(consumer.durable, delivery, reaction)
            del self._handling[consumer.durable][id(delivery)]
            if key is not None:
                line = self._lines[consumer.durable, key]
                line.popleft()
                if line:
                    self._threads.submit(self._deliver, consumer, line[0], key)
                else:
                    del self._lines[consumer.durable, key]

    def _handled(self, consumer: Consumer, delivery: Delivery) -> Reaction:
        """Return the handler's reaction; where it takes longer than its time-out, what it decides about that."""
        handler = consumer.handler
        timeout = handler.timeout_for(delivery.subject)
        for handle in (handler.handle, handler.on_timeout):
            running = self._handlers.submit(handle, delivery)
            if wait([running], timeout).done:
                try:
                    return running.result()
                except Exception as error:  # whatever a handler raises: its thread and its consumer go on
                    logger.exception("event_failed subject=%s", delivery.subject)
                    return on_failure(consumer, delivery, error, self._failures)
        return Reaction(again=RETRY_AFTER)

    def _is_abandoned(self, delivery: Delivery) -> bool:
        saga_id, pattern = saga_id_of(delivery.payload), f"{PREFIX}.*.{EventKind.ABANDONED}"
        return any(
            event and covers(pattern, event.subject) and saga_id_of(event.payload) == saga_id
            for event in self._server.events()
        )
