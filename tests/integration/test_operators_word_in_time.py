"""On Temporal: an operator's word that comes at a certain instant. The server and the workflow are real, the calls not.

The activities are fakes, so that the order of events is certain.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import WorkflowHandle
from temporalio.worker import Worker

from saga.call import Attempt, Outcome, Verdict
from saga.machine import STALLED, Direction
from saga.process.settings import TemporalSettings
from saga.temporal.connection import connect
from saga.temporal.messages import (
    REPRESENTATION,
    RESOLVE,
    RESUME,
    WORKFLOW,
    AttemptRecord,
    CallActivityInput,
    CallActivityResult,
    Projection,
    Timing,
    WorkflowInput,
)
from saga.temporal.workflow import SagaWorkflow
from tests.support.temporal_server import TemporalServer
from tests.support.world import INPUT, signup

HANG = 30  # seconds


class Fakes:
    """A's action is done, B's refused; A's compensation fails so often. The log is slow to learn of a stalled saga."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.undone = 0  # calls of A's compensation
        self.writing = asyncio.Event()  # that the saga is stalled
        self.written = asyncio.Event()
        self.lines: dict[int, str] = {}  # of the log

    @activity.defn(name="call")
    async def call(self, call_input: CallActivityInput) -> CallActivityResult:
        """A call of one attempt."""
        verdict = Verdict.DONE if call_input.call.step.name == "A" else Verdict.REFUSED
        if call_input.call.direction is Direction.COMPENSATION:
            self.undone += 1
            verdict = Verdict.DONE if self.undone > self.failures else Verdict.UNKNOWN
        kind = None if verdict is Verdict.DONE else "failed"
        made = AttemptRecord(Attempt(call_input.calls.attempts + 1, verdict, False, 200, 1.0), time.time())
        return CallActivityResult([made], self._write(call_input.projection), Outcome(verdict, {}, 200, kind))

    @activity.defn(name="project")
    async def project(self, projection: Projection) -> int:
        """Held back where it is the first to say that the saga is stalled."""
        if projection.present.state in STALLED and not self.written.is_set():
            self.writing.set()
            await asyncio.wait_for(self.written.wait(), HANG)
        return self._write(projection)

    def _write(self, projection: Projection) -> int:
        self.lines.update({line.seq: line.event for line in projection.lines})
        return max(self.lines, default=1)


async def story(server: TemporalServer, verb: str, words: list[str], failures: int) -> tuple[str, list[str], int]:
    """Stall a saga, and say a word while its log is written: how it ends, its events, the undo's calls."""
    queue = str(uuid.uuid4())
    settings = TemporalSettings(server.address, "default", queue, None, False, None, None, None, None)
    client, fakes = await connect(settings, lazy=False), Fakes(failures)
    begun = WorkflowInput(
        signup().snapshot, INPUT, time.time(), None, Timing(lease=HANG, stall_base=300, stall_max=300)
    )
    worker = Worker(client, task_queue=queue, workflows=[SagaWorkflow], activities=[fakes.call, fakes.project])
    async with worker:
        handle: WorkflowHandle[Any, Any] = await client.start_workflow(
            WORKFLOW, begun, id=queue, task_queue=queue, execution_timeout=timedelta(seconds=2 * HANG)
        )
        try:
            await asyncio.wait_for(fakes.writing.wait(), HANG)
            await asyncio.wait_for(handle.execute_update(verb, args=words), HANG)
            fakes.written.set()
            status = await asyncio.wait_for(handle.result(), HANG)
            assert (await handle.query(REPRESENTATION))["status"] == status
        finally:
            fakes.written.set()
            if (await handle.describe()).close_time is None:
                await handle.terminate()
    return status, [fakes.lines[seq] for seq in sorted(fakes.lines)], fakes.undone


@pytest.mark.parametrize(("verb", "words", "calls"), [(RESOLVE, ["by hand"], 1), (RESUME, [], 2)])
def test_a_word_that_comes_while_a_stalled_sagas_log_is_written_is_the_only_one(
    temporal_server: TemporalServer, verb: str, words: list[str], calls: int
) -> None:
    """It has ended the rest that had not begun yet: nothing resumes the saga once more, and no call is made twice."""
    status, events, undone = asyncio.run(story(temporal_server, verb, words, failures=1))
    assert status == "COMPENSATED"
    assert [event for event in events if event in ("resumed", "resolved")] == [f"{verb}d"]
    assert undone == calls
