"""The transactional outbox: an event is written as a row, in the local transaction that it reports, to be published.

A relay publishes new rows and marks them. After a crash between the two it publishes a row again, under the same id:
within some minutes the broker notices that, and later the listeners' barriers make it harmless. (Richardson,
"Microservices Patterns", section 3.3.7.)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    cast,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from saga.choreography.dead_letter import unreadable
from saga.choreography.events import SagaEvent
from saga.errors import BrokerUnavailable, OutcomeUnknown
from saga.storage.column_types import Json, Token, UtcTime
from saga.storage.database import transaction
from saga.storage.statement_batch import Row, Statement, execute_batch

logger = logging.getLogger("saga")

SKEW = 60.0  # seconds that the broker's clock may be behind
BATCH = 256  # events that are published in one go
PUBLISHED_KEPT_SECONDS = 7 * 86_400.0  # seconds that a published event is kept, as evidence
MARK_WITHIN = 0.25  # seconds until published rows are marked: many by one statement, for which nobody waits
IDLE_LOOK_EVERY = 1.0  # seconds between two looks at the outbox while nobody calls `notify`
FORGET_EVERY = 60.0  # seconds between two deletions of old rows

metadata = MetaData()

_number = Integer().with_variant(BigInteger(), "mysql", "mariadb")
saga_outbox = Table(
    "saga_outbox",
    metadata,
    Column("id", _number, primary_key=True),
    Column("event_id", Token(400), nullable=False, unique=True),
    Column("subject", String(255), nullable=False),
    Column("payload", Json, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("published_at", UtcTime),
    Index("saga_outbox_new", "published_at", "id"),
)

_COLUMNS = [column.name for column in saga_outbox.c if column.name != "id"]
_ANEW = insert(saga_outbox).prefix_with("OR IGNORE", dialect="sqlite").prefix_with("IGNORE", dialect="mysql")
# An event that is in the table already is not written again.
WRITE = Statement(_ANEW, *_COLUMNS)
# Read as bytes, because a row that holds no JSON, or no text, must not keep the others from being read.
_RAW = [cast(saga_outbox.c[name], LargeBinary).label(name) for name in ("event_id", "subject", "payload")]
UNPUBLISHED = (
    select(saga_outbox.c.id, *_RAW)
    .where(saga_outbox.c.published_at.is_(None))
    .order_by(saga_outbox.c.id)
    .limit(bindparam("most"))
)
_THESE: Any = bindparam("these", expanding=True)
MARK = update(saga_outbox).where(saga_outbox.c.id.in_(_THESE)).values(published_at=bindparam("now"))
UNMARK = update(saga_outbox).where(saga_outbox.c.published_at < bindparam("before")).values(published_at=None)
WITHDRAW = delete(saga_outbox).where(saga_outbox.c.event_id.in_(_THESE))
FORGET = delete(saga_outbox).where(saga_outbox.c.published_at < bindparam("before"))


def written(events: Iterable[SagaEvent], engine: Engine) -> list[tuple[Statement, Sequence[Row]]]:
    """Return the statement that writes the events, and its rows, for `execute_batch`; nothing where there are none."""
    now = time.time()
    rows = [
        {
            "event_id": event.id,
            "subject": event.subject,
            "payload": {"saga_id": event.saga_id, **event.body},
            "created_at": now,
            "published_at": None,
        }
        for event in events
    ]
    return [(WRITE, [WRITE.bind(engine.dialect, row) for row in rows])] if rows else []


def put(engine: Engine, *writes: tuple[Statement, Sequence[Row]]) -> None:
    """Execute what `written` and `inbox.remembered` return, in a transaction of its own.

    Raises OutcomeUnknown where the COMMIT is not confirmed, and SQLAlchemyError where nothing was written.
    """
    with transaction(engine) as connection:
        execute_batch(connection, *writes, with_commit=True)


def withdraw(engine: Engine, events: Iterable[SagaEvent]) -> None:
    """Delete events from the outbox, published or not. Raises OutcomeUnknown or SQLAlchemyError."""
    with transaction(engine) as connection:
        connection.execute(WITHDRAW, {"these": [event.id for event in events]})


class Publisher(Protocol):
    """What a relay publishes to."""

    def publish(self, events: Sequence[tuple[str, str, bytes]]) -> Sequence[bool]:
        """Publish (id, subject, payload) in this order, and say of each whether it is durable. See Broker.publish.

        An event that can never be published is parked as a dead letter instead, and counts as durable. Raises
        BrokerUnavailable.
        """

    def park(self, id: str, subject: str, payload: bytes, reason: str) -> bool:
        """Park an event that cannot be understood, and say whether that is durable. Raises BrokerUnavailable."""

    def created_at(self) -> float:
        """When the events' stream was made, in seconds since the epoch; 0 where that is not known yet."""


class Relay:
    """Publishes the new rows of one outbox, on a thread of its own."""

    def __init__(
        self,
        engine: Engine,
        publisher: Publisher,
        clock: Callable[[], float] = time.time,
        name: str = "this service",
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self.also_forget: Callable[[float], None] = lambda before: None
        self._engine = engine
        self._publisher = publisher
        self._name = name  # of the service that has the outbox
        self._clock = clock
        self._monotonic = monotonic
        self._wake_up = threading.Event()
        self._closed = False
        self._published: dict[int, None] = {}  # the rows that are published and not marked yet, in their order
        self._mark_at = 0.0
        self._since = 0.0  # when the stream was made that has all events that are marked as published
        self._forget_at = monotonic() + FORGET_EVERY
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def open(self) -> None:
        """Start publishing."""
        self._thread.start()

    def close(self) -> None:
        """Stop publishing; the next process publishes what is left."""
        self._closed = True
        self._wake_up.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2)

    def notify(self) -> None:
        """Wake the relay up: there is something new in the outbox."""
        self._wake_up.set()

    def round(self) -> bool:
        """Publish one batch, and say whether there may be more.

        Raises BrokerUnavailable, OutcomeUnknown or SQLAlchemyError.
        """
        self._publish_again()
        with transaction(self._engine) as connection:
            found = connection.execute(UNPUBLISHED, {"most": BATCH + len(self._published)}).mappings().all()
        rows = [row for row in found if row["id"] not in self._published]
        if rows:
            events = [(_text(row["event_id"]), _text(row["subject"]), bytes(row["payload"])) for row in rows]
            durable_ones = self._durable(events)
            published = [row["id"] for row, durable in zip(rows, durable_ones, strict=True) if durable]
            if not published:
                raise BrokerUnavailable("the broker takes no event")
            self._published.update(dict.fromkeys(published))
            # Where the broker did not take some of them, they are tried again after a rest.
            return len(published) == len(rows)
        return False

    def _durable(self, events: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        """Say of each event whether it is durable at the broker, published or parked. Raises BrokerUnavailable."""
        wrong = {event: reason for event in events if (reason := unreadable(self._name, event[0], event[2]))}
        durable = iter(self._publisher.publish([event for event in events if event not in wrong]))
        return [self._publisher.park(*event, wrong[event]) if event in wrong else next(durable) for event in events]

    def mark(self) -> None:
        """Mark the rows that were published; those that a crash keeps from being marked are published again.

        Raises OutcomeUnknown or SQLAlchemyError.
        """
        if self._published:
            these = list(self._published)
            with transaction(self._engine) as connection:
                connection.execute(MARK, {"these": these, "now": self._clock()})
            self._published.clear()

    def _publish_again(self) -> None:
        """Unmark the events that a new stream cannot have: it is younger than they are, so the broker lost its disk."""
        since = self._publisher.created_at()
        if since > self._since:
            with transaction(self._engine) as connection:
                connection.execute(UNMARK, {"before": since + SKEW})
            self._published.clear()
            self._since = since

    def _run(self) -> None:
        away = False
        while not self._closed:
            self._wake_up.clear()
            try:
                while not self._closed and self.round():
                    self._mark_when_due()
                self._mark_when_due()
                away = False
                self._forget()
            except (BrokerUnavailable, SQLAlchemyError, OutcomeUnknown) as error:
                if not away:
                    logger.warning("relay_waits: %s", error if isinstance(error, BrokerUnavailable) else type(error))
                away = True
            except Exception:
                logger.exception("relay_failed")
            # `close` may have set `_wake_up` just before it was cleared above, so `_closed` is asked first.
            if not self._closed:
                self._wake_up.wait(MARK_WITHIN if self._published else IDLE_LOOK_EVERY)
        with suppress(SQLAlchemyError, OutcomeUnknown):
            self.mark()

    def _mark_when_due(self) -> None:
        now = self._monotonic()
        if not self._published:
            self._mark_at = now + MARK_WITHIN
        elif now >= self._mark_at or len(self._published) >= BATCH:
            self.mark()

    def _forget(self) -> None:
        now = self._clock()
        if self._monotonic() >= self._forget_at:
            self._forget_at = self._monotonic() + FORGET_EVERY
            with transaction(self._engine) as connection:
                connection.execute(FORGET, {"before": now - PUBLISHED_KEPT_SECONDS})
            self.also_forget(now)


def _text(raw: bytes) -> str:
    return bytes(raw).decode("utf-8", "replace")
