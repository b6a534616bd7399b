"""Hands sagas over to Temporal, and passes operators' words on; for threads, though the client knows only asyncio.

A saga is started once its row is committed. Its workflow is started right after that; where that fails, or the
process dies in between, by whoever looks next: starting it again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar

from temporalio.client import (
    Client,
    WorkflowFailureError,
    WorkflowUpdateFailedError,
    WorkflowUpdateRPCTimeoutOrCancelledError,
    WorkflowUpdateStage,
)
from temporalio.common import WorkflowIDReusePolicy
from temporalio.exceptions import ApplicationError, WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from saga.errors import BadInput, Conflict, EngineUnavailable, LeaseLost, LogUnavailable
from saga.payload import compact
from saga.process.settings import TemporalSettings
from saga.runtime.due_sagas import DueSagas
from saga.runtime.permitted_commands import REFUSALS
from saga.saga_log import Record, SagaLog
from saga.temporal.connection import connect
from saga.temporal.messages import BAD_RESULT, CONFLICT, RESULTS_AT_MOST, WORKFLOW, Timing, WorkflowInput
from saga.temporal.search_attributes import SearchAttributeSupport, search_attributes
from saga.unreadable import Unreadable

logger = logging.getLogger("saga")

ANSWER_WITHIN = timedelta(seconds=5)
BATCH = 32  # sagas started in one go
CANNOT_BE_STARTED = 300.0  # seconds until it is tried again

FORGOTTEN = (
    "Temporal does not know this saga any more: is TEMPORAL_NAMESPACE another, or has its workflow been deleted?"
)

AWAY = (RPCError, RuntimeError, TimeoutError)  # a RuntimeError: the connection was refused

T = TypeVar("T")
Words = Sequence[Any]  # what an update carries


class Temporal:
    """A client with threads of its own: one for what is asked of it, one that looks for what was not started."""

    def __init__(
        self,
        settings: TemporalSettings,
        timing: Timing,
        log: SagaLog,
        clock: Callable[[], float],
        interval: float,
        tell: Callable[[str], None] = lambda saga_id: None,
    ):
        self._settings = settings
        self._timing = timing
        self._log = log
        self._clock = clock
        self._interval = interval  # seconds between two looks
        self._news = tell  # of a saga's end
        self._client: Client | None = None
        self._search_attributes = SearchAttributeSupport(settings.namespace, time.monotonic)
        self._loop = asyncio.new_event_loop()
        self._closed = threading.Event()
        self._threads = [threading.Thread(target=self._loop.run_forever, name="temporal", daemon=True)]
        self._threads.append(threading.Thread(target=self._look, name="temporal-starts", daemon=True))

    def open(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Start nothing more."""
        self._closed.set()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def start_workflow(self, record: Record, seconds: float) -> None:
        """Start a new saga's workflow, in the background; news of its end, if that comes within `seconds`."""
        asyncio.run_coroutine_threadsafe(self._start_and_follow(record, seconds), self._loop)

    def tell(self, record: Record, verb: str, note: str | None = None, result: Mapping[str, Any] | None = None) -> None:
        """Pass an operator's word on; durable when this returns. Conflict, BadInput, EngineUnavailable."""
        if result is not None and len(compact([record.results, result]).encode()) > RESULTS_AT_MOST:
            problem = f"the saga's results together would be larger than Temporal takes: {RESULTS_AT_MOST} bytes"
            raise BadInput(f"result: {problem}", "result")
        self._run(self._tell(record, verb, [each for each in (note, result) if each is not None]), within=20)

    def look(self) -> bool:
        """Start a batch of what was not started; gives whether there may be more. LogUnavailable, EngineUnavailable."""
        saga_ids = DueSagas(self._log).unstarted(self._clock(), BATCH)
        for record in self._log.find_many(saga_ids).values() if saga_ids else ():
            if isinstance(record, Unreadable) or record.epoch > 1:  # set aside by the log; or it has gone on meanwhile
                continue
            with suppress(LeaseLost):
                self._log.renew(record.id, record.epoch, self._tried(record))
        return len(saga_ids) == BATCH

    def _tried(self, record: Record) -> float | None:
        """When to start it again: one that cannot be started keeps no other from it. EngineUnavailable."""
        try:
            self._run(self._start(record), within=10)
        except EngineUnavailable:
            raise
        except Exception as error:
            unknown = not isinstance(error, BadInput)
            logger.error("event=cannot_be_started saga_id=%s: %s", record.id, error, exc_info=unknown)
            return self._clock() + CANNOT_BE_STARTED
        return None

    def _look(self) -> None:
        while not self._closed.is_set():
            more = False
            try:
                more = self.look()
            except (LogUnavailable, EngineUnavailable) as error:
                logger.warning("event=not_started: %s", error)
            except Exception:
                logger.exception("event=look_failed")
            self._closed.wait(0 if more else self._interval)

    def _run(self, work: Coroutine[Any, Any, T], within: float) -> T:
        try:
            running = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, within), self._loop)
            return running.result(within + 1)  # the loop may have ended
        except AWAY as error:
            raise EngineUnavailable(f"Temporal at {self._settings.address} does not answer: {_why(error)}") from error

    async def _connected(self) -> Client:
        if self._client is None:
            self._client = await connect(self._settings, lazy=True)
        return self._client

    async def _start_and_follow(self, record: Record, seconds: float) -> None:
        try:
            await self._start(record)
            if seconds > 0:
                workflow = (await self._connected()).get_workflow_handle(record.id)
                await asyncio.wait_for(workflow.result(), seconds)
        except WorkflowFailureError as error:
            logger.error("event=workflow_failed saga_id=%s: %s", record.id, error.cause)
        except AWAY as error:
            if not isinstance(error, TimeoutError):
                logger.warning("event=temporal_away saga_id=%s: %s", record.id, _why(error))
        except Exception:  # a bug: say so; whoever looks for what was not started tries again
            logger.exception("event=hand_over_failed saga_id=%s", record.id)
        finally:
            self._news(record.id)

    async def _start(self, record: Record) -> None:
        client = await self._connected()
        searchable = await self._search_attributes.available(client)
        workflow_input = WorkflowInput(
            record.definition.snapshot, record.input, record.started_at, record.deadline_at, self._timing, searchable
        )
        try:
            await client.start_workflow(
                WORKFLOW,
                workflow_input,
                id=record.id,
                task_queue=self._settings.task_queue,
                id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
                search_attributes=search_attributes(record) if searchable else None,
                task_timeout=timedelta(seconds=min(60.0, max(1.0, self._timing.lease))),
                rpc_timeout=ANSWER_WITHIN,
            )
        except WorkflowAlreadyStartedError:
            pass
        except RPCError as error:
            if error.status is RPCStatusCode.INVALID_ARGUMENT:  # it will be refused again
                raise BadInput(f"Temporal does not take this saga: {_why(error)}") from None
            raise

    async def _tell(self, record: Record, verb: str, words: Words) -> None:
        try:
            await self._update(record, verb, words)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            if await self._known(record):
                raise Conflict(f"{REFUSALS[verb]}: it has ended") from None
            if record.epoch > 1:  # to start it again would do again what it has done
                raise EngineUnavailable(FORGOTTEN) from None
            await self._start(record)
            await self._update(record, verb, words)

    async def _known(self, record: Record) -> bool:
        """Whether Temporal knows the saga's workflow, be it one that has ended."""
        try:
            await (await self._connected()).get_workflow_handle(record.id).describe(rpc_timeout=ANSWER_WITHIN)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    async def _update(self, record: Record, verb: str, words: Words) -> None:
        workflow = (await self._connected()).get_workflow_handle(record.id)
        try:
            update = await workflow.start_update(
                verb, args=words, wait_for_stage=WorkflowUpdateStage.ACCEPTED, rpc_timeout=2 * ANSWER_WITHIN
            )
            # It is accepted; only the saga log is not up to date yet. Cancelled, the SDK raises an error of its own.
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


def _why(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
