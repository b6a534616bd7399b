"""The client that starts sagas' workflows and sends them operators' commands, over Temporal's asyncio client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio.client import (
    Client,
    WorkflowHandle,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from saga.errors import BadInput, Conflict, EngineUnavailable
from saga.process.settings import TemporalSettings
from saga.runtime.permitted_commands import REFUSALS
from saga.saga_row import SagaRow
from saga.temporal.connection import connect
from saga.temporal.messages import BAD_RESULT, CONFLICT, WORKFLOW, Timing, WorkflowInput
from saga.temporal.search_attributes import SearchAttributeSupport, search_attributes

ANSWER_WITHIN = timedelta(seconds=5)

FORGOTTEN = (
    "Temporal does not know this saga any more: is TEMPORAL_NAMESPACE another, or has its workflow been deleted?"
)

# What the methods here raise where Temporal does not answer. The SDK raises a RuntimeError for a refused connection.
NO_ANSWER = (RPCError, RuntimeError, TimeoutError)


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, since the SDK's messages have many."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


class WorkflowClient:
    """Temporal's client for the workflows of sagas. Its methods raise one of NO_ANSWER where Temporal is away."""

    def __init__(self, settings: TemporalSettings, timing: Timing):
        self.address = settings.address
        self._settings = settings
        self._timing = timing
        self._client: Client | None = None
        self._search_attributes = SearchAttributeSupport(settings.namespace, time.monotonic)

    async def start(self, row: SagaRow) -> None:
        """Start a saga's workflow; a workflow that was started already, and may have ended, is left as it is.

        Raises BadInput where Temporal will never take the saga, because of its size for instance.
        """
        client = await self._connected()
        searchable = await self._search_attributes.available(client)
        workflow_input = WorkflowInput(
            row.definition.snapshot,
            row.input,
            row.started_at,
            row.deadline_at,
            self._timing,
            searchable,
        )
        try:
            await client.start_workflow(
                WORKFLOW,
                workflow_input,
                id=row.id,
                task_queue=self._settings.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=search_attributes(row) if searchable else None,
                task_timeout=timedelta(seconds=min(60.0, max(1.0, self._timing.lease))),
                rpc_timeout=ANSWER_WITHIN,
            )
        except WorkflowAlreadyStartedError:
            pass
        except RPCError as error:
            if error.status is RPCStatusCode.INVALID_ARGUMENT:
                raise BadInput(f"Temporal does not take this saga: {reason(error)}") from None
            raise

    async def wait_for_end(self, saga_id: str, seconds: float) -> None:
        """Return once the workflow has ended. Raises TimeoutError after so many seconds, or WorkflowFailureError."""
        await asyncio.wait_for((await self._workflow(saga_id)).result(), seconds)

    async def send_command(self, row: SagaRow, command: str, arguments: Sequence[Any]) -> None:
        """Send an operator's command, and start the workflow before where it was not started yet.

        Once this returns the command is in the workflow's history. Raises Conflict where the saga's state forbids it,
        BadInput where the saga cannot take the result, and EngineUnavailable where no worker answers.
        """
        try:
            await self._update(row.id, command, arguments)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            if await self._exists(row.id):
                raise Conflict(f"{REFUSALS[command]}: it has ended") from None
            if row.epoch > 1:
                # The workflow has done something, and is gone: a new one would do all of it again.
                raise EngineUnavailable(FORGOTTEN) from None
            await self.start(row)
            await self._update(row.id, command, arguments)

    async def _update(self, saga_id: str, command: str, arguments: Sequence[Any]) -> None:
        workflow = await self._workflow(saga_id)
        try:
            update = await workflow.start_update(
                command, args=arguments, wait_for_stage=WorkflowUpdateStage.ACCEPTED, rpc_timeout=2 * ANSWER_WITHIN
            )
            # The command is accepted. What is waited for is only that the saga log shows it, and that may take longer.
            # The SDK raises an error of its own where its call is cancelled by the time-out.
            with suppress(TimeoutError, WorkflowUpdateRPCTimeoutOrCancelledError):
                await asyncio.wait_for(update.result(), ANSWER_WITHIN.total_seconds())
        except WorkflowUpdateFailedError as error:
            if isinstance(error.cause, ApplicationError) and error.cause.type == CONFLICT:
                raise Conflict(error.cause.message) from None
            if isinstance(error.cause, ApplicationError) and error.cause.type == BAD_RESULT:
                raise BadInput(error.cause.message, "result") from None
            raise
        except WorkflowUpdateRPCTimeoutOrCancelledError:
            raise EngineUnavailable("no worker of Temporal's task queue answers: is one running?") from None

    async def _exists(self, saga_id: str) -> bool:
        """Return whether Temporal knows the saga's workflow, even one that has ended."""
        try:
            await (await self._workflow(saga_id)).describe(rpc_timeout=ANSWER_WITHIN)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    async def _workflow(self, saga_id: str) -> WorkflowHandle[Any, Any]:
        return (await self._connected()).get_workflow_handle(saga_id)

    async def _connected(self) -> Client:
        if self._client is None:
            self._client = await connect(self._settings, lazy=True)
        return self._client
