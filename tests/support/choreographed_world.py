"""A choreographed world in one thread: the real rules, listeners, outboxes, relays, observer and databases.

The broker is the one in memory. Every instant at which a process could die is a numbered point; the process that dies
at one loses its memory, its transaction, and the acknowledgement of what it was handling.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event, select

from saga.barrier import saga_barrier
from saga.choreography import inbox, outbox
from saga.choreography.broker import Handler
from saga.choreography.events import SagaEvent, started, subscriptions_of
from saga.choreography.listener import Listener, ListenerDeps
from saga.choreography.memory_server import MemoryServer
from saga.choreography.observer import Observer
from saga.choreography.outbox import Relay, saga_outbox
from saga.definition import CHOREOGRAPHY, SagaDefinition
from saga.faults.crashes import OrchestratorCrashes
from saga.faults.flags import parse_plan
from saga.kits.flask import load_settings
from saga.kits.wiring import RunningParticipant
from saga.runtime.end_signals import EndSignals
from saga.saga_log import SagaLog
from saga.storage import log_tables
from saga.storage.database import connect, create_tables
from saga.views.representation import represent
from tests.support.builders import a_started_saga
from tests.support.world import INPUT, SERVICES, Crash, check_replay, quick, signup


class Broker:
    """The broker in memory, whose events are delivered one by one; each step is a point at which a process may die."""

    def __init__(self, world: ChoreographedWorld):
        self.world = world
        self.server = MemoryServer(world._clock)
        self.server.created_at = 0.0  # older than all that is published
        self.queues = self.server.queues
        self.handlers: dict[str, Callable[[], Handler]] = {}
        self.parked: list[tuple[str, str]] = []  # (subject, why)

    @property
    def stream(self) -> list[tuple[str, bytes]]:
        return [(event.subject, event.payload) for event in self.server.events() if event]

    def consume(self, name: str, subjects: Sequence[str], handler: Callable[[], Handler]) -> None:
        self.server.declare(name, subjects)
        self.handlers[name] = handler

    def publish(self, events: Sequence[tuple[str, str, bytes]]) -> list[bool]:
        for id, subject, payload in events:
            self.world.point(f"before publish {subject}")
            self.server.publish((subject, payload, {"Nats-Msg-Id": id}))
            self.world.point(f"after publish {subject}")
        return [True] * len(events)

    def park(self, id: str, subject: str, payload: bytes, reason: str) -> bool:
        raise AssertionError(f"{subject} cannot be understood: {reason}")

    def created_at(self) -> float:
        return self.server.created_at

    def put(self, subject: str, payload: bytes) -> None:
        self.server.publish((subject, payload, {}))

    def deliver(self, name: str) -> bool:
        """Make one delivery to one consumer, and return whether there was one."""
        delivery = self.server.take(name, ignore_delays=True)
        if delivery is None:
            return False
        try:
            self.world.point(f"{name} before {delivery.subject}")
            reaction = self.handlers[name]().handle(delivery)
            self.world.point(f"{name} before ack of {delivery.subject}")
        except BaseException:
            self.server.give_back(name, delivery)
            raise
        if reaction.park is not None:
            self.parked.append((delivery.subject, reaction.park))
        self.server.settle(name, delivery, reaction)
        return True


class CheckedLog(SagaLog):
    """The real log; at every write the row says what all its lines come to."""

    checks_writes = True

    def advance(self, saga_id: str, *args: Any, **kwargs: Any) -> None:
        super().advance(saga_id, *args, **kwargs)
        if self.checks_writes:
            check_replay(self, saga_id)


class ChoreographedWorld:
    """The services, the orchestrator that observes, and the broker between them."""

    def __init__(
        self,
        directory: Path,
        definition: SagaDefinition | None = None,
        database: Callable[[str], str] | None = None,
    ):
        self._url = database or (lambda name: f"sqlite:///{directory / name}.db")
        self.definition = (definition or signup()).in_mode(CHOREOGRAPHY)
        self.known = dict.fromkeys(SERVICES, self.definition)  # the file that each service was started with
        self.point: Callable[[str], None] = lambda name: None
        self.now = 1_000_000_000.0
        self.ids = itertools.count(1)
        self._started = 0  # the number of the saga that was started last
        self.done: list[tuple[str, str, str]] = []  # (saga, step, call): what the authors' functions did, and was kept
        self.broker = Broker(self)
        self.engines: dict[str, Engine] = {}
        self.participants: dict[str, RunningParticipant] = {}
        self.listeners: dict[str, Listener] = {}
        self.relays: dict[str, Relay] = {}
        self._awake: set[str] = set()  # the relays that have to look into their outbox
        for name in SERVICES:
            self._serve(name)
        self.engines["orchestrator"] = engine = _quick(connect(self._url("orchestrator")))
        self.log = CheckedLog(engine)
        self.log.checks_writes = engine.dialect.name == "sqlite"  # elsewhere it costs too many round trips
        create_tables(engine, log_tables.metadata)
        create_tables(engine, outbox.metadata)
        event.listen(engine, "commit", lambda connection: self._committing("orchestrator", connection))
        self.broker.consume("orchestrator", ["saga.>"], lambda: self.observer)
        self.restart()

    def close(self) -> None:
        for engine in self.engines.values():
            engine.dispose()

    def restart(self) -> None:
        """Make every process forget what it had in memory."""
        for name, service in SERVICES.items():
            deps = ListenerDeps(
                transactions=self.participants[name].transactions,
                schema=self.participants[name].endpoints.schema,
                secret=service.secret,
                stall_base=1.0,
                stall_max=60.0,
                notify_relay=lambda: None,
                publish_unconfirmed=self._publish_unconfirmed,
                closed=self.participants[name].closed,
                clock=self._clock,
                random=lambda: 0.5,
            )
            self.listeners[name] = Listener(self._heard(name), deps)
        for name, engine in self.engines.items():
            self.relays[name] = Relay(engine, self.broker, self._clock)
            self._awake.add(name)
        crashes = OrchestratorCrashes(self._exit)
        self.observer = Observer(self.log, EndSignals(), self._clock, lambda row, line: None, crashes.on_observed)

    def start(self, flags: str = "", input: Mapping[str, Any] = INPUT) -> str:
        """Start a saga, that is write its row and its events into the log's database, and return its id."""
        fail = [flag for flag in flags.split("&") if flag]
        plan = parse_plan(fail, [], [step.name for step in self.definition.steps], True)
        definition = self.definition.with_faults(plan.queries(), plan.orchestrator)
        self._started = next(self.ids)
        saga_id, now = f"saga-{self._started}", round(self._clock(), 6)
        detail = {"mode": CHOREOGRAPHY, "subject": "saga.signup.started"}
        row, line = a_started_saga(definition, input, now, detail, id=saga_id)
        self.log.begin(
            row, [line], outbox.written(started(definition, saga_id, input, now), self.engines["orchestrator"])
        )
        return saga_id

    def play(self, most: int = 2000) -> None:
        """Publish and deliver until there is nothing left; a process that crashes is started again."""
        for _ in range(most):
            if not self.round():
                return
        raise AssertionError(
            f"it never comes to rest: {[list(queue.waiting) for queue in self.broker.queues.values()]}"
        )

    def reach(self, name: str) -> None:
        """Publish, and deliver to the services before this one; what this one listens to is waiting for it then."""
        for relay in self.relays.values():
            relay.round()
        for before in [each for each in SERVICES if each < name and each in {s.name for s in self.definition.steps}]:
            while self.broker.deliver(before):
                pass
            self.relays[before].round()

    def round(self) -> bool:
        """Let each relay publish and each consumer get one delivery, and return whether there was any.

        A relay looks only where something was committed since it last looked, and before everything is at rest.
        """
        return self._moved(self._awake) or self._moved(set(self.relays))

    def _moved(self, awake: set[str]) -> bool:
        moved = False
        for work in [*self._relays(set(awake)), *self._deliveries()]:
            try:
                moved = bool(work()) or moved
            except Crash:
                moved = True
                self.restart()
                self._check_replay()
        return moved

    def _check_replay(self) -> None:
        """Check that what the log holds after a crash is what its lines come to. No process dies while we look."""
        point, self.point = self.point, lambda name: None
        check_replay(self.log, f"saga-{self._started}")
        self.point = point

    def _relays(self, awake: set[str]) -> list[Callable[[], bool | None]]:
        relays = [(name, relay) for name, relay in self.relays.items() if name in awake]
        return [work for name, relay in relays for work in (relay.round, relay.mark, lambda n=name: self._slept(n))]

    def _slept(self, name: str) -> None:
        self._awake.discard(name)

    def _deliveries(self) -> list[Callable[[], bool]]:
        return [lambda name=name: self.broker.deliver(name) for name in self.broker.queues]  # type: ignore[misc]

    def row(self, saga_id: str) -> dict[str, Any]:
        found = self.log.find(saga_id)
        assert found
        return represent(found)

    def rows(self, saga_id: str) -> dict[str, int]:
        """Return how many rows each service has of the saga."""
        return {name: len(self._select(name, SERVICES[name].table, saga_id)) for name in SERVICES}

    def barriers(self, saga_id: str) -> dict[str, str]:
        """Return the state of each service's barrier row."""
        return {name: row.state for name in SERVICES for row in self._select(name, saga_barrier, saga_id)}

    def unpublished(self) -> int:
        """Events that nobody was told of."""
        number = 0
        for engine in self.engines.values():
            with engine.begin() as connection:
                rows = connection.execute(select(saga_outbox.c.id).where(saga_outbox.c.published_at.is_(None)))
                number += len(rows.all())
        return number

    def _select(self, name: str, table: Any, saga_id: str) -> Sequence[Any]:
        with self.engines[name].begin() as connection:
            return connection.execute(select(table).where(table.c.saga_id == saga_id)).all()

    def _serve(self, name: str) -> None:
        settings = load_settings(
            {
                f"SERVICE_{name}_DB_URL": self._url(f"service_{name.lower()}"),
                "FAULT_HOLD_SECONDS": "0.001",
                "NATS_URL": "off",
            }
        )
        watched = replace(
            SERVICES[name],
            action=self._watched(name, "action", SERVICES[name].action),
            compensation=self._watched(name, "compensation", SERVICES[name].compensation),
        )
        app = watched.create_app(settings, exit=self._exit)
        self.participants[name] = running = app.extensions["saga"]
        self.engines[name] = engine = _quick(running.transactions.engine)
        for metadata in (outbox.metadata, inbox.metadata):
            create_tables(engine, metadata)
        event.listen(engine, "commit", lambda connection: self._committing(name, connection))
        event.listen(engine, "rollback", lambda connection: connection.info.pop("work", None))
        self.broker.consume(name, list(self._heard(name)), lambda: self.listeners[name])

    def _heard(self, name: str) -> dict[str, Any]:
        return subscriptions_of(name, [self.known[name]])

    def change(self, definition: SagaDefinition, *names: str) -> None:
        """These processes, or all, are started again with another file; a service that is new hears what there is."""
        names = names or (*SERVICES, "orchestrator")
        old = {name: {step.name for step in self.known[name].steps} for name in SERVICES}
        new = {name for name in names if name not in old.get(name, {name})}
        changed = definition.in_mode(CHOREOGRAPHY)
        if "orchestrator" in names:
            self.definition = changed
        self.known |= {name: changed for name in names if name in SERVICES}
        self.restart()
        for name in [each for each in SERVICES if each in names]:
            queue = self.broker.queues[name]
            queue.subjects = list(self._heard(name))
            heard = [(index, subject in queue.subjects) for index, (subject, _) in enumerate(self.broker.stream)]
            known = queue.waiting if name not in new else [(index, 0) for index, _ in heard]
            queue.waiting = deque((index, number) for index, number in known if heard[index][1])

    def _watched(self, step: str, call: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(tx: Any, fields: Mapping[str, Any]) -> Any:
            result = function(tx, fields)
            tx.execute.__self__.info["work"] = (tx.saga_id, step, call)
            return result

        return run

    def _committing(self, name: str, connection: Any) -> None:
        self._awake.add(name)
        self.point(f"{name} commits")
        if work := connection.info.pop("work", None):
            self.done.append(work)

    def _publish_unconfirmed(self, event: SagaEvent) -> None:
        self.broker.put(event.subject, event.payload())

    def _clock(self) -> float:
        self.now += 0.01
        return self.now

    def _exit(self, code: int) -> None:
        raise Crash(f"exit({code})")


def _quick(engine: Engine) -> Engine:
    return quick(engine) if engine.dialect.name == "sqlite" else engine
