"""Wires the orchestrator together from its settings: the one place that knows every part."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uuid_utils

from orchestrator.choreography_coordinator import ChoreographyCoordinator
from orchestrator.gauges import Gauges
from orchestrator.health import HealthMonitor
from orchestrator.stream import Stream
from orchestrator.telemetry import Telemetry
from saga.choreography import outbox
from saga.choreography.coordinator import CHOREOGRAPHY_OFF, CoordinatorWithoutBroker
from saga.choreography.observer import Observer
from saga.definition import BUILTIN, CHOREOGRAPHY, MODES, ORCHESTRATION, TEMPORAL, SagaDefinition
from saga.definition_file import load_definitions
from saga.driver import DriverDeps
from saga.errors import BadInput
from saga.faults.crashes import OrchestratorCrashes
from saga.http_client import new_transport
from saga.process.settings import Settings
from saga.runtime.built_in_coordinator import BuiltInCoordinator
from saga.runtime.coordinator import Coordinator
from saga.runtime.driver_pool import DriverPool
from saga.runtime.end_signals import EndSignals
from saga.runtime.engine import Engine
from saga.runtime.log_lines import LogLines
from saga.runtime.operator import Operator
from saga.runtime.recovery import Recovery
from saga.runtime.waiting_callers import WaitingCallers
from saga.saga_log import SagaLog
from saga.storage import log_sql
from saga.storage.database import connect, create_tables
from saga.temporal import require_temporal, temporal_installed
from saga.temporal.coordinator import TemporalCoordinator
from saga.views.saga_search import SagaSearch

if TYPE_CHECKING:
    from saga.temporal.client import TemporalWorkflows

CONNECTIONS = 32  # to the saga log
SDK = "Temporal's SDK: pip install 'saga-stack[temporal]', or in Docker SAGA_IMAGE=temporal"


@dataclass(frozen=True)
class Orchestrator:
    """The parts that the routes call."""

    settings: Settings
    definitions: Mapping[str, SagaDefinition]
    log: SagaLog
    search: SagaSearch
    lines: LogLines
    pool: DriverPool
    coordinators: Mapping[str, Coordinator]
    engine: Engine
    operator: Operator
    recovery: Recovery
    telemetry: Telemetry
    stream: Stream
    health: HealthMonitor
    choreographer: ChoreographyCoordinator | None  # None: choreography is off (NATS_URL)
    temporal: TemporalWorkflows | None  # None: there is none (ENGINE, TEMPORAL_ADDRESS)

    @property
    def choreography(self) -> ChoreographyCoordinator:
        """BadInput where it is switched off."""
        if self.choreographer is None:
            raise BadInput(f"mode: {CHOREOGRAPHY_OFF}", "mode")
        return self.choreographer

    def open(self) -> None:
        """Start driving and recovering."""
        self.pool.open()
        self.recovery.open()
        self.stream.open()
        if self.choreographer:
            self.choreographer.open()
        if self.temporal:
            self.temporal.open()

    def close(self) -> None:
        """Take no more, hand over what is in flight."""
        self.stream.close()
        if self.choreographer:
            self.choreographer.close()
        if self.temporal:
            self.temporal.close()
        self.recovery.close()
        self.pool.close()

    def mode(self, name: str | None) -> str:
        """The mode called `name`, without one orchestration; BadInput where there is none, or it is switched off."""
        if name not in (None, *MODES):
            raise BadInput(f"mode must be {ORCHESTRATION} or {CHOREOGRAPHY}, not {name!r}", "mode")
        if name == CHOREOGRAPHY:
            _ = self.choreography
        return name or ORCHESTRATION

    def resume(self, saga_id: str) -> None:
        """Make the call that stalled a saga again, now; replay what of a choreographed one is parked."""
        self.operator.resume(saga_id)

    def resolve(
        self, saga_id: str, note: str, result: Mapping[str, Any] | None = None, outcome: str | None = None
    ) -> None:
        """Go on as if the call that stalled a saga had succeeded; the services are asked whether that is so."""
        self.operator.resolve(saga_id, note, result, outcome)
        self.health.recheck(saga_id)

    @property
    def default_saga(self) -> str | None:
        """The saga that is meant where none is named: `signup`, or the only one; None where one must be named."""
        if "signup" in self.definitions:
            return "signup"
        return next(iter(self.definitions)) if len(self.definitions) == 1 else None

    def abandon(self, saga_id: str, note: str) -> None:
        """End a choreographed saga that no service has heard of."""
        self.operator.abandon(saga_id, note)

    def check_start(self, definition: SagaDefinition, key: str | None = None) -> None:
        """Raise BadInput where such a saga certainly could not go on: nobody would hear of one of its steps."""
        self.coordinators[definition.coordinator].check_start(definition, key)

    def definition(self, name: str | None) -> SagaDefinition:
        """The saga called `name`, for a new start; BadInput where there is none, or one must be named."""
        name = self.default_saga if name is None else name
        known = ", ".join(self.definitions)
        if name is None:
            raise BadInput(f"saga is required, because there are several: {known}", "saga")
        if name not in self.definitions:
            raise BadInput(f"saga: there is no saga {name!r}; there is {known}", "saga")
        return self.definitions[name].on_engine(self.settings.engine)

    def definition_or_first(self, name: str | None) -> SagaDefinition:
        """The saga called `name`, to be shown; without a name the default, or the first of several."""
        return self.definition(name or self.default_saga or next(iter(self.definitions)))


def bootstrap(settings: Settings, exit: Callable[[int], None] = os._exit) -> Orchestrator:
    """Everything made and connected to each other; nothing started yet."""
    definitions = load_definitions(settings.sagas_dir, settings.environ)
    database = connect(settings.saga_log_url, pool_size=CONNECTIONS)
    create_tables(database, log_sql.metadata)
    create_tables(database, outbox.metadata)
    saga_log = SagaLog(database)
    search, lines = SagaSearch(saga_log), LogLines(saga_log)
    telemetry = Telemetry()
    stopping = threading.Event()
    crashes = OrchestratorCrashes(exit)
    deps = DriverDeps(
        log=saga_log,
        transport=new_transport(),
        owner=f"{socket.gethostname()}:{settings.orchestrator_port}",
        clock=time.time,
        sleep=stopping.wait,
        random=random.random,
        stopping=stopping.is_set,
        observe=telemetry.observe,
        lease=settings.lease_seconds,
        stall_base=settings.stall_base_seconds,
        stall_max=settings.stall_max_seconds,
        token=settings.token,
        before_attempt=crashes.before_attempt,
        after_call=crashes.after_call,
    )
    end_signals = EndSignals()
    pool = DriverPool(deps, stopping)
    telemetry.show_pool(pool)

    observer = Observer(saga_log, end_signals, time.time, telemetry.observe, exit)
    choreography = ChoreographyCoordinator(database, deps, observer, settings) if settings.nats_url else None
    temporal = _temporal(settings, saga_log, end_signals.ended)
    coordinators: dict[str, Coordinator] = {
        BUILTIN: BuiltInCoordinator(pool),
        CHOREOGRAPHY: choreography or CoordinatorWithoutBroker(observer.overdue),
        TEMPORAL: TemporalCoordinator(deps, temporal, SDK if settings.temporal_elsewhere else "TEMPORAL_ADDRESS"),
    }

    waiting = WaitingCallers(pool, end_signals, coordinators)
    count_letters = choreography.count_dead_letters if choreography else None
    telemetry.show_gauges(Gauges(saga_log, count_letters, time.time, time.monotonic))
    return Orchestrator(
        settings=settings,
        definitions=definitions,
        log=saga_log,
        search=search,
        lines=lines,
        pool=pool,
        coordinators=coordinators,
        engine=Engine(pool, waiting, coordinators, new_id=lambda: str(uuid_utils.uuid7())),
        operator=Operator(deps, coordinators),
        recovery=Recovery(pool, coordinators, settings.recovery_interval),
        telemetry=telemetry,
        stream=Stream(saga_log, lines),
        health=HealthMonitor(
            saga_log, search, definitions.values(), deps.transport, settings.token, time.time, count_letters
        ),
        choreographer=choreography,
        temporal=temporal,
    )


def _temporal(settings: Settings, saga_log: SagaLog, tell: Callable[[str], None]) -> TemporalWorkflows | None:
    """None where no setting names a Temporal, or one names it for old sagas only and the SDK is not installed."""
    if settings.engine == TEMPORAL:
        require_temporal()
    elif not (settings.temporal_elsewhere and temporal_installed()):
        return None
    return temporal_client(settings, saga_log, tell)


def temporal_client(
    settings: Settings, saga_log: SagaLog, tell: Callable[[str], None] = lambda saga_id: None
) -> TemporalWorkflows:
    """Return what starts workflows on Temporal and sends them commands; `tell` is called with an ended saga's id."""
    from saga.temporal.client import TemporalWorkflows  # not in the base installation
    from saga.temporal.messages import Timing
    from saga.temporal.workflow_client import WorkflowClient

    timing = Timing(settings.lease_seconds, settings.stall_base_seconds, settings.stall_max_seconds)
    workflows = WorkflowClient(settings.temporal, timing)
    return TemporalWorkflows(workflows, saga_log, time.time, settings.recovery_interval, tell)
