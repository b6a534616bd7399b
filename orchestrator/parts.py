"""The parts of an orchestrator, as `bootstrap` has wired them: what the API and the dashboard call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestrator.health import HealthMonitor
from orchestrator.stream import Stream
from orchestrator.telemetry import Telemetry
from saga.choreography.coordinator_without_broker import CHOREOGRAPHY_OFF
from saga.definition import CHOREOGRAPHY, MODES, ORCHESTRATION, SagaDefinition
from saga.errors import BadInput
from saga.process.settings import Settings
from saga.runtime.coordinator import Coordinator
from saga.runtime.driver_pool import DriverPool
from saga.runtime.kept_exchanges import KeptExchanges
from saga.runtime.log_lines import LogLines
from saga.runtime.operator import Operator
from saga.runtime.recovery import Recovery
from saga.runtime.saga_starter import SagaStarter
from saga.saga_log import SagaLog
from saga.views.saga_search import SagaSearch

if TYPE_CHECKING:
    from orchestrator.choreography_coordinator import ChoreographyCoordinator
    from saga.temporal.client import TemporalWorkflows


@dataclass(frozen=True)
class Orchestrator:
    """All parts of one orchestrator, and the questions that concern more than one of them."""

    settings: Settings
    definitions: Mapping[str, SagaDefinition]
    log: SagaLog
    search: SagaSearch
    lines: LogLines
    exchanges: KeptExchanges
    pool: DriverPool
    coordinators: Mapping[str, Coordinator]
    starter: SagaStarter
    operator: Operator
    recovery: Recovery
    telemetry: Telemetry
    stream: Stream
    health: HealthMonitor
    choreographer: ChoreographyCoordinator | None  # None: choreography is switched off
    temporal: TemporalWorkflows | None  # None: there is no Temporal here

    @property
    def choreography(self) -> ChoreographyCoordinator:
        """The coordinator of choreographed sagas. Raises BadInput where choreography is switched off."""
        if self.choreographer is None:
            raise BadInput(f"mode: {CHOREOGRAPHY_OFF}", "mode")
        return self.choreographer

    def open(self) -> None:
        """Start the threads: from now on sagas are driven, recovered and observed."""
        self.pool.open()
        self.recovery.open()
        self.stream.open()
        if self.choreographer:
            self.choreographer.open()
        if self.temporal:
            self.temporal.open()

    def close(self) -> None:
        """Take no more sagas, and hand over those in flight."""
        self.stream.close()
        if self.choreographer:
            self.choreographer.close()
        if self.temporal:
            self.temporal.close()
        self.recovery.close()
        self.pool.close()

    def mode(self, name: str | None) -> str:
        """Return the mode `name`; orchestration where it is None. Raises BadInput where it is unknown or off."""
        if name not in (None, *MODES):
            raise BadInput(f"mode must be {ORCHESTRATION} or {CHOREOGRAPHY}, not {name!r}", "mode")
        if name == CHOREOGRAPHY:
            _ = self.choreography  # raises BadInput where there is none
        return name or ORCHESTRATION

    def resolve(
        self, saga_id: str, note: str, result: Mapping[str, Any] | None = None, outcome: str | None = None
    ) -> None:
        """Resolve a saga as `Operator.resolve` does; then ask its services before the next page shows their state."""
        self.operator.resolve(saga_id, note, result, outcome)
        self.health.recheck(saga_id)

    @property
    def default_saga(self) -> str | None:
        """The saga that is meant where none is named: `signup`, or the only one; None where one must be named."""
        if "signup" in self.definitions:
            return "signup"
        return next(iter(self.definitions)) if len(self.definitions) == 1 else None

    def check_start(self, definition: SagaDefinition, key: str | None = None) -> None:
        """Raise BadInput where such a saga certainly could not go on, as nobody would hear of one of its steps."""
        self.coordinators[definition.coordinator].check_start(definition, key)

    def definition(self, name: str | None) -> SagaDefinition:
        """Return the saga called `name`, to be started. Raises BadInput where there is none, or one must be named."""
        name = self.default_saga if name is None else name
        known = ", ".join(self.definitions)
        if name is None:
            raise BadInput(f"saga is required, because there are several: {known}", "saga")
        if name not in self.definitions:
            raise BadInput(f"saga: there is no saga {name!r}; there is {known}", "saga")
        return self.definitions[name].on_engine(self.settings.engine)

    def definition_or_first(self, name: str | None) -> SagaDefinition:
        """Return the saga called `name`, to be shown; without a name the default, or the first of several."""
        return self.definition(name or self.default_saga or next(iter(self.definitions)))
