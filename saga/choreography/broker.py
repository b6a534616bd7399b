"""The interface of a message broker for choreographed sagas; `jetstream/` and `memory_broker.py` implement it.

Events are kept in a stream, in the order in which they were published, and an event id that was published before is
not stored again. Each durable consumer gets every event on its subjects at least once: until its handler's reaction
says that the event has been dealt with, or parks it as a dead letter.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from saga.choreography.dead_letter import attempts_before

STREAM, SUBJECTS = "SAGA", "saga.>"
EVENTS_AT_ONCE = 24  # events that each consumer of a process handles at once: no more are delivered to it
FAILURES = 20  # times that a handler may raise on one event before the event is parked
RETRY_AFTER = 1.0  # seconds until an event is delivered again on which a handler raised, or timed out twice
ANSWERS_WITHIN = 5.0  # seconds in which a broker has to answer


@dataclass(frozen=True)
class Delivery:
    """An event as it was delivered to a consumer."""

    subject: str
    payload: bytes
    number: int  # of this delivery of the event to this consumer, from 1
    sequence: int  # the event's number in its stream
    headers: dict[str, str]
    at: float = 0.0  # when the stream stored the event, in seconds since the epoch
    abandoned: bool = False  # whether an operator has abandoned its saga; only known for `abandonable` subjects

    @property
    def before(self) -> int:
        """The attempts at this event before it was parked and then replayed by an operator; 0 if it never was."""
        return attempts_before(self.headers)


@dataclass(frozen=True)
class Reaction:
    """What a handler wants done with a delivery; without `again` and `park` the event has been dealt with.

    `again`: deliver it again after so many seconds. `park`: store it as a dead letter, for this reason. `attempts`: how
    many attempts there were at a parked event, where that is not the number of its deliveries.
    """

    again: float | None = None
    park: str | None = None
    attempts: int | None = None


ACK = Reaction()


class Handler(Protocol):
    """Handles the deliveries of one consumer, each on a thread of its own."""

    def timeout_for(self, subject: str) -> float:
        """Return the seconds that handling an event on this subject may take."""

    def ordering_key(self, subject: str, payload: bytes) -> str | None:
        """Return the key of a delivery: those with the same key are handled one after the other; None: in any order."""

    def handle(self, delivery: Delivery) -> Reaction:
        """Do what the event asks, and return what is to become of the delivery."""

    def on_timeout(self, delivery: Delivery) -> Reaction:
        """Decide what becomes of a delivery whose `handle` has taken longer than its time-out, and still runs."""


@dataclass(frozen=True)
class Consumer:
    """A durable consumer as a process declares it; all processes that declare the same one share its deliveries."""

    durable: str  # its name
    stream: str
    subjects: Sequence[str]  # patterns: `*` stands for one token, `>` for all that follow
    handler: Handler
    abandonable: Collection[str]  # those of the subjects whose deliveries say whether their saga was abandoned


@dataclass(frozen=True)
class ConsumerStatus:
    """A durable consumer as the broker knows it, whether or not a process that listens is up."""

    durable: str
    subjects: Sequence[str]
    delivered: int  # the highest number of an event in the stream that it has got


class Broker(Protocol):
    """A process's connection to the broker.

    Every method raises BrokerUnavailable where the broker does not answer in time, except those that say otherwise.
    """

    def consume(
        self,
        durable: str,
        subjects: Sequence[str],
        handler: Handler,
        stream: str = STREAM,
        abandonable: Collection[str] = (),
    ) -> None:
        """Declare a consumer, before `open`; see Consumer. Never raises BrokerUnavailable."""

    def open(self) -> None:
        """Connect and begin to consume, in the background. Never raises BrokerUnavailable."""

    def close(self) -> None:
        """Disconnect; what is being handled is delivered again, to another process. Never raises."""

    def publish(self, events: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """Publish (id, subject, payload) in this order, and say of each whether it is durable at the broker.

        An event that can never be published, because it is too large or no saga's event, is parked instead, without its
        payload, and counts as durable.
        """

    def publish_unconfirmed(self, id: str, subject: str, payload: bytes) -> None:
        """Publish an event that may be lost. Never raises BrokerUnavailable."""

    def park(self, id: str, subject: str, payload: bytes, reason: str) -> bool:
        """Store a dead letter, without the payload, that says why an event is not published; False: not durable."""

    def created_at(self) -> float:
        """When the events' stream was made, in seconds since the epoch; 0 before it was seen. Never raises."""

    def consumers(self, seconds: float = 2 * ANSWERS_WITHIN) -> list[ConsumerStatus]:
        """Return all durable consumers of the sagas' events; waits so many seconds for the answer."""

    def has_event(self, saga_id: str, subject: str, since: float, upto: int) -> bool:
        """Return whether the stream's first `upto` events have one of this saga on `subject`, stored since then."""

    def dead_letters(self, most: int) -> list[dict[str, Any]]:
        """Return the latest `most` dead letters, newest first; see dead_letter.shown for their shape."""

    def count_dead_letters(self) -> int:
        """Return how many dead letters there are."""

    def replay(self, letter: int) -> dict[str, Any]:
        """Publish a parked event again and delete its dead letter.

        Raises NoSuchLetter where there is none of this number, and BadInput where it is without its payload.
        """


def on_failure(consumer: Consumer, delivery: Delivery, error: Exception, failures: int = FAILURES) -> Reaction:
    """Return what becomes of a delivery on which a handler raised an error: it must not come back for ever.

    It is delivered again `failures` - 1 times, then parked; a dead letter is let go, for it is parked already.
    """
    if delivery.number < failures:
        return Reaction(again=RETRY_AFTER)
    return Reaction(park=f"it fails: {type(error).__name__}") if consumer.stream == STREAM else ACK
