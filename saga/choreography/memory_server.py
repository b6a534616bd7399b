"""The streams and durable consumers of the broker in memory: what a JetStream server keeps on its disk.

A server outlives the connections to it (memory_broker.py). Whoever wants to deliver the events one by one, in a single
thread, calls `take` and `settle` itself.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from saga.choreography.broker import (
    STREAM,
    Delivery,
    Reaction,
)
from saga.choreography.dead_letter import (
    DEAD,
    DEAD_STREAM,
    Message,
    headers_of,
)
from saga.choreography.namespace import covers

logger = logging.getLogger("saga")

MAX_PAYLOAD = 8 << 20  # bytes: as db/nats.conf has it


@dataclass
class Queue:
    """The events that one durable consumer has not acknowledged."""

    subjects: list[str]
    stream: str = STREAM
    # (place in the stream from 0, deliveries so far) of the events that wait to be delivered, the next one first.
    waiting: deque[tuple[int, int]] = field(default_factory=deque)
    not_before: dict[int, float] = field(default_factory=dict)  # by place: when it may be delivered again
    in_flight: dict[int, Delivery] = field(default_factory=dict)  # by place
    delivered: int = 0  # the highest number that was delivered


@dataclass(frozen=True)
class StoredEvent:
    """An event in a stream."""

    subject: str
    payload: bytes
    headers: dict[str, str]
    at: float


class MemoryServer:
    """The streams and the durable consumers; every method may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.time, max_payload: int = MAX_PAYLOAD):
        self.max_payload = max_payload
        self.available = True  # set it to False, and every MemoryBroker raises BrokerUnavailable
        self.queues: dict[str, Queue] = {}  # by the consumer's name
        self.created_at = clock()
        self.changed = threading.Condition(threading.RLock())
        self._clock = clock
        self._streams: dict[str, list[StoredEvent | None]] = {STREAM: [], DEAD_STREAM: []}  # None: deleted
        self._ids: set[str] = set()

    def events(self, stream: str = STREAM) -> list[StoredEvent | None]:
        """Return a stream's events in their order, those that were deleted as None."""
        with self.changed:
            return list(self._streams[stream])

    def declare(self, durable: str, subjects: Sequence[str], stream: str = STREAM) -> Queue:
        """Make a durable consumer, which gets all that is in the stream, or let it get other subjects from now on."""
        with self.changed:
            if durable not in self.queues:
                self.queues[durable] = queue = Queue(list(subjects), stream)
                places = enumerate(self._streams[stream])
                queue.waiting.extend((place, 0) for place, event in places if event and _gets(queue, event.subject))
            queue = self.queues[durable]
            if queue.subjects != list(subjects):
                queue.subjects = list(subjects)
                events = self._streams[stream]
                queue.waiting = deque(
                    entry for entry in queue.waiting if (event := events[entry[0]]) and _gets(queue, event.subject)
                )
            self.changed.notify_all()
            return queue

    def publish(self, message: Message) -> None:
        """Store an event; one whose id was published before is not stored again."""
        subject, payload, headers = message
        with self.changed:
            id = headers.get("Nats-Msg-Id")
            if id is None or id not in self._ids:
                self._ids |= {id} if id else set()
                self._store(StoredEvent(subject, payload, headers, self._clock()))

    def _store(self, event: StoredEvent) -> None:
        stream = DEAD_STREAM if event.subject.startswith(DEAD) else STREAM
        self._streams[stream].append(event)
        for queue in self.queues.values():
            if queue.stream == stream and _gets(queue, event.subject):
                queue.waiting.append((len(self._streams[stream]) - 1, 0))
        self.changed.notify_all()

    def take(self, durable: str, ignore_delays: bool = False) -> Delivery | None:
        """Return the next delivery to this consumer; None where there is none.

        `ignore_delays`: deliver an event again at once though its handler asked for a delay.
        """
        with self.changed:
            queue, now = self.queues[durable], math.inf if ignore_delays else self._clock()
            for index, (place, deliveries) in enumerate(queue.waiting):
                event = self._streams[queue.stream][place]
                if event is not None and queue.not_before.get(place, 0.0) <= now:
                    del queue.waiting[index]
                    number = place + 1
                    queue.delivered = max(queue.delivered, number)
                    delivery = Delivery(event.subject, event.payload, deliveries + 1, number, event.headers, event.at)
                    queue.in_flight[place] = delivery
                    return delivery
            return None

    def settle(self, durable: str, delivery: Delivery, reaction: Reaction) -> None:
        """Do what a handler's reaction says; nothing where the delivery was given back meanwhile."""
        with self.changed:
            queue, place = self.queues[durable], delivery.sequence - 1
            if queue.in_flight.get(place) is not delivery:
                return
            if reaction.park is not None:
                self._park(durable, delivery, reaction)
            del queue.in_flight[place]
            queue.not_before.pop(place, None)
            if reaction.again is not None:
                queue.not_before[place] = self._clock() + reaction.again
                queue.waiting.append((place, delivery.number))
            self.changed.notify_all()

    def give_back(self, durable: str, delivery: Delivery) -> None:
        """Let an event whose handler died be delivered again."""
        self.settle(durable, delivery, Reaction(again=0.0))

    def _park(self, durable: str, delivery: Delivery, reaction: Reaction) -> None:
        attempts = reaction.attempts or delivery.before + delivery.number
        headers = headers_of(durable, attempts, str(reaction.park))
        headers["Nats-Msg-Id"] = f"{durable}:{delivery.sequence}"
        self.publish((DEAD + delivery.subject, delivery.payload, headers))
        logger.error("event_parked subject=%s reason=%s", delivery.subject, headers["Saga-Reason"])

    def delete(self, stream: str, number: int) -> None:
        """Delete the event of this number, from 1."""
        with self.changed:
            self._streams[stream][number - 1] = None

    def lose_events(self) -> None:
        """Lose all events, as a server with a new disk has; consumers begin at the beginning of the empty stream."""
        with self.changed:
            self._streams[STREAM].clear()
            self._ids.clear()
            for queue in self.queues.values():
                if queue.stream == STREAM:
                    queue.waiting.clear()
                    queue.not_before.clear()
                    queue.in_flight.clear()
                    queue.delivered = 0
            self.created_at = self._clock()


def _gets(queue: Queue, subject: str) -> bool:
    return any(covers(pattern, subject) for pattern in queue.subjects)
