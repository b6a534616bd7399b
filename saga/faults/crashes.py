"""The injected crashes of an orchestrator: `fail=orchestrator:before-B`, `after-B`, `before-undo-B`, `after-undo-B`.

The process exits just before it makes the call, or once it has the answer and before it logs it. Where it only observes
a choreographed saga, it exits before it logs the event that answers the call, or once the call follows from the log.
Each crash strikes once per saga: a line of the saga's log says that it has struck.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from saga.driver import Driver
from saga.faults.flags import CRASH_EXIT_CODE
from saga.machine import FAULT, Call, Direction
from saga.saga_row import SagaRow

LogFault = Callable[[str, Mapping[str, Any]], None]  # adds a line about a fault, with its step and detail, to the log


class OrchestratorCrashes:
    """The hooks of a driver and of an observer that make their process crash; see `DriverDeps` and `Observer`."""

    def __init__(self, exit: Callable[[int], None]):
        self._exit = exit

    def before_attempt(self, driver: Driver, call: Call) -> None:
        """Crash before the call is made, where the saga's definition says so."""
        self._strike("before", driver, call)

    def after_call(self, driver: Driver, call: Call) -> None:
        """Crash before the answer is logged, where the saga's definition says so."""
        self._strike("after", driver, call)

    def _strike(self, when: str, driver: Driver, call: Call) -> None:
        row = driver.row
        name = crash_of(when, call.direction, call.step.name, row)
        if name is None:
            return
        driver.discard_unwritten()  # an answer that is not logged yet is what the crash must lose
        driver.add_line(FAULT, {"fault": name})
        self._exit(CRASH_EXIT_CODE)

    def on_observed(self, when: str, direction: Direction, step: str, row: SagaRow, log_fault: LogFault) -> None:
        """Crash "after" an observed call, before its event is logged, or "before" the one that follows from the log."""
        name = crash_of(when, direction, step, row)
        if name is not None:
            log_fault(step, {"fault": name})
            self._exit(CRASH_EXIT_CODE)


def crash_of(when: str, direction: Direction, step: str, row: SagaRow) -> str | None:
    """Return the name of the crash that strikes `when` ("before" or "after") this call of a step; None where none does.

    The saga's definition names the crashes; one that has struck already, as its log says, does not strike again.
    """
    undo = "undo-" if direction is Direction.COMPENSATION else ""
    name = f"{when}-{undo}{step}"
    return name if name in row.definition.faults and name not in row.context.faults else None
