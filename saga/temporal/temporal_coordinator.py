"""The coordinator of sagas on Temporal: it starts a saga's workflow, and passes operators' commands on to it.

A saga is started once its row is committed. Its workflow is started right after that; where that fails, or the process
dies in between, whoever looks next for unstarted sagas starts it. This module does not need the extra `[temporal]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from saga.definition import SagaDefinition
from saga.driver import DriverDeps
from saga.errors import Conflict, EngineUnavailable
from saga.machine import Line
from saga.runtime.coordinator import WaitingCaller, begin
from saga.runtime.permitted_commands import permitted_commands, refusal
from saga.saga_row import WORKFLOW, SagaRow, Stored


class Workflows(Protocol):
    """The workflows of sagas, as `saga/temporal/client.py` reaches them."""

    def start_workflow(self, row: SagaRow, seconds: float) -> None:
        """Start a new saga's workflow in the background, and wait there for its end for so many seconds."""

    def send_command(
        self, row: SagaRow, command: str, note: str | None = None, result: Mapping[str, Any] | None = None, /
    ) -> None:
        """Pass an operator's command on; it is durable once this returns.

        Raises Conflict, BadInput, and EngineUnavailable.
        """


class TemporalCoordinator:
    """The coordinator; a workflow on Temporal drives each saga."""

    poll_interval = 1.0  # seconds: as a rule this process is told of a workflow's end

    def __init__(self, deps: DriverDeps, workflows: Workflows | None, lacking: str):
        """`workflows` is None where Temporal cannot be reached; then `lacking` says what that would need."""
        self._deps = deps
        self._workflows = workflows
        self._lacking = lacking

    def check_start(self, definition: SagaDefinition, key: str | None = None) -> None:
        """Accept every saga: a workflow that cannot be started now is started later."""

    def start(self, row: SagaRow, line: Line, caller: WaitingCaller) -> Stored:
        """Write a new saga, and have its workflow started in the background.

        Once the row's `due_at` has passed, an orchestrator or worker looks whether the workflow was started. Raises
        EngineUnavailable where this process is not set up for Temporal; then nothing was started.
        """
        workflows = self._reached()
        row = replace(row, owner=WORKFLOW, due_at=row.started_at + self._deps.lease)
        if known := begin(self._deps, row, line):
            return known
        workflows.start_workflow(row, caller.seconds)
        return row

    def permitted_commands(self, row: SagaRow) -> set[str]:
        """Return the commands that a driven saga's state permits."""
        return permitted_commands(row)

    def cancel(self, row: SagaRow) -> None:
        """Have the workflow roll the saga back."""
        self._send(row, "cancel")

    def resume(self, row: SagaRow) -> None:
        """Have the workflow make the call again that stalled the saga."""
        self._send(row, "resume")

    def resolve(self, row: SagaRow, note: str, result: Mapping[str, Any] | None = None) -> None:
        """Have the workflow go on as if the call that stalled the saga had succeeded."""
        self._send(row, "resolve", note, result)

    def abandon(self, row: SagaRow, note: str) -> None:
        """Raise Conflict: a saga that a workflow drives is cancelled instead."""
        raise Conflict(refusal("abandon", row))

    def when_due(self, row: SagaRow) -> bool:
        """Return False. Recovery finds no saga that a workflow owns; the client looks for those that have none yet."""
        return False

    def _send(
        self, row: SagaRow, command: str, note: str | None = None, result: Mapping[str, Any] | None = None
    ) -> None:
        # Of a saga that has not ended in the log the workflow decides, since it may be ahead of the log.
        if row.ended and (why := refusal(command, row)):
            raise Conflict(why)
        self._reached().send_command(row, command, note, result)

    def _reached(self) -> Workflows:
        if self._workflows is None:
            raise EngineUnavailable(f"this saga is on Temporal: to reach it this orchestrator needs {self._lacking}")
        return self._workflows
