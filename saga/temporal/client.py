"""The client of Temporal for callers in threads: it starts sagas' workflows and passes operators' commands on.

A saga is started once its row is committed, and its workflow is started right after that. Where that fails, or the
process dies in between, whoever looks next for unstarted sagas starts it; to start it twice changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from temporalio.client import WorkflowFailureError

from saga.errors import BadInput, EngineUnavailable, LeaseLost, LogUnavailable
from saga.payload import compact
from saga.runtime.due_sagas import DueSagas
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.temporal.messages import RESULTS_AT_MOST
from saga.temporal.workflow_client import NO_ANSWER, WorkflowClient, reason
from saga.unreadable import Unreadable

logger = logging.getLogger("saga")

BATCH = 32  # sagas started in one go
CANNOT_BE_STARTED = 300.0  # seconds after which a saga that could not be started is tried again

T = TypeVar("T")


class TemporalWorkflows:
    """A workflow client with two threads: one runs its event loop, one starts the workflows that were not started."""

    def __init__(
        self,
        workflows: WorkflowClient,
        log: SagaLog,
        clock: Callable[[], float],
        interval: float,
        on_end: Callable[[str], None] = lambda saga_id: None,
    ):
        """`interval`: seconds between two searches for unstarted sagas; `on_end` is called with an ended saga's id."""
        self._workflows = workflows
        self._log = log
        self._clock = clock
        self._interval = interval
        self._on_end = on_end
        self._loop = asyncio.new_event_loop()
        self._closed = threading.Event()
        self._threads = [
            threading.Thread(target=self._loop.run_forever, name="temporal", daemon=True),
            threading.Thread(target=self._keep_starting, name="temporal-starts", daemon=True),
        ]

    def open(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Start no further workflow."""
        self._closed.set()
        self._loop.call_soon_threadsafe(self._loop.stop)

    def start_workflow(self, row: SagaRow, seconds: float) -> None:
        """Start a new saga's workflow in the background, and call `on_end` once it ends, or after so many seconds."""
        asyncio.run_coroutine_threadsafe(self._start_and_follow(row, seconds), self._loop)

    def send_command(
        self, row: SagaRow, command: str, note: str | None = None, result: Mapping[str, Any] | None = None
    ) -> None:
        """Pass an operator's command on; it is durable once this returns.

        Raises Conflict, BadInput or EngineUnavailable, as `WorkflowClient.send_command` does.
        """
        if result is not None and len(compact([row.results, result]).encode()) > RESULTS_AT_MOST:
            problem = f"the saga's results together would be larger than Temporal takes: {RESULTS_AT_MOST} bytes"
            raise BadInput(f"result: {problem}", "result")
        arguments = [each for each in (note, result) if each is not None]
        self._run(self._workflows.send_command(row, command, arguments), within=20)

    def start_unstarted(self) -> bool:
        """Start a batch of sagas whose workflows were not started, and return whether there may be more of them.

        Raises LogUnavailable or EngineUnavailable.
        """
        saga_ids = DueSagas(self._log).unstarted(self._clock(), BATCH)
        for row in self._log.find_many(saga_ids).values() if saga_ids else ():
            # The log has set aside what cannot be read; a saga with a higher epoch has been started meanwhile.
            if isinstance(row, Unreadable) or row.epoch > 1:
                continue
            with suppress(LeaseLost):
                self._log.renew(row.id, row.epoch, self._try_to_start(row))
        return len(saga_ids) == BATCH

    def _try_to_start(self, row: SagaRow) -> float | None:
        """Start a workflow, and return when to try again where that is impossible, so that others have their turn.

        Raises EngineUnavailable.
        """
        try:
            self._run(self._workflows.start(row), within=10)
        except EngineUnavailable:
            raise
        except Exception as error:
            is_bug = not isinstance(error, BadInput)
            logger.error("event=cannot_be_started saga_id=%s: %s", row.id, error, exc_info=is_bug)
            return self._clock() + CANNOT_BE_STARTED
        return None

    def _keep_starting(self) -> None:
        while not self._closed.is_set():
            more = False
            try:
                more = self.start_unstarted()
            except (LogUnavailable, EngineUnavailable) as error:
                logger.warning("event=not_started: %s", error)
            except Exception:
                logger.exception("event=look_failed")
            self._closed.wait(0 if more else self._interval)

    def _run(self, work: Coroutine[Any, Any, T], within: float) -> T:
        """Run a coroutine on the loop, and return its result. Raises EngineUnavailable where Temporal is away."""
        try:
            running = asyncio.run_coroutine_threadsafe(asyncio.wait_for(work, within), self._loop)
            return running.result(within + 1)  # the loop may have been stopped, and then nothing times out there
        except NO_ANSWER as error:
            message = f"Temporal at {self._workflows.address} does not answer: {reason(error)}"
            raise EngineUnavailable(message) from error

    async def _start_and_follow(self, row: SagaRow, seconds: float) -> None:
        try:
            await self._workflows.start(row)
            if seconds > 0:
                await self._workflows.wait_for_end(row.id, seconds)
        except WorkflowFailureError as error:
            logger.error("event=workflow_failed saga_id=%s: %s", row.id, error.cause)
        except NO_ANSWER as error:
            if not isinstance(error, TimeoutError):
                logger.warning("event=temporal_away saga_id=%s: %s", row.id, reason(error))
        except Exception:
            # A bug, or Temporal does not take the saga: whoever looks for unstarted sagas tries again.
            logger.exception("event=hand_over_failed saga_id=%s", row.id)
        finally:
            self._on_end(row.id)
