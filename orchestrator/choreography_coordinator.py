"""The coordinator of choreographed sagas where there is a broker: it starts them, observes them, and replays events.

It ends a saga itself only where no service has heard of the saga; saga/choreography/abandoned_sagas.py explains why no
service acts for it afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.listener_check import ListenerCheck
from saga.choreographed_notes import ORCHESTRATOR
from saga.choreography import outbox
from saga.choreography.coordinator_without_broker import CoordinatorWithoutBroker
from saga.choreography.dead_letter import DEAD, DEAD_STREAM
from saga.choreography.event_body import saga_id_of
from saga.choreography.events import EventKind, abandoned, observed, started, subject
from saga.choreography.namespace import covers
from saga.choreography.observer import Observer
from saga.choreography.outbox import SKEW
from saga.choreography.permitted_commands import refusal
from saga.choreography.wiring import MessageEndpoint
from saga.definition import SagaDefinition
from saga.driver import DriverDeps
from saga.errors import (
    BadInput,
    BrokerUnavailable,
    Conflict,
    LogUnavailable,
    NoSuchLetter,
    OutcomeUnknown,
    SagaUnreadable,
)
from saga.machine import Line
from saga.payload import LEVELS_ADDED, LEVELS_AT_MOST, mask, parse_object
from saga.process.settings import Settings
from saga.progress import secrets_of
from saga.runtime.coordinator import WaitingCaller, begin
from saga.runtime.permitted_commands import REFUSALS
from saga.saga_row import SagaRow, Stored
from saga.unreadable import Unreadable

NAME = ORCHESTRATOR


class ChoreographyCoordinator(CoordinatorWithoutBroker):
    """The coordinator that starts choreographed sagas through the outbox, observes them, and replays dead letters."""

    def __init__(self, database: Engine, deps: DriverDeps, observer: Observer, settings: Settings):
        super().__init__(observer.overdue)
        self._endpoint = MessageEndpoint(NAME, database, settings)
        self._deps = deps
        self._database = database
        self._observer = observer
        self._listener_check = ListenerCheck(self._endpoint.broker)
        self._endpoint.broker.consume(NAME, observed(), observer)
        self._endpoint.broker.consume(f"{NAME}_dead", [f"{DEAD}>"], observer, stream=DEAD_STREAM)

    def open(self) -> None:
        """Connect to the broker, in the background."""
        self._endpoint.open()

    def close(self) -> None:
        """Disconnect from the broker: events from now on are delivered after the next start."""
        self._endpoint.close()

    def check_start(self, definition: SagaDefinition, key: str | None = None) -> None:
        """Raise BadInput where a step of the saga certainly has no listener, unless `key` is that of a known saga."""
        try:
            self._listener_check.check(definition)
        except BadInput:
            if key is None or self._deps.log.find_by_key(key) is None:
                raise

    def start(self, row: SagaRow, line: Line, caller: WaitingCaller) -> Stored:
        """Write a new saga and the events that start it, in one transaction, and have the relay publish them.

        Nobody owns the saga. It is due at its deadline, when it is only marked as overdue.
        """
        detail = {"mode": row.definition.mode, "subject": subject(row.definition.name, EventKind.STARTED)}
        row, line = replace(row, due_at=row.deadline_at), replace(line, detail=detail)
        events = started(row.definition, row.id, row.input, row.started_at)
        if known := begin(self._deps, row, line, outbox.written(events, self._database)):
            return known
        self._endpoint.relay.notify()
        return row

    def resume(self, row: SagaRow) -> None:
        """Replay the saga's parked events. Raises Conflict where there is none, BadInput where one is unusable."""
        if not row.context.parked:
            raise Conflict("no event of this saga is parked: there is nothing to replay")
        refused: BadInput | None = None
        for letter in row.context.parked:
            try:
                self.replay(letter.letter)
            except BadInput as error:
                refused = error
            except NoSuchLetter:  # it was published again, and a crash, or the log, kept that from being noted
                self._observer.replayed(row.id, letter.letter, str(letter.subject))
        if refused:
            raise refused

    def abandon(self, row: SagaRow, note: str) -> None:
        """End a saga that no service has heard of, so that none ever acts for it; `note` says why.

        Raises Conflict where a service has heard of it, or may have, and BrokerUnavailable.
        """
        if why := refusal("abandon", row):
            raise Conflict(why)
        self._check_unheard(row)
        event = abandoned(row.definition.name, row.id, self._deps.clock())
        if self._endpoint.broker.publish([(event.id, event.subject, event.payload())]) != [True]:
            raise BrokerUnavailable("the broker takes no event")
        self._check_unheard(row)  # whoever hears of it from now on finds that it is abandoned
        try:
            sent = started(row.definition, row.id, row.input, row.started_at)
            outbox.withdraw(self._database, sent)
        except (SQLAlchemyError, OutcomeUnknown) as error:
            raise LogUnavailable("the saga log does not take the write") from error
        self._observer.abandoned(row.id, note)

    def _check_unheard(self, row: SagaRow) -> None:
        """Raise Conflict unless the event that starts the saga was delivered to nobody so far; BrokerUnavailable."""
        broker, beginning = self._endpoint.broker, subject(row.definition.name, EventKind.STARTED)
        if not (made := broker.created_at()) or made > row.started_at:
            raise Conflict(
                f"{REFUSALS['abandon']}: the broker's stream is younger than this saga, so that nobody knows who has "
                "heard of it before"
            )
        for each in broker.consumers():
            if each.durable == NAME or not any(covers(pattern, beginning) for pattern in each.subjects):
                continue
            if broker.has_event(row.id, beginning, row.started_at - SKEW, each.delivered):
                raise Conflict(f"{REFUSALS['abandon']}: {each.durable} has heard of it, and may have acted")

    def dead_letters(self, most: int, with_payload: bool = False) -> list[dict[str, Any]]:
        """Return the dead letters, newest first. Raises BrokerUnavailable.

        With their payloads only where these are asked for; then the secrets in them are masked.
        """
        letters = self._endpoint.broker.dead_letters(most)
        named = {saga_id_of(letter["payload"]) or "" for letter in letters}
        records = self._deps.log.find_many(filter(str.isascii, named))  # no other id is one, and MySQL raises
        return [shown(letter, records, with_payload) for letter in letters]

    def count_dead_letters(self) -> int:
        """Return how many events are parked. Raises BrokerUnavailable."""
        return self._endpoint.broker.count_dead_letters()

    def replay(self, letter: int) -> dict[str, Any]:
        """Publish a parked event again. Raises NoSuchLetter, BadInput, BrokerUnavailable or LogUnavailable."""
        replayed = self._endpoint.broker.replay(letter)
        saga_id = saga_id_of(replayed["payload"])
        if saga_id:
            with suppress(SagaUnreadable):  # its log cannot tell of it, and the service is told all the same
                self._observer.replayed(saga_id, letter, replayed["subject"])
        return {"letter": letter, "subject": replayed["subject"], "replayed": True}


def shown(letter: Mapping[str, Any], records: Mapping[str, Stored], with_payload: bool = False) -> dict[str, Any]:
    """Return a dead letter as it is shown, with the secrets of its saga masked; its payload only where asked for.

    `payload` is then a JSON object, or None where nobody knows what in it is secret.
    """
    saga_id = saga_id_of(letter["payload"])
    row, message = records.get(saga_id or ""), letter["message"]
    if isinstance(row, Unreadable) and row.secret != ():
        message = "withheld: the saga cannot be read, nor which of its fields are secret"
    elif isinstance(row, SagaRow):
        message = mask(message, row.definition.secret, secrets_of(row))
    payload = {"payload": _masked_payload(letter["payload"], row)} if with_payload else {}
    without_payload = {name: value for name, value in letter.items() if name != "payload"}
    return {**without_payload, "message": message, "saga_id": saga_id, **payload}


def _masked_payload(payload: bytes, row: Stored | None) -> Any:
    """Return what an event carries, with its saga's secrets masked; None where it is not known which these are."""
    if not isinstance(row, SagaRow):
        return None
    try:
        body = parse_object(payload, depth=LEVELS_AT_MOST + LEVELS_ADDED, strict=False)
    except BadInput:
        return None
    return mask(body, row.definition.secret, secrets_of(row))
