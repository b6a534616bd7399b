"""What somebody sees, and can do, who looks at the sagas in Temporal itself."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import requests
from temporalio.api.common.v1 import WorkflowExecution
from temporalio.api.workflowservice.v1 import DeleteWorkflowExecutionRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.service import RPCError, RPCStatusCode

from tests.support.stack import INPUT, Stack, eventually, free_port
from tests.support.temporal_server import TemporalServer

QUICK = {"LEASE_SECONDS": "2", "STALL_BASE_SECONDS": "0.2", "RECOVERY_INTERVAL": "0.2"}
KEY = base64.b64encode(bytes(range(32))).decode()

MakeStack = Callable[..., Stack]


def ask(stack: Stack, question: Callable[[Client], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await question(await Client.connect(stack.environ["TEMPORAL_ADDRESS"]))

    return asyncio.run(run())


def ask_of(stack: Stack, saga_id: str, question: Callable[[WorkflowHandle[Any, Any]], Awaitable[Any]]) -> Any:
    return ask(stack, lambda client: question(client.get_workflow_handle(saga_id)))


def found(stack: Stack, query: str) -> list[str]:
    """The ids of the workflows that a query finds."""

    async def listed(client: Client) -> list[str]:
        return [workflow.id async for workflow in client.list_workflows(query)]

    return list(ask(stack, listed))


def payloads(stack: Stack, saga_id: str) -> bytes:
    """All that the workflow's history holds of the saga's data."""
    history = ask_of(stack, saga_id, lambda workflow: workflow.fetch_history())
    return b"\n".join(event.SerializeToString() for event in history.events)


@pytest.mark.parametrize("flags", ["", "fail=b:after", "fail=c:refuse"])
def test_the_workflow_is_asked_for_the_same_representation(make_stack: MakeStack, flags: str) -> None:
    stack = make_stack("sqlite", engine="temporal", **QUICK)
    saga = stack.post_start(flags).json()
    assert ask_of(stack, saga["saga_id"], lambda workflow: workflow.query("representation")) == saga


def test_sagas_are_found_by_what_becomes_of_them(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **{**QUICK, "STALL_BASE_SECONDS": "300"})
    completed = stack.post_start().json()["saga_id"]
    stalled = stack.post_start("wait=1&fail=b&fail=a:undo").json()["saga_id"]
    here = f"SagaName='signup' AND TaskQueue='{stack.environ['TEMPORAL_TASK_QUEUE']}'"
    eventually(lambda: found(stack, f"{here} AND SagaStatus='COMPLETED'") == [completed])
    eventually(lambda: found(stack, f"{here} AND SagaStatus='STALLED' AND SagaNeedsAttention=false") == [stalled])


def test_who_cancels_the_workflow_cancels_the_saga_and_leaves_nothing_half_done(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **QUICK)
    saga_id = stack.post_start("wait=0&delay=b:1500").json()["saga_id"]
    eventually(lambda: stack.counts()["A"] == 1)
    ask_of(stack, saga_id, lambda workflow: workflow.cancel())
    saga = stack.ended(saga_id)
    assert (saga["status"], saga["error"]["kind"]) == ("COMPENSATED", "cancelled")
    assert stack.counts() == {"A": 0, "B": 0, "C": 0}


def forget(stack: Stack, saga_id: str) -> None:
    """As retention does: Temporal knows the workflow no more."""

    async def deleted(client: Client) -> None:
        workflow = WorkflowExecution(workflow_id=saga_id)
        request = DeleteWorkflowExecutionRequest(namespace="default", workflow_execution=workflow)
        await client.workflow_service.delete_workflow_execution(request)

    async def known(workflow: WorkflowHandle[Any, Any]) -> bool:
        try:
            await workflow.describe()
        except RPCError as error:
            assert error.status is RPCStatusCode.NOT_FOUND
            return False
        return True

    ask(stack, deleted)
    eventually(lambda: not ask_of(stack, saga_id, known), within=60, every=0.5)


def test_no_word_of_an_operator_begins_a_saga_anew_that_temporal_has_forgotten(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", **{**QUICK, "STALL_BASE_SECONDS": "300"})
    ended = stack.post_start().json()["saga_id"]
    stalled = stack.post_start("wait=0&fail=b&fail=a:undo").json()["saga_id"]
    eventually(lambda: stack.saga(stalled)["status"] == "STALLED")
    told = {saga_id: stack.lines(saga_id) for saga_id in (ended, stalled)}
    for saga_id in told:
        forget(stack, saga_id)
    cancelled = requests.post(f"{stack.url}/sagas/{ended}/cancel", timeout=30)
    assert (cancelled.status_code, "cannot be cancelled" in cancelled.json()["error"]) == (409, True)
    resumed = requests.post(f"{stack.url}/sagas/{stalled}/resume", timeout=30)
    assert (resumed.status_code, "TEMPORAL_NAMESPACE" in resumed.json()["error"]) == (503, True)
    assert found(stack, f"WorkflowId='{ended}' OR WorkflowId='{stalled}'") == []
    assert {saga_id: stack.lines(saga_id) for saga_id in told} == told


@pytest.fixture
def brief_server(ports: Iterator[int]) -> Iterator[TemporalServer]:
    """A Temporal to whom a history of forty events is long."""
    options = ["--dynamic-config-value", "limit.historyCount.suggestContinueAsNew=40"]
    with TemporalServer(free_port(ports), options) as server:
        yield server


def test_a_saga_that_stalls_for_long_goes_on_in_a_new_history(
    make_stack: MakeStack, brief_server: TemporalServer
) -> None:
    quick = {**QUICK, "STALL_BASE_SECONDS": "0.02", "STALL_MAX_SECONDS": "0.1"}
    stack = make_stack("sqlite", engine="temporal", temporal=brief_server.address, **quick)
    saga_id = stack.post_start("wait=0&fail=b:after&fail=b:undo:31").json()["saga_id"]
    attention = eventually(lambda: stack.saga(saga_id)["needs_attention"] and stack.saga(saga_id), within=90)
    assert attention["error"]["step"] == "B"
    saga = stack.ended(saga_id, within=90)
    assert (saga["status"], saga["error"]["kind"]) == ("COMPENSATED", "failed")
    lines = stack.lines(saga_id)
    assert [line["seq"] for line in lines] == list(range(1, len(lines) + 1))
    undone = [
        line["attempt"]
        for line in lines
        if line["step"] == "B" and (line["detail"] or {}).get("call") == "compensation"
    ]
    assert undone == list(range(1, 33))
    history = ask_of(stack, saga_id, lambda workflow: workflow.fetch_history())
    assert history.events[0].workflow_execution_started_event_attributes.continued_execution_run_id
    shown = ask_of(stack, saga_id, lambda workflow: workflow.query("representation"))
    assert shown == saga
    assert stack.counts() == {"A": 0, "B": 0, "C": 0}


def test_with_a_key_temporal_sees_nothing_of_what_a_saga_carries(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", TEMPORAL_CODEC_KEY=KEY, **QUICK)
    body = {**INPUT, "username": "ada.lovelace@example.org"}  # three letters would be found in ciphertext now and then
    saga = stack.post_start("fail=c:refuse", body).json()
    assert saga["status"] == "COMPENSATED"
    seen = payloads(stack, saga["saga_id"])
    assert body["payment"].encode() not in seen
    assert body["username"].encode() not in seen


def test_without_a_key_it_sees_it_all(make_stack: MakeStack) -> None:
    stack = make_stack("sqlite", engine="temporal", SAGA_TOKEN="sesame", **QUICK)
    saga_id = stack.post_start().json()["saga_id"]
    seen = payloads(stack, saga_id)
    assert INPUT["payment"].encode() in seen
    assert b"sesame" not in seen  # what the services ask for is in no history
