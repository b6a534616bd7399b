"""These hooks act out, in a participant, the failures that are injected into its calls; see FaultKind.

The hooks stand around one attempt: `before` and the first lines of `around_…` come before its local transaction, the
rest after the COMMIT. A fault that loses the answer after the COMMIT loses the events that tell others of it too; it
does not strike an action that is refused, since that one has nothing to commit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from saga.barrier import StepAnswer, Transaction
from saga.errors import Refused
from saga.faults.flags import CRASH_EXIT_CODE, FaultKind, parse_delay, parse_fault, total_delay
from saga.local_transaction import NO_HOOKS, ActionAttempt, AttemptHooks, LocalOutcome, StepFunction

LOSES_ANSWER = frozenset({FaultKind.AFTER, FaultKind.LOST, FaultKind.GARBAGE, FaultKind.CRASH_AFTER})


class FaultInjector:
    """Finds the hooks of an attempt by the flags that came with it: a FindHooks.

    `exit` ends the process; `closed` is set when the service stops, which ends all waiting; `hold` is how many seconds
    `lost` and `late` wait.
    """

    def __init__(self, exit: Callable[[int], Any], closed: threading.Event, hold: float):
        self._exit = exit
        self._closed = closed
        self._hold = hold

    def __call__(self, flags: Sequence[tuple[str, str]], attempt: int) -> AttemptHooks:
        """Return the hooks of the attempt with this number.

        Raises BadInput, which names the flag, where one is wrong.
        """
        if not flags:
            return NO_HOOKS
        faults = [parse_fault(value, f"fail={value}") for name, value in flags if name == "fail"]
        delays = [parse_delay(value, f"delay={value}") for name, value in flags if name == "delay"]
        active = frozenset(fault.kind for fault in faults if fault.strikes(attempt))
        return InjectedFaults(active, total_delay(delays, attempt), self._exit, self._closed, self._hold)


class InjectedFaults(AttemptHooks):
    """The failures that are injected into one attempt, and the delay (seconds) before it."""

    def __init__(
        self,
        active_faults: frozenset[FaultKind],
        delay: float,
        exit: Callable[[int], Any],
        closed: threading.Event,
        hold: float,
    ):
        self._active = active_faults
        self._delay = delay
        self._exit = exit
        self._closed = closed
        self._hold = hold

    def before(self) -> None:
        """Hold the attempt up."""
        if self._delay:
            self._closed.wait(self._delay)

    def around_action(self, attempt: ActionAttempt) -> LocalOutcome:
        """Run the action, with what is injected before and after it."""
        if FaultKind.BEFORE in self._active:
            return _failed(FaultKind.BEFORE, certain=True)
        if FaultKind.LATE in self._active:
            self._closed.wait(self._hold)
        outcome = attempt.run(self._within, tell_success=not self._active & LOSES_ANSWER)
        if outcome.answer.status != 200:
            return outcome
        if FaultKind.CRASH_AFTER in self._active:
            self._exit(CRASH_EXIT_CODE)
        if FaultKind.LOST in self._active:
            self._closed.wait(self._hold)
            # Whoever has waited so long hears of it after all: the barrier gives the saved answer, and tells of it.
            # Where that fails, so does the attempt, whose action took effect all the same: the event that asks for it
            # must not be acknowledged before others know of it.
            if attempt.tells_others:
                second = attempt.run()
                if second.answer.status != 200:
                    return replace(second, certain=False)
        if FaultKind.AFTER in self._active:
            return _failed(FaultKind.AFTER, certain=False)
        if FaultKind.GARBAGE in self._active:
            return LocalOutcome(outcome.answer, garbled="<garbage>")
        return outcome

    def around_compensation(self, run: Callable[[], LocalOutcome]) -> LocalOutcome:
        """Run the compensation, unless it is to fail."""
        return _failed(FaultKind.UNDO, certain=True) if FaultKind.UNDO in self._active else run()

    def _within(self, action: StepFunction) -> StepFunction:
        """Return the function that runs in the transaction in the action's place."""

        def crash(transaction: Transaction, fields: Mapping[str, Any]) -> Mapping[str, Any] | None:
            result = action(transaction, fields)
            self._exit(CRASH_EXIT_CODE)
            return result

        if FaultKind.REFUSE in self._active:
            return _refuse
        return crash if FaultKind.CRASH in self._active else action


def _refuse(transaction: Transaction, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    raise Refused("injected: refuse")


def _failed(kind: FaultKind, certain: bool) -> LocalOutcome:
    return LocalOutcome(StepAnswer(500, {"error": f"injected: {kind}"}), certain)
