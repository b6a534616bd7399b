"""The injected crashes of an orchestrator: `fail=orchestrator:before-B`, `after-B`, `before-undo-B`, `after-undo-B`.

The process exits just before it makes the call, or once it has the answer and before it logs it. Each crash strikes
once per saga: a line of the saga's log says that it has struck.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from saga.driver import Driver
from saga.faults.flags import CRASH_EXIT_CODE
from saga.machine import FAULT, Call, Direction


class OrchestratorCrashes:
    """The hooks of a driver that make its process crash; see `DriverDeps`."""

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
        name = crash_of(when, call, row.definition.faults, row.context.faults)
        if name is None:
            return
        driver.discard_unwritten()  # an answer that is not logged yet is what the crash must lose
        driver.add_line(FAULT, {"fault": name})
        self._exit(CRASH_EXIT_CODE)


def crash_of(when: str, call: Call, faults: Sequence[str], struck: Sequence[str]) -> str | None:
    """Return the name of the crash that strikes `when` ("before" or "after") this call; None where none does.

    `faults` are the crashes that the saga's definition names, and `struck` are those that have happened already.
    """
    undo = "undo-" if call.direction is Direction.COMPENSATION else ""
    name = f"{when}-{undo}{call.step.name}"
    return name if name in faults and name not in struck else None
