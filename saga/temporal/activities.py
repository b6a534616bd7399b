"""The two activities of a saga's workflow: `call` makes a call with all its attempts, `project` writes the saga log.

A workflow may do no I/O, so it has these done by a worker. Both do their work on a thread of the worker's executor,
because the saga log and the HTTP client block; the activity itself only sends heartbeats meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from temporalio import activity

from saga import progress
from saga.call import Attempt, DeadlinePassed, Outcome, Stopping, Verdict, error_kind, make_call
from saga.errors import LogUnavailable
from saga.http_client.transport import Transport
from saga.machine import Direction
from saga.payload import compact
from saga.temporal.messages import RESULTS_AT_MOST, AttemptRecord, CallActivityInput, CallActivityResult, Projection
from saga.temporal.projection import Projector

logger = logging.getLogger("saga")


@dataclass(frozen=True)
class ActivityDeps:
    """What the activities need from outside; times are in seconds."""

    projector: Projector
    transport: Transport
    executor: Executor
    clock: Callable[[], float]
    random: Callable[[], float]
    stopping: threading.Event  # set once the worker shuts down
    exit: Callable[[int], None]
    token: str | None = None  # the worker adds it to each call, so that no history holds it


class Activities:
    """The activities that a worker registers."""

    def __init__(self, deps: ActivityDeps):
        self._deps = deps

    @activity.defn(name="call")
    async def call(self, call_input: CallActivityInput) -> CallActivityResult:
        """Write down what the saga log does not have yet, then make a call with all its attempts.

        A heartbeat is sent after each attempt that will be retried, and at least every third of the lease. It carries
        all attempts so far, so that the workflow knows them even where this worker dies.
        """
        loop = asyncio.get_running_loop()
        abandoned = threading.Event()
        attempts: list[AttemptRecord] = []
        wake = asyncio.Event()  # after an attempt, and at the end
        on_retry = partial(loop.call_soon_threadsafe, wake.set)
        making = _CallInThread(self._deps, call_input, attempts, on_retry, abandoned)
        work = loop.run_in_executor(self._deps.executor, making.run)
        work.add_done_callback(lambda _: wake.set())
        try:
            while not work.done():
                with suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), call_input.lease / 3)
                wake.clear()
                if not work.done():
                    activity.heartbeat(list(attempts))
            return await work
        finally:
            abandoned.set()

    @activity.defn(name="project")
    async def project(self, projection: Projection) -> int:
        """Bring the saga log up to date, and return the number of the last line that it has then.

        Raises LogUnavailable, upon which Temporal runs the activity again.
        """
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._deps.executor, self._deps.projector.project, projection)
        heartbeat_timeout = activity.info().heartbeat_timeout
        pause = heartbeat_timeout.total_seconds() / 3 if heartbeat_timeout else None
        while not (await asyncio.wait({work}, timeout=pause))[0]:
            activity.heartbeat()
        return await work


class _CallInThread:
    """Makes one call in a thread of the executor.

    It appends each attempt to `attempts`, and calls `on_retry` after those that will be retried. Once `abandoned` is
    set, nobody waits for the call any more.
    """

    def __init__(
        self,
        deps: ActivityDeps,
        call_input: CallActivityInput,
        attempts: list[AttemptRecord],
        on_retry: Callable[[], Any],
        abandoned: threading.Event,
    ):
        self._deps = deps
        self._call_input = call_input
        self._attempts = attempts
        self._on_retry = on_retry
        self._abandoned = abandoned

    def run(self) -> CallActivityResult:
        """Project, make the call, and return what it came to."""
        call_input, deps = self._call_input, self._deps
        projected = self._project()
        span = secrets.token_hex(8)
        saga_id = call_input.projection.saga_id
        try:
            outcome = make_call(
                progress.request(saga_id, call_input.call, call_input.calls, call_input.sealing, span, deps.token),
                deps.transport,
                sleep=deps.stopping.wait,
                random=deps.random,
                clock=deps.clock,
                before_attempt=self._before_attempt,
                after_attempt=self._after_attempt,
            )
        except (DeadlinePassed, Stopping) as reason:
            return CallActivityResult(list(self._attempts), projected, overdue=isinstance(reason, DeadlinePassed))
        self._crash("after")
        return CallActivityResult(list(self._attempts), projected, self._within_limit(outcome))

    def _within_limit(self, outcome: Outcome) -> Outcome:
        """Return the outcome without a result that the history cannot hold.

        Nobody asks for a compensation's result, so it is left out. Where an action's result would make the saga's
        results larger than Temporal takes, the call counts as one whose outcome is unknown.
        """
        if outcome.result is None:
            return outcome
        if self._call_input.call.direction is Direction.COMPENSATION:
            return replace(outcome, result=None)
        if self._call_input.results_bytes + len(compact(outcome.result).encode()) <= RESULTS_AT_MOST:
            return outcome
        message = f"the saga's results together are larger than Temporal takes: {RESULTS_AT_MOST} bytes"
        last = self._attempts[-1]
        unknown = replace(last.attempt, verdict=Verdict.UNKNOWN, message=message)
        self._attempts[-1] = replace(last, attempt=unknown)
        kind = error_kind(False, outcome.status_code, any(each.attempt.timed_out for each in self._attempts))
        return Outcome(Verdict.UNKNOWN, None, outcome.status_code, kind, message)

    def _project(self) -> int:
        """Bring the saga log up to date, and return the number of the last line that it has, as far as is known.

        No error is raised: a log that is away, or that holds something unreadable of this saga, is brought up to date
        later. Were the activity to fail instead, a call that nobody has made would count as one of unknown outcome.
        """
        projection = self._call_input.projection
        try:
            return self._deps.projector.project(projection)
        except LogUnavailable as error:
            logger.warning("log_unavailable: %s", error)
        except Exception:
            logger.exception("event=not_projected saga_id=%s", projection.saga_id)
        return projection.lines[0].seq - 1 if projection.lines else 0

    def _before_attempt(self, number: int) -> None:
        if self._deps.stopping.is_set() or self._abandoned.is_set():
            raise Stopping
        deadline = self._call_input.deadline_at
        if deadline is not None and self._deps.clock() >= deadline:
            raise DeadlinePassed
        self._crash("before")

    def _after_attempt(self, attempt: Attempt, will_retry: bool) -> None:
        without_result = replace(attempt, result=None)  # the outcome has it
        self._attempts.append(AttemptRecord(without_result, self._deps.clock()))
        if will_retry:
            self._on_retry()

    def _crash(self, when: str) -> None:
        """End the process where an injected crash strikes now."""
        if when in self._call_input.crashes:
            self._deps.exit(17)
