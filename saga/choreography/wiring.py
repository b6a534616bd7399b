"""The wiring of choreography in one process: the connection to the broker, the relay of an outbox, and the listener.

A service calls `attach_listener` (saga/kits/wiring.py does); the orchestrator makes a MessageEndpoint of its own.
"""

from __future__ import annotations

import logging
import threading
from functools import partial

from jsonschema import Draft202012Validator
from sqlalchemy import Engine

from saga.choreography import inbox, outbox, require_nats
from saga.choreography.broker import Broker
from saga.choreography.events import EventKind, SagaEvent, StepSubscription, Task, subscriptions_of
from saga.choreography.listener import Listener, ListenerDeps
from saga.choreography.outbox import Relay
from saga.definition_file import load_definition
from saga.errors import DefinitionError
from saga.local_transaction import LocalTransactions
from saga.participant import ParticipantDefinition
from saga.process.settings import Settings
from saga.storage.database import create_tables

logger = logging.getLogger("saga")


class MessageEndpoint:
    """A process's connection to the broker, with the relay that publishes the process's outbox."""

    def __init__(self, name: str, engine: Engine, settings: Settings):
        # Where a process dies while it handles an event, the event goes to another one after a third of a lease.
        ack_wait = settings.lease_seconds / 3
        self.broker = _connect(settings.nats_url or "", name, ack_wait, settings.nats_prefix)
        self.relay = Relay(engine, self.broker, name=name)

    def open(self) -> None:
        """Connect, in the background; nothing waits for the broker."""
        self.broker.open()
        self.relay.open()

    def close(self) -> None:
        """Disconnect; events that are being handled are delivered again."""
        self.relay.close()
        self.broker.close()


def _connect(url: str, name: str, ack_wait: float, prefix: str) -> Broker:
    """Return the connection to NATS, not opened yet. Raises SettingsError where its client is not installed."""
    require_nats()
    from saga.choreography.jetstream.broker import NatsBroker  # not in the base installation

    return NatsBroker(url, name, ack_wait, prefix)


def tasks_of(name: str, settings: Settings) -> tuple[dict[str, tuple[StepSubscription, Task]], list[DefinitionError]]:
    """Return what the sagas of SAGAS_DIR ask of the service `name`, by subject, and what is wrong with their files.

    A file that is wrong is left out. The sagas' URLs are not checked, since a service calls none of them.
    """
    found, wrong = [], []
    for path in sorted(settings.sagas_dir.glob("*.yaml")):
        try:
            found.append(load_definition(path, settings.environ, urls=False))
        except DefinitionError as error:
            wrong.append(error)
    return subscriptions_of(name, found), wrong


def check_listener(name: str, settings: Settings) -> None:
    """Raise SettingsError where the service `name` is a step of a saga, and the NATS client is not installed."""
    if tasks_of(name, settings)[0]:
        require_nats()


def attach_listener(
    participant: ParticipantDefinition,
    transactions: LocalTransactions,
    schema: Draft202012Validator,
    settings: Settings,
    closed: threading.Event,
) -> MessageEndpoint | None:
    """Let the service take part in the choreographed sagas of SAGAS_DIR that have a step of its name.

    Returns its connection to the broker, which is open already; None where no saga has such a step. `closed` is set
    when the service stops.
    """
    for metadata in (outbox.metadata, inbox.metadata):
        create_tables(transactions.engine, metadata)
    tasks, wrong = tasks_of(participant.name, settings)
    for error in wrong:
        logger.error("saga_not_heard: %s", error)
    if not tasks:
        return None
    endpoint = MessageEndpoint(participant.name, transactions.engine, settings)

    def publish_unconfirmed(event: SagaEvent) -> None:
        endpoint.broker.publish_unconfirmed(event.id, event.subject, event.payload())

    deps = ListenerDeps(
        transactions=transactions,
        schema=schema,
        secret=participant.secret,
        stall_base=settings.stall_base_seconds,
        stall_max=settings.stall_max_seconds,
        notify_relay=endpoint.relay.notify,
        publish_unconfirmed=publish_unconfirmed,
        closed=closed,
    )
    endpoint.relay.also_forget = partial(inbox.forget, transactions.engine)
    beginnings = [subject for subject in tasks if subject.endswith(f".{EventKind.STARTED}")]
    endpoint.broker.consume(participant.name, list(tasks), Listener(tasks, deps), abandonable=beginnings)
    endpoint.open()
    return endpoint
