"""A process's way into choreographed sagas: its connection to the broker, the relay of its outbox, its listener."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from jsonschema import Draft202012Validator
from sqlalchemy import Engine

from saga.choreography import inbox
from saga.choreography.broker import Broker
from saga.choreography.events import EventKind, SagaEvent, StepSubscription, Task
from saga.choreography.listener import Listener, ListenerDeps
from saga.choreography.outbox import Relay
from saga.definition import SagaDefinition
from saga.definition_file import load_definition
from saga.errors import DefinitionError
from saga.local_transaction import LocalTransactions
from saga.process.settings import Settings

logger = logging.getLogger("saga")


class MessageEndpoint:
    """The broker and the relay of one process."""

    def __init__(self, name: str, engine: Engine, settings: Settings):
        # A process that dies in the middle of an event lets another have it after a third of a lease.
        ack_wait = settings.lease_seconds / 3
        self.broker = Broker(settings.nats_url or "", name, ack_wait, settings.nats_prefix)
        self.relay = Relay(engine, self.broker, name=name)

    def open(self) -> None:
        """Connect, in the background; nothing waits for the broker."""
        self.broker.open()
        self.relay.open()

    def close(self) -> None:
        """Let go: what is under way is delivered again."""
        self.relay.close()
        self.broker.close()


def load_valid_definitions(directory: Path, environ: Mapping[str, str]) -> list[SagaDefinition]:
    """The sagas in `directory` whose files are right, for who calls no URL; of a wrong one the log tells."""
    found = []
    for path in sorted(directory.glob("*.yaml")):
        try:
            found.append(load_definition(path, environ, urls=False))
        except DefinitionError as error:
            logger.error("saga_not_heard: %s", error)
    return found


def attach_listener(
    name: str,
    heard: Mapping[str, tuple[StepSubscription, Task]],
    transactions: LocalTransactions,
    schema: Draft202012Validator,
    secret: Sequence[str],
    settings: Settings,
) -> MessageEndpoint:
    """The endpoint of a service: it listens to the subjects in `heard`, and does what they ask."""
    endpoint = MessageEndpoint(name, transactions.engine, settings)

    def tell(event: SagaEvent) -> None:
        endpoint.broker.tell(event.id, event.subject, event.payload())

    deps = ListenerDeps(
        transactions=transactions,
        schema=schema,
        secret=secret,
        faults=settings.faults,
        stall_base=settings.stall_base_seconds,
        stall_max=settings.stall_max_seconds,
        notify=endpoint.relay.notify,
        tell=tell,
        closed=transactions.closed,
    )
    endpoint.relay.also_forget = partial(inbox.forget, transactions.engine)
    beginnings = [subject for subject in heard if subject.endswith(f".{EventKind.STARTED}")]
    endpoint.broker.consume(name, list(heard), Listener(heard, deps), abandonable=beginnings)
    return endpoint
