"""Wires the orchestrator together from its settings: the one place that knows every part.

What a setting asks for is imported here and only then: NATS for choreography, Temporal's SDK for workflows.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import uuid_utils
from sqlalchemy import Engine

from orchestrator.gauges import Gauges
from orchestrator.health import HealthMonitor
from orchestrator.parts import Orchestrator
from orchestrator.stream import Stream
from orchestrator.telemetry import Telemetry
from saga.choreography import outbox
from saga.choreography.coordinator_without_broker import CoordinatorWithoutBroker
from saga.choreography.observer import Observer
from saga.definition import BUILTIN, CHOREOGRAPHY, TEMPORAL
from saga.definition_file import load_definitions
from saga.driver import DriverDeps
from saga.faults.crashes import OrchestratorCrashes
from saga.http_client import new_transport
from saga.process.settings import Settings
from saga.runtime.built_in_coordinator import BuiltInCoordinator
from saga.runtime.coordinator import Coordinator
from saga.runtime.driver_pool import DriverPool
from saga.runtime.end_signals import EndSignals
from saga.runtime.kept_exchanges import KeptExchanges
from saga.runtime.log_lines import LogLines
from saga.runtime.operator import Operator
from saga.runtime.recovery import Recovery
from saga.runtime.saga_starter import SagaStarter
from saga.runtime.waiting_callers import WaitingCallers
from saga.saga_log import SagaLog
from saga.storage import body_sql, log_tables
from saga.storage.database import connect, create_tables
from saga.temporal import require_temporal, temporal_installed
from saga.temporal.temporal_coordinator import TemporalCoordinator
from saga.views.saga_search import SagaSearch

if TYPE_CHECKING:
    from orchestrator.choreography_coordinator import ChoreographyCoordinator
    from saga.temporal.client import TemporalWorkflows

CONNECTIONS = 32  # to the saga log
SDK = "Temporal's SDK: pip install 'saga-stack[temporal]', or in Docker SAGA_IMAGE=temporal"


def bootstrap(settings: Settings, exit: Callable[[int], None] = os._exit) -> Orchestrator:
    """Make every part and connect it to the others; no thread is started yet.

    Raises BadInput where the settings or the sagas' files are wrong.
    """
    # The sagas and their log
    definitions = load_definitions(settings.sagas_dir, settings.environ)
    database = connect(settings.saga_log_url, pool_size=CONNECTIONS, plain=settings.plain)
    create_tables(database, log_tables.metadata)
    create_tables(database, body_sql.metadata)
    create_tables(database, outbox.metadata)
    saga_log = SagaLog(database)
    search, lines = SagaSearch(saga_log), LogLines(saga_log)
    exchanges = KeptExchanges(saga_log.database, settings.keep_bodies)

    # The drivers
    telemetry, stopping, crashes = Telemetry(), threading.Event(), OrchestratorCrashes(exit)
    deps = DriverDeps(
        log=saga_log,
        transport=new_transport(settings.plain),
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
        keep=exchanges.statements,
    )
    pool = DriverPool(deps, stopping)

    # The coordinators: one for whatever a saga's definition names
    end_signals = EndSignals()
    observer = Observer(saga_log, end_signals, time.time, telemetry.observe, crashes.on_observed)
    choreography = _choreography(settings, database, deps, observer)
    temporal = _temporal(settings, saga_log, end_signals.ended)
    coordinators: dict[str, Coordinator] = {
        BUILTIN: BuiltInCoordinator(pool),
        CHOREOGRAPHY: choreography or CoordinatorWithoutBroker(observer.overdue),
        TEMPORAL: TemporalCoordinator(deps, temporal, SDK if settings.temporal_elsewhere else "TEMPORAL_ADDRESS"),
    }

    # Those who start sagas, wait for them, look after them, and show them
    waiting = WaitingCallers(pool, end_signals, coordinators)
    count_letters = choreography.count_dead_letters if choreography else None
    telemetry.show_pool(pool)
    telemetry.show_gauges(Gauges(saga_log, count_letters, time.time, time.monotonic))
    return Orchestrator(
        settings=settings,
        definitions=definitions,
        log=saga_log,
        search=search,
        lines=lines,
        exchanges=exchanges,
        pool=pool,
        coordinators=coordinators,
        starter=SagaStarter(pool, waiting, coordinators, new_id=lambda: str(uuid_utils.uuid7())),
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


def _choreography(
    settings: Settings, database: Engine, deps: DriverDeps, observer: Observer
) -> ChoreographyCoordinator | None:
    """Return the coordinator of choreographed sagas; None where choreography is switched off."""
    if not settings.nats_url:
        return None
    from orchestrator.choreography_coordinator import ChoreographyCoordinator

    return ChoreographyCoordinator(database, deps, observer, settings)


def _temporal(settings: Settings, saga_log: SagaLog, tell: Callable[[str], None]) -> TemporalWorkflows | None:
    """Return the client of Temporal; None where no setting asks for it, or only old sagas need it and it is missing."""
    if settings.engine == TEMPORAL:
        require_temporal()
    elif not (settings.temporal_elsewhere and temporal_installed()):
        return None
    return temporal_client(settings, saga_log, tell)


def temporal_client(
    settings: Settings, saga_log: SagaLog, tell: Callable[[str], None] = lambda saga_id: None
) -> TemporalWorkflows:
    """Return a client of Temporal for the sagas in this log; `tell` is called with the id of each saga that ends."""
    from saga.temporal.client import TemporalWorkflows  # not in the base installation
    from saga.temporal.messages import Timing
    from saga.temporal.workflow_client import WorkflowClient

    timing = Timing(settings.lease_seconds, settings.stall_base_seconds, settings.stall_max_seconds)
    workflows = WorkflowClient(settings.temporal, timing)
    return TemporalWorkflows(workflows, saga_log, time.time, settings.recovery_interval, tell)
