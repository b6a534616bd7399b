"""A choreographed saga that no service hears of is ended by an operator, and no service ever acts for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import nats
import pytest
import requests
from sqlalchemy import create_engine, text

from tests.e2e.test_choreography import ONE_EACH, QUICK, publish, saga_command
from tests.support.nats_server import run_apart
from tests.support.stack import Stack, eventually

NOTE = {"note": "A is gone for good, says Ada"}
BOTH = pytest.mark.parametrize("kind", ["sqlite", "mysql"])


def post(stack: Stack, path: str, body: Any) -> requests.Response:
    return requests.post(stack.url + path, json=body, timeout=30)


def abandon(stack: Stack, saga_id: str) -> requests.Response:
    return post(stack, f"/sagas/{saga_id}/abandon", NOTE)


def change(stack: Stack, process: str, statement: str) -> None:
    engine = create_engine(stack.urls[process])
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def rows_of(stack: Stack, service: str, saga_id: str) -> int:
    return sum(row["saga_id"] == saga_id for row in stack.rows(service))


def with_a_down(make_stack: Callable[..., Stack], kind: str = "sqlite", **settings: str) -> Stack:
    """A stack whose services were all up once; A is down now."""
    stack = make_stack(kind, mode="choreography", **QUICK, **settings)
    assert stack.post_start().json()["status"] == "COMPLETED"
    stack.kill("service_a")
    eventually(lambda: not waiting(stack, "A"))
    return stack


def waiting(stack: Stack, consumer: str) -> int:
    """How many requests for events of this consumer the broker has: one of a dead process may still be given some."""

    async def look() -> int:
        async with await nats.connect(stack.environ["NATS_URL"]) as client:
            return (await client.jetstream().consumer_info("SAGA", consumer)).num_waiting or 0

    return int(run_apart(look()))


def barrier_of(stack: Stack, saga_id: str) -> list[str]:
    found = requests.get(f"{stack.url_of('service_a')}/records/{saga_id}", timeout=10).json()
    return [row["state"] for row in found["barrier"]]


@BOTH
def test_a_service_that_starts_after_the_abandoning_does_nothing(make_stack: Callable[..., Stack], kind: str) -> None:
    stack = with_a_down(make_stack, kind)
    saga_id = stack.post_start("wait=0").json()["saga_id"]
    answer = abandon(stack, saga_id)
    assert answer.status_code == 202, answer.text
    saga = answer.json()
    assert (saga["status"], saga["error"]["kind"]) == ("COMPENSATED", "cancelled")
    assert [step["effect"] for step in saga["steps"]] == ["none"] * 3
    line = next(line for line in stack.lines(saga_id) if line["event"] == "abandoned")
    assert line["detail"] == {**NOTE, "by": "operator"}
    stack.start("service_a")
    eventually(lambda: barrier_of(stack, saga_id) == ["sealed"])
    later = stack.post_start()
    assert later.json()["status"] == "COMPLETED"
    assert stack.counts() == {"A": 2, "B": 2, "C": 2}
    assert stack.get(f"/sagas/{saga_id}").json() == saga
    assert abandon(stack, saga_id).status_code == 409


def test_a_service_that_has_acted_keeps_its_saga_from_being_abandoned(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    stack.kill("service_b")
    saga_id = stack.post_start("wait=0").json()["saga_id"]
    eventually(lambda: stack.rows("A"))
    refused = abandon(stack, saga_id)
    assert refused.status_code == 409
    assert "it cannot be abandoned: a" in refused.json()["error"].lower()
    stack.start("service_b")
    assert stack.ended(saga_id)["status"] == "COMPLETED"
    assert stack.counts() == ONE_EACH


def test_a_service_that_has_got_the_event_and_said_nothing_yet_keeps_it_from_being_abandoned(
    make_stack: Callable[..., Stack],
) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    saga_id = stack.post_start("wait=0&delay=a:2500").json()["saga_id"]
    eventually(lambda: delivered(stack) > 0)
    refused = abandon(stack, saga_id)
    assert refused.status_code == 409
    assert "A has heard of it, and may have acted" in refused.json()["error"]
    assert stack.ended(saga_id)["status"] == "COMPLETED"


def delivered(stack: Stack) -> int:
    async def read() -> int:
        async with await nats.connect(stack.environ["NATS_URL"]) as client:
            found = (await client.jetstream().consumer_info("SAGA", "A")).delivered
            return found.stream_seq if found else 0

    return run_apart(read())


@BOTH
def test_an_abandoning_that_a_crash_interrupts_is_ended_by_the_first_service(
    make_stack: Callable[..., Stack], kind: str
) -> None:
    """The orchestrator died once the event was durable, and before it had written that the saga has ended."""
    stack = with_a_down(make_stack, kind)
    saga_id = stack.post_start("wait=0").json()["saga_id"]
    publish(stack, "saga.signup.abandoned", json.dumps({"saga_id": saga_id}).encode())
    stack.kill("orchestrator")
    stack.start("service_a")
    stack.start("orchestrator")
    saga = stack.ended(saga_id)
    assert (saga["status"], saga["error"]["kind"]) == ("COMPENSATED", "cancelled")
    assert stack.counts() == ONE_EACH  # of the saga before it


def test_an_operator_who_got_no_answer_asks_again(make_stack: Callable[..., Stack]) -> None:
    """What was published and taken out of the outbox by the first try hinders no second one."""
    stack = with_a_down(make_stack)
    saga_id = stack.post_start("wait=0").json()["saga_id"]
    publish(stack, "saga.signup.abandoned", json.dumps({"saga_id": saga_id}).encode())
    change(stack, "orchestrator", f"DELETE FROM saga_outbox WHERE event_id LIKE '{saga_id}%'")
    assert abandon(stack, saga_id).status_code == 202
    stack.start("service_a")
    eventually(lambda: barrier_of(stack, saga_id) == ["sealed"])
    assert stack.counts() == ONE_EACH


@pytest.mark.parametrize("moment", range(6))
def test_of_a_service_that_starts_at_this_very_moment_and_the_operator_one_wins(
    make_stack: Callable[..., Stack], moment: int
) -> None:
    """Either the operator is answered 202, and nothing is done, or A acts, and the saga goes on to its end."""
    stack = with_a_down(make_stack)
    saga_ids = [stack.post_start("wait=0").json()["saga_id"] for _ in range(12)]
    for index, saga_id in enumerate(saga_ids):
        if index == 2 * moment:
            stack.launch("service_a")  # and nobody waits for it
        answer = abandon(stack, saga_id)
        assert answer.status_code in (202, 409), answer.text
    stack.await_ready("service_a")
    ends = [stack.ended(saga_id) for saga_id in saga_ids]
    for saga in ends:
        done = saga["status"] == "COMPLETED"
        assert done or saga["error"]["kind"] == "cancelled"
        assert {rows_of(stack, service, saga["saga_id"]) for service in "ABC"} == {int(done)}


def test_the_note_is_required_and_says_something(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    saga_id = stack.post_start().json()["saga_id"]
    for body in ({}, {"note": ""}, {"note": "  "}, {"note": 7}, {"note": "x" * 1001}):
        answer = post(stack, f"/sagas/{saga_id}/abandon", body)
        assert (answer.status_code, answer.json()["field"]) == (400, "note")


def test_only_a_choreographed_saga_is_abandoned(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", **QUICK)
    saga_id = stack.post_start().json()["saga_id"]
    assert "only a choreographed saga" in abandon(stack, saga_id).json()["error"]
    assert abandon(stack, "nobody").status_code == 404


def test_while_the_broker_is_away_nothing_is_abandoned(make_stack: Callable[..., Stack]) -> None:
    stack = with_a_down(make_stack)
    saga_id = stack.post_start("wait=0").json()["saga_id"]
    stack.kill("nats")
    eventually(lambda: abandon(stack, saga_id).status_code == 503)
    assert stack.get(f"/sagas/{saga_id}").json()["status"] == "RUNNING"


def test_the_command_abandons_and_the_page_offers_it_only_where_it_is_permitted(
    make_stack: Callable[..., Stack],
) -> None:
    stack = with_a_down(make_stack)
    saga_id = stack.post_start("wait=0").json()["saga_id"]
    offered = f'action="/ui/sagas/{saga_id}/abandon"'
    assert offered in stack.get(f"/ui/sagas/{saga_id}").text
    assert "saga abandon" in saga_command(stack, "show", saga_id).stdout
    for verb in ("cancel", "resolve"):
        refused = post(stack, f"/sagas/{saga_id}/{verb}", NOTE)
        assert refused.status_code == 409
        assert "`abandon` ends it" in refused.json()["error"]
    told = saga_command(stack, "abandon", saga_id, "--note", NOTE["note"])
    assert (told.returncode, "COMPENSATED" in told.stdout) == (0, True), told.stderr
    page = stack.get(f"/ui/sagas/{saga_id}").text
    assert offered not in page
    assert "an operator abandoned it before any service had heard of it" in page.replace("An operator", "an operator")
    assert stack.counts() == ONE_EACH
