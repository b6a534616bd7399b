"""Temporal: a workflow drives the saga, and this process starts the workflow and passes operators' commands on.

A saga is started once its row is committed. Its workflow is started right after that; where that fails, or the process
dies in between, whoever looks next starts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from saga.definition import SagaDefinition
from saga.driver import DriverDeps
from saga.errors import Conflict, EngineUnavailable
from saga.machine import Line
from saga.record import WORKFLOW, Record, Stored
from saga.runtime.coordinator import WaitingCaller, begin
from saga.runtime.permitted_commands import permitted_commands, refusal


class Workflows(Protocol):
    """Where the workflows are."""

    def start_workflow(self, record: Record, seconds: float) -> None:
        """Start a new saga's workflow, in the background, and listen for its end as long as `seconds`."""

    def tell(
        self, record: Record, command: str, note: str | None = None, result: Mapping[str, Any] | None = None, /
    ) -> None:
        """Pass an operator's command on; it is durable once this returns.

        Raises Conflict, BadInput, and EngineUnavailable.
        """


class TemporalCoordinator:
    """Starts workflows, and passes commands on to them."""

    poll_interval = 1.0  # seconds: as a rule this process is told of a workflow's end

    def __init__(self, deps: DriverDeps, workflows: Workflows | None, lacking: str):
        """`workflows` is None where Temporal cannot be reached; then `lacking` says what that would need."""
        self._deps = deps
        self._workflows = workflows
        self._lacking = lacking

    def check_start(self, definition: SagaDefinition, key: str | None = None) -> None:
        """Accept every saga: a workflow that cannot be started now is started later."""

    def start(self, record: Record, line: Line, caller: WaitingCaller) -> Stored:
        """Write a new saga, and have its workflow started. The lease is the time until somebody looks whether it was.

        Raises EngineUnavailable where Temporal cannot be reached from here; then nothing was started.
        """
        workflows = self._reached()
        record = replace(record, owner=WORKFLOW, due_at=record.started_at + self._deps.lease)
        if known := begin(self._deps, record, line):
            return known
        workflows.start_workflow(record, caller.seconds)
        return record

    def permitted_commands(self, record: Record) -> set[str]:
        """What the state of a saga permits that somebody drives."""
        return permitted_commands(record)

    def cancel(self, record: Record) -> None:
        """Have the workflow roll the saga back."""
        self._tell(record, "cancel")

    def resume(self, record: Record) -> None:
        """Have the workflow make the call again that stalled the saga."""
        self._tell(record, "resume")

    def resolve(self, record: Record, note: str, result: Mapping[str, Any] | None = None) -> None:
        """Have the workflow go on as if the call that stalled the saga had succeeded."""
        self._tell(record, "resolve", note, result)

    def abandon(self, record: Record, note: str) -> None:
        """Raise Conflict: a saga that a workflow drives is cancelled instead."""
        raise Conflict(refusal("abandon", record))

    def when_due(self, record: Record) -> bool:
        """Leave it to recovery, which does not find what a workflow owns: the client looks for what was not started."""
        return False

    def _tell(
        self, record: Record, command: str, note: str | None = None, result: Mapping[str, Any] | None = None
    ) -> None:
        if record.ended and (why := refusal(command, record)):  # else the workflow decides: it may be ahead of the log
            raise Conflict(why)
        self._reached().tell(record, command, note, result)

    def _reached(self) -> Workflows:
        if self._workflows is None:
            raise EngineUnavailable(f"this saga is on Temporal: to reach it this orchestrator needs {self._lacking}")
        return self._workflows
