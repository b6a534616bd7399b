"""What a saga's workflow has done for it: a call with all its attempts, and the saga log brought up to date."""

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
from saga.call import Attempt, Outcome, Verdict, error_kind, make_call
from saga.errors import LogUnavailable
from saga.http_client.transport import Transport
from saga.machine import Direction
from saga.payload import compact
from saga.temporal.messages import RESULTS_AT_MOST, AttemptRecord, CallActivityInput, CallActivityResult, Projection
from saga.temporal.projection import Projector

logger = logging.getLogger("saga")


class _DeadlinePassed(Exception):
    """Seen before an attempt."""


class _Stopping(Exception):
    """Seen before an attempt: nobody waits for this call any more, or the worker shuts down."""


@dataclass(frozen=True)
class ActivityDeps:
    """What the activities need from outside. Times: seconds."""

    projector: Projector
    transport: Transport
    executor: Executor
    clock: Callable[[], float]
    random: Callable[[], float]
    stopping: threading.Event  # the worker shuts down
    exit: Callable[[int], None]
    token: str | None = None  # added here, so that it is in no history


class Activities:
    """The activities of a worker."""

    def __init__(self, deps: ActivityDeps):
        self._deps = deps

    @activity.defn(name="call")
    async def call(self, call_input: CallActivityInput) -> CallActivityResult:
        """Make a call; a heartbeat tells of each attempt that failed, and that somebody is still at it."""
        loop = asyncio.get_running_loop()
        given_up = threading.Event()
        made: list[AttemptRecord] = []
        news = asyncio.Event()  # of an attempt, or of the end
        tell = partial(loop.call_soon_threadsafe, news.set)
        work = loop.run_in_executor(self._deps.executor, _Call(self._deps, call_input, made, tell, given_up).make)
        work.add_done_callback(lambda _: news.set())
        try:
            while not work.done():
                with suppress(TimeoutError):
                    await asyncio.wait_for(news.wait(), call_input.lease / 3)
                news.clear()
                if not work.done():
                    activity.heartbeat(list(made))
            return await work
        finally:
            given_up.set()

    @activity.defn(name="project")
    async def project(self, projection: Projection) -> int:
        """Bring the saga log up to date; gives the last line that it has. Tried again where the log is away."""
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._deps.executor, self._deps.projector.project, projection)
        silent = activity.info().heartbeat_timeout
        while not (await asyncio.wait({work}, timeout=silent.total_seconds() / 3 if silent else None))[0]:
            activity.heartbeat()
        return await work


class _Call:
    """One call, on a thread of its own."""

    def __init__(
        self,
        deps: ActivityDeps,
        call_input: CallActivityInput,
        made: list[AttemptRecord],
        tell: Callable[[], Any],
        given_up: threading.Event,
    ):
        self._deps = deps
        self._call_input = call_input
        self._made = made
        self._tell = tell
        self._given_up = given_up

    def make(self) -> CallActivityResult:
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
        except (_DeadlinePassed, _Stopping) as reason:
            return CallActivityResult(list(self._made), projected, overdue=isinstance(reason, _DeadlinePassed))
        self._crash("after")
        return CallActivityResult(list(self._made), projected, self._that_fits(outcome))

    def _that_fits(self, outcome: Outcome) -> Outcome:
        """Temporal would refuse a history's entry that is too large: of such a result nothing is known but that."""
        if outcome.result is None:
            return outcome
        if self._call_input.call.direction is Direction.COMPENSATION:
            return replace(outcome, result=None)  # nobody asks for it
        if self._call_input.results_bytes + len(compact(outcome.result).encode()) <= RESULTS_AT_MOST:
            return outcome
        message = f"the saga's results together are larger than Temporal takes: {RESULTS_AT_MOST} bytes"
        last = self._made[-1]
        unknown = replace(last.attempt, verdict=Verdict.UNKNOWN, message=message)
        self._made[-1] = replace(last, attempt=unknown)
        kind = error_kind(False, outcome.status_code, any(each.attempt.timed_out for each in self._made))
        return Outcome(Verdict.UNKNOWN, None, outcome.status_code, kind, message)

    def _project(self) -> int:
        """A saga log that is away, or what it has of this saga and cannot be read, keeps no saga from going on.

        It is brought up to date later. Else a call that nobody has made would count as one whose outcome is unknown.
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
        if self._deps.stopping.is_set() or self._given_up.is_set():
            raise _Stopping
        deadline = self._call_input.deadline_at
        if deadline is not None and self._deps.clock() >= deadline:
            raise _DeadlinePassed
        self._crash("before")

    def _after_attempt(self, attempt: Attempt, will_retry: bool) -> None:
        without = replace(attempt, result=None)  # the outcome has it
        self._made.append(AttemptRecord(without, self._deps.clock()))
        if will_retry:  # so that, where this worker is lost, its successor counts on
            self._tell()

    def _crash(self, when: str) -> None:
        if when in self._call_input.crashes:
            self._deps.exit(17)
