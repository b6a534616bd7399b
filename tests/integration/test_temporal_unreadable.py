"""On Temporal: a saga whose row cannot be read stops no other. Without a Temporal, on SQLite and on MySQL."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine
from temporalio.testing import ActivityEnvironment

from saga.call import Verdict
from saga.definition import TEMPORAL
from saga.http_client.transport import HttpAnswer, Transport
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.set_aside import REST_SECONDS, SetAside
from saga.temporal.activities import Activities, ActivityDeps
from saga.temporal.client import BATCH, CANNOT_BE_STARTED, TemporalWorkflows
from saga.temporal.journal import Journal
from saga.temporal.messages import CallActivityInput, CallActivityResult, Projection, Timing, WorkflowInput
from saga.temporal.projection import Projector
from saga.temporal.workflow_client import WorkflowClient
from tests.contract.test_saga_log import NOW, begun
from tests.support.world import INPUT, signup

TIMING = Timing(lease=10, stall_base=1, stall_max=300)


class Clock:
    now = NOW + 1

    def __call__(self) -> float:
        return self.now


class Workflows(WorkflowClient):
    """Remembers which workflows it would have started."""

    def __init__(self) -> None:
        self.started: list[str] = []

    async def start(self, row: SagaRow) -> None:
        self.started.append(row.id)


class Client(TemporalWorkflows):
    """Starts what was not started only when it is asked to."""

    def __init__(self, log: SagaLog, clock: Clock) -> None:
        self.workflows = Workflows()
        super().__init__(self.workflows, log, clock, interval=1)
        self._threads[0].start()


def spoil(engine: Engine, saga_id: str, **values: Any) -> None:
    """As a newer version, or a hand, might leave it."""
    sets = ", ".join(f"{name} = '{value}'" for name, value in values.items())
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE sagas SET {sets} WHERE id = '{saga_id}'")


@pytest.mark.parametrize("values", [{"definition": "{broken"}, {"state": "dreaming"}, {"definition": "[]"}])
def test_rows_that_cannot_be_read_keep_no_other_saga_from_being_started(
    engine: Engine, log: SagaLog, caplog: pytest.LogCaptureFixture, values: dict[str, Any]
) -> None:
    """Though they are the oldest, and more than are looked at in one go. Each is reported once."""
    bad = [begun(log, number, owner=TEMPORAL, due_at=NOW - 1).id for number in range(1, BATCH + 9)]
    for saga_id in bad:
        spoil(engine, saga_id, **values)
    good = [begun(log, number, owner=TEMPORAL, due_at=NOW).id for number in (100, 101)]
    clock = Clock()
    client = Client(log, clock)
    for _ in range(3):
        client.start_unstarted()
    assert sorted(client.workflows.started) == good
    clock.now += 3 * CANNOT_BE_STARTED
    for _ in range(3):
        client.start_unstarted()
    assert sorted(client.workflows.started) == good
    assert [sum(saga_id in line for line in caplog.text.splitlines() if "ERROR" in line) for saga_id in bad] == [
        1 for _ in bad
    ]
    client.close()


def test_one_that_was_mended_is_started(engine: Engine, log: SagaLog) -> None:
    saga = begun(log, 1, owner=TEMPORAL, due_at=NOW)
    spoil(engine, saga.id, state="dreaming")
    clock, monotonic = Clock(), Clock()
    log.aside = SetAside(monotonic)
    client = Client(log, clock)
    client.start_unstarted()
    assert client.workflows.started == []
    spoil(engine, saga.id, state="executing")
    monotonic.now += REST_SECONDS
    client.start_unstarted()
    assert client.workflows.started == [saga.id]
    client.close()


class Unreadable(Projector):
    def project(self, projection: Projection) -> int:
        raise KeyError("dreaming")


class Done(Transport):
    def post(self, *args: Any, **kwargs: Any) -> HttpAnswer:
        return HttpAnswer(1.0, 200, {}, b'{"user_id": 7}')


def test_a_call_is_made_though_the_log_of_its_saga_cannot_be_read() -> None:
    """Else it would count as one whose outcome is unknown, and be undone."""
    saga = Journal("0190aaaa", WorkflowInput(signup().snapshot, INPUT, NOW, None, TIMING), lambda: NOW, lambda: 0.5)
    call = saga.next_call()
    assert call
    call_input = CallActivityInput(saga.projection(), call, saga.saga.calls, False, None, 10.0)
    with ThreadPoolExecutor(1) as pool:
        around = ActivityDeps(
            Unreadable(None, lambda saga_id, line: None), Done(), pool, lambda: NOW, lambda: 0.5,  # type: ignore[arg-type]
            threading.Event(), lambda code: None,
        )  # fmt: skip
        answered: CallActivityResult = asyncio.run(ActivityEnvironment().run(Activities(around).call, call_input))
    assert answered.outcome
    assert (answered.outcome.verdict, answered.outcome.result) == (Verdict.DONE, {"user_id": 7})
    assert answered.projected == 0
