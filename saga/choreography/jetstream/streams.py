"""The streams and consumers at the broker: making them, searching them, and the dead letters in one of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from nats.js.api import AckPolicy, ConsumerConfig, ConsumerInfo, DeliverPolicy, RawStreamMsg, StorageType, StreamConfig
from nats.js.errors import BadRequestError, NotFoundError

from saga.choreography.broker import STREAM, SUBJECTS, Consumer, ConsumerStatus
from saga.choreography.dead_letter import DEAD, DEAD_STREAM, WITHOUT, replayed, shown
from saga.choreography.event_body import saga_id_of
from saga.choreography.events import PREFIX, EventKind
from saga.choreography.jetstream.connection import Connection
from saga.errors import BadInput, NoSuchLetter

EVENTS_KEPT_SECONDS = 7 * 86_400.0  # seconds that events are kept: a choreographed saga must end within them
KNOWN_IDS = 120.0  # seconds that the broker knows an event's id
DELIVERED_AT_MOST = 5000  # events that a consumer has got and not yet acknowledged
PAGE = 256  # consumers that the broker names in one answer


class Streams:
    """The two streams of a stack. Every coroutine raises the client's errors where the broker does not answer."""

    def __init__(self, connection: Connection, ack_wait: float, on_new_stream: Callable[[], None]):
        self.created_at = 0.0  # of the events' stream, in seconds since the epoch; 0 before it was seen
        self._connection = connection
        self._stream = connection.stream
        self._names = connection.names
        self._ack_wait = ack_wait  # seconds after which a silent handler's events go to another process
        self._on_new_stream = on_new_stream  # its events are numbered from 1 again

    async def declare(self, consumers: Sequence[Consumer]) -> None:
        """See to it that the streams and these consumers are there."""
        for name, subjects, kept in ((STREAM, SUBJECTS, EVENTS_KEPT_SECONDS), (DEAD_STREAM, f"{DEAD}>", 0)):
            try:
                await self._stream.stream_info(self._names.name(name))
            except NotFoundError:
                with suppress(BadRequestError):  # another process was quicker
                    await self._stream.add_stream(
                        StreamConfig(
                            self._names.name(name),
                            subjects=[self._names.subject(subjects)],
                            storage=StorageType.FILE,
                            max_age=kept,
                            duplicate_window=KNOWN_IDS,
                        )
                    )
        made = (await self._stream.stream_info(self._names.name(STREAM))).created
        created_at = made.timestamp() if made else 0.0
        if created_at != self.created_at:
            self._on_new_stream()
        for consumer in consumers:
            await self._declare_consumer(consumer)
        self.created_at = created_at

    async def _declare_consumer(self, consumer: Consumer) -> None:
        """See to it that the durable consumer is there, pulls, and gets these subjects.

        A consumer that an earlier version made was sent its events unasked, and cannot be changed: it is made again
        from the first event on that it had not acknowledged. What it had beyond that is delivered once more.
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
            # Where a consumer began cannot be changed, and has to be said again.
            kept = {"deliver_policy": found.config.deliver_policy, "opt_start_seq": found.config.opt_start_seq}
            wanted = wanted.evolve(**kept)
        await self._stream.add_consumer(stream, wanted)

    async def consumers(self) -> list[ConsumerStatus]:
        """See Broker.consumers."""
        found: list[ConsumerInfo] = []
        while page := await self._stream.consumers_info(self._names.name(STREAM), offset=len(found)):
            found += page
            if len(page) < PAGE:
                break
        return [self._status(consumer) for consumer in found]

    def _status(self, consumer: ConsumerInfo) -> ConsumerStatus:
        config = consumer.config
        subjects = config.filter_subjects or [config.filter_subject or ">"]
        delivered = consumer.delivered.stream_seq if consumer.delivered else 0
        plain = [self._names.plain(subject) for subject in subjects]
        return ConsumerStatus(self._names.plain_name(consumer.name), plain, delivered)

    async def next_abandoned(self, after: int) -> tuple[int, bytes] | None:
        """(number, payload) of the next event after this number that says that a saga was abandoned, if any."""
        subject = self._names.subject(f"{PREFIX}.*.{EventKind.ABANDONED}")
        with suppress(NotFoundError):
            found = await self._stream.get_msg(self._names.name(STREAM), after + 1, subject=subject, next=True)
            return found.seq or after + 1, found.data or b""
        return None

    async def has_event(self, saga_id: str, subject: str, since: float, upto: int) -> bool:
        """See Broker.has_event."""
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
        """Return the number of the first event stored at this time or later; one above `upto` where there is none."""
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

    async def dead_letters(self, most: int) -> list[dict[str, Any]]:
        """See Broker.dead_letters.

        They are looked for in ever longer stretches of numbers, from the last one back: most of them may be gone.
        """
        state = (await self._stream.stream_info(self._names.name(DEAD_STREAM))).state
        found: list[dict[str, Any]] = []
        upper, stretch = state.last_seq + 1, most
        while len(found) < min(most, state.messages) and upper > state.first_seq:
            lower = max(state.first_seq, upper - stretch)
            found = [*await self._letters_between(lower, upper), *found]
            upper, stretch = lower, 2 * stretch
        return found[::-1][:most]

    async def _letters_between(self, lower: int, upper: int) -> list[dict[str, Any]]:
        """Return the dead letters from number `lower` on, below `upper`."""
        found: list[dict[str, Any]] = []
        stream, subject = self._names.name(DEAD_STREAM), self._names.subject(f"{DEAD}>")
        with suppress(NotFoundError):  # there is none from here on
            while lower < upper:
                message = await self._stream.get_msg(stream, lower, subject=subject, next=True)
                lower = (message.seq or lower) + 1
                if lower <= upper:
                    found.append(self._shown(message))
        return found

    async def count_dead_letters(self) -> int:
        """See Broker.count_dead_letters."""
        return (await self._stream.stream_info(self._names.name(DEAD_STREAM))).state.messages

    async def replay(self, letter: int) -> dict[str, Any]:
        """See Broker.replay."""
        dead = self._names.name(DEAD_STREAM)
        try:
            message = await self._stream.get_msg(dead, letter)
        except NotFoundError:
            raise NoSuchLetter(f"there is no dead letter {letter}") from None
        if WITHOUT in (message.headers or {}):
            raise BadInput(f"dead letter {letter} is without what it carried: {self._shown(message)['message']}")
        subject = self._names.plain(message.subject or "").removeprefix(DEAD)
        headers = replayed(letter, message.headers or {})
        await self._stream.publish(self._names.subject(subject), message.data or b"", headers=headers)
        await self._stream.delete_msg(dead, letter)
        return {"letter": letter, "subject": subject, "payload": message.data or b""}

    def _shown(self, message: RawStreamMsg) -> dict[str, Any]:
        at = message.time.timestamp() if message.time else None
        subject = self._names.plain(message.subject or "")
        return shown(message.seq or 0, at, subject, message.data or b"", message.headers or {})


def _same(found: ConsumerConfig, wanted: ConsumerConfig) -> bool:
    """Return whether a consumer that is there already is as it should be."""
    subjects = found.filter_subjects or [found.filter_subject or ">"]
    return (
        sorted(subjects) == sorted(wanted.filter_subjects or ())
        and found.ack_wait == wanted.ack_wait
        and found.max_ack_pending == wanted.max_ack_pending
    )
