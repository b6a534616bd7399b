"""The orchestrator's part in choreographed sagas: it starts them, then only observes; and it knows the dead letters.

It ends one only where no service has heard of it, and so that none ever will: saga/choreography/abandoned.py says how.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import Engine as Database
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.listeners import Listeners
from saga.choreography import outbox
from saga.choreography.dead_letter import DEAD, DEAD_STREAM
from saga.choreography.event_body import saga_id_of
from saga.choreography.events import EventKind, abandoned, observed, started, subject
from saga.choreography.namespace import covers
from saga.choreography.observer import Observer
from saga.choreography.outbox import SKEW
from saga.choreography.wiring import MessageEndpoint
from saga.context import ITS_STARTER
from saga.definition import SagaDefinition
from saga.errors import (
    BadInput,
    BrokerUnavailable,
    Conflict,
    LogUnavailable,
    NoSuchLetter,
    OutcomeUnknown,
    SagaUnreadable,
)
from saga.payload import mask
from saga.process.settings import Settings
from saga.progress import secrets_of
from saga.runtime.engine import Engine
from saga.runtime.operator import check_note
from saga.runtime.permitted_commands import REFUSALS, refusal
from saga.saga_log import Record, Stored
from saga.unreadable import Unreadable

NAME = ITS_STARTER


class ChoreographyCoordinator:
    """The outbox that `started` goes through, the observer that hears all events, and the dead letters."""

    def __init__(self, database: Database, engine: Engine, observer: Observer, settings: Settings):
        self._endpoint = MessageEndpoint(NAME, database, settings)
        self._engine = engine
        self._database = database
        self._observer = observer
        self._listeners = Listeners(self._endpoint.broker)
        self._endpoint.broker.consume(NAME, observed(), observer)
        self._endpoint.broker.consume(f"{NAME}_dead", [f"{DEAD}>"], observer, stream=DEAD_STREAM)
        engine.notify_relay = self._endpoint.relay.notify

    def open(self) -> None:
        """Connect, in the background."""
        self._endpoint.open()

    def close(self) -> None:
        """Observe nothing more: what happens meanwhile is heard later."""
        self._endpoint.close()

    def check_listeners(self, definition: SagaDefinition, key: str | None) -> None:
        """BadInput where a saga would start that a step certainly does not hear of, unless `key` is that of one."""
        try:
            self._listeners.check(definition)
        except BadInput:
            if key is None or self._engine.deps.log.find_by_key(key) is None:
                raise

    def abandon(self, saga_id: str, note: str) -> None:
        """End a saga that no service has heard of, so that none ever acts for it; `note` says why.

        NoSuchSaga, BadInput; Conflict where a service has heard of it, or may have; BrokerUnavailable.
        """
        check_note(note, "why it is abandoned, and by whom")
        record = self._readable(saga_id, "abandon")
        if why := refusal("abandon", record):
            raise Conflict(why)
        self._check_unheard(record)
        event = abandoned(record.definition.name, saga_id, self._engine.deps.clock())
        if self._endpoint.broker.publish([(event.id, event.subject, event.payload())]) != [True]:
            raise BrokerUnavailable("the broker takes no event")
        self._check_unheard(record)  # whoever hears of it from now on finds that it is abandoned
        try:
            sent = started(record.definition, saga_id, record.input, record.started_at)
            outbox.withdraw(self._database, sent)
        except (SQLAlchemyError, OutcomeUnknown) as error:
            raise LogUnavailable("the saga log does not take the write") from error
        self._observer.abandoned(saga_id, note)

    def _readable(self, saga_id: str, command: str) -> Record:
        saga = self._engine.read(saga_id)
        if isinstance(saga, Unreadable):
            raise SagaUnreadable(f"{REFUSALS[command]}: it cannot be read: {saga.reason}")
        return saga

    def _check_unheard(self, record: Record) -> None:
        """Conflict unless the event that starts it was delivered to nobody so far. BrokerUnavailable."""
        broker, beginning = self._endpoint.broker, subject(record.definition.name, EventKind.STARTED)
        if not (made := broker.created_at()) or made > record.started_at:
            raise Conflict(
                f"{REFUSALS['abandon']}: the broker's stream is younger than this saga, so that nobody knows who has "
                "heard of it before"
            )
        for each in broker.consumers():
            if each.durable == NAME or not any(covers(pattern, beginning) for pattern in each.subjects):
                continue
            if broker.has_event(record.id, beginning, record.started_at - SKEW, each.delivered):
                raise Conflict(f"{REFUSALS['abandon']}: {each.durable} has heard of it, and may have acted")

    def dead_letters(self, most: int) -> list[dict[str, Any]]:
        """The parked events, newest first; never what they carry, which may be secret. BrokerUnavailable."""
        letters = self._endpoint.broker.dead_letters(most)
        named = {saga_id_of(letter["payload"]) or "" for letter in letters}
        records = self._engine.deps.log.find_many(filter(str.isascii, named))  # no other id is one, and MySQL raises
        return [shown(letter, records) for letter in letters]

    def count_dead_letters(self) -> int:
        """How many there are. BrokerUnavailable."""
        return self._endpoint.broker.count_dead_letters()

    def replay(self, letter: int) -> dict[str, Any]:
        """Publish a parked event again. NoSuchLetter, BadInput, BrokerUnavailable."""
        replayed = self._endpoint.broker.replay(letter)
        saga_id = saga_id_of(replayed["payload"])
        if saga_id:
            with suppress(SagaUnreadable):  # its log cannot tell of it, and the service is told all the same
                self._observer.replayed(saga_id, letter, replayed["subject"])
        return {"letter": letter, "subject": replayed["subject"], "replayed": True}

    def resume(self, saga_id: str) -> None:
        """Replay what of a saga is parked. NoSuchSaga, Conflict where nothing is, BadInput where one cannot be."""
        letters = self._readable(saga_id, "resume").context.parked
        if not letters:
            raise Conflict("no event of this saga is parked: there is nothing to replay")
        refused: BadInput | None = None
        for letter in letters:
            try:
                self.replay(letter.letter)
            except BadInput as error:
                refused = error
            except NoSuchLetter:  # it was published again, and a crash, or the log, kept that from being noted
                self._observer.replayed(saga_id, letter.letter, str(letter.subject))
        if refused:
            raise refused


def shown(letter: Mapping[str, Any], records: Mapping[str, Stored]) -> dict[str, Any]:
    """A dead letter as the API shows it: without what it carries, and masked by what its saga keeps secret."""
    saga_id = saga_id_of(letter["payload"])
    record, message = records.get(saga_id or ""), letter["message"]
    if isinstance(record, Unreadable) and record.secret != ():
        message = "withheld: the saga cannot be read, nor which of its fields are secret"
    elif isinstance(record, Record):
        message = mask(message, record.definition.secret, secrets_of(record))
    told = {name: value for name, value in letter.items() if name != "payload"}
    return {**told, "message": message, "saga_id": saga_id}
