"""The runtime around one saga log, as `orchestrator/bootstrap.py` wires it, without a broker and without Temporal."""

from __future__ import annotations

import threading
from collections.abc import Callable

from saga.choreography.coordinator_without_broker import CoordinatorWithoutBroker
from saga.definition import BUILTIN, CHOREOGRAPHY, TEMPORAL
from saga.driver import DriverDeps
from saga.runtime.built_in_coordinator import BuiltInCoordinator
from saga.runtime.coordinator import Coordinator
from saga.runtime.driver_pool import DriverPool
from saga.runtime.end_signals import EndSignals
from saga.runtime.operator import Operator
from saga.runtime.recovery import Recovery
from saga.runtime.saga_starter import SagaStarter
from saga.runtime.waiting_callers import WaitingCallers
from saga.temporal.temporal_coordinator import TemporalCoordinator


class Runtime:
    """Its parts; no thread is started."""

    def __init__(self, deps: DriverDeps, new_id: Callable[[], str] = lambda: "", interval: float = 1.0):
        self.pool = DriverPool(deps, threading.Event())
        coordinators: dict[str, Coordinator] = {
            BUILTIN: BuiltInCoordinator(self.pool),
            CHOREOGRAPHY: CoordinatorWithoutBroker(lambda row: None),
            TEMPORAL: TemporalCoordinator(deps, None, "TEMPORAL_ADDRESS"),
        }
        self.waiting = WaitingCallers(self.pool, EndSignals(), coordinators)
        self.starter = SagaStarter(self.pool, self.waiting, coordinators, new_id)
        self.operator = Operator(deps, coordinators)
        self.recovery = Recovery(self.pool, coordinators, interval)
