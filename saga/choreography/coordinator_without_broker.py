"""The coordinator of choreographed sagas in an orchestrator without a broker (NATS_URL=off).

It starts no choreographed saga and receives no events. It shows the sagas that are in the log, and marks those whose
deadline has passed. ChoreographyCoordinator, in orchestrator/choreography_coordinator.py, adds what needs a broker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from saga.choreography.permitted_commands import instead, permitted_commands, refusal
from saga.definition import SagaDefinition
from saga.errors import BadInput, Conflict, LeaseLost, SagaUnreadable
from saga.machine import Line
from saga.runtime.coordinator import WaitingCaller
from saga.saga_row import SagaRow, Stored

CHOREOGRAPHY_OFF = "choreography is switched off here (NATS_URL=off)"


class CoordinatorWithoutBroker:
    """A coordinator that refuses every start and almost every command, and marks sagas that are overdue."""

    poll_interval = 0.2  # seconds

    def __init__(self, mark_overdue: Callable[[SagaRow], None]):
        self._mark_overdue = mark_overdue

    def check_start(self, definition: SagaDefinition, key: str | None = None) -> None:
        """Raise BadInput: choreography is switched off."""
        raise BadInput(f"mode: {CHOREOGRAPHY_OFF}", "mode")

    def start(self, row: SagaRow, line: Line, caller: WaitingCaller) -> Stored:
        """Raise BadInput: choreography is switched off."""
        raise BadInput(f"mode: {CHOREOGRAPHY_OFF}", "mode")

    def permitted_commands(self, row: SagaRow) -> set[str]:
        """Return the commands that the saga's state would permit if there were a broker."""
        return permitted_commands(row)

    def cancel(self, row: SagaRow) -> None:
        """Raise Conflict: nobody is in charge of the saga."""
        raise Conflict(instead(row))

    def resume(self, row: SagaRow) -> None:
        """Raise Conflict: nobody is in charge of the saga, and its parked events cannot be reached."""
        raise Conflict(instead(row))

    def resolve(self, row: SagaRow, note: str, result: Mapping[str, Any] | None = None) -> None:
        """Raise Conflict: nobody is in charge of the saga."""
        raise Conflict(instead(row))

    def abandon(self, row: SagaRow, note: str) -> None:
        """Raise Conflict: without a broker nobody knows who has heard of the saga."""
        raise Conflict(refusal("abandon", row) or CHOREOGRAPHY_OFF)

    def when_due(self, row: SagaRow) -> bool:
        """Mark the saga as overdue: its deadline has passed."""
        with suppress(LeaseLost, SagaUnreadable):  # it has moved on, and is looked at again; or it is set aside
            self._mark_overdue(row)
        return True
