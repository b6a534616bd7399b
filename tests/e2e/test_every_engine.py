"""One contract for every engine: the same saga over the same services gives the same answer, and the same rows.

Each test is a row of the table in docs/choosing-an-engine.md, and looks at the services' own rows (pitfall 17). What it
needs of an engine beyond that is in tests/support/engines.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import requests

from tests.conftest import databases
from tests.engine_table import Case, promise
from tests.support.engines import (
    BUILT_IN,
    CHOREOGRAPHY,
    HOLD,
    STEP_FUNCTIONS,
    TEMPORAL,
    Answer,
    Engine,
    OnStack,
    OnStepFunctions,
    barrier_of,
    kill_and_start,
    rows_of,
    sagas_in,
)
from tests.support.odd_service import PRICE
from tests.support.stack import SERVICES, Stack, eventually

ONE_EACH, NONE = {"A": 1, "B": 1, "C": 1}, {"A": 0, "B": 0, "C": 0}

ROLLED_BACK = {  # by flags: the status code, the cause's step and kind
    "fail=a": (500, "A", "failed"),
    "fail=b": (500, "B", "failed"),
    "fail=b:after": (500, "B", "failed"),
    "fail=c": (500, "C", "failed"),
    "fail=c:refuse": (409, "C", "refused"),
    "fail=b:garbage": (500, "B", "failed"),
    "fail=b:refuse": (409, "B", "refused"),
    "fail=b:lost": (504, "B", "timeout"),
    "fail=b:late": (504, "B", "timeout"),
    "fail=c:late": (504, "C", "timeout"),
}
RETRIED = ["fail=b:after:1", "fail=c:before:2", "fail=c:after:2", "fail=a:garbage:1", "fail=b:lost:1", "fail=c:lost:1"]
IN_DOUBT = ["fail=c:after", "fail=c:lost"]
STUCK = ["fail=b&fail=a:undo:4", "fail=c&fail=b:undo:7"]

Ran = dict[str, "Future[Answer]"]


@pytest.fixture(scope="module")
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ports: Iterator[int]
) -> Iterator[Engine]:
    """An engine, on services of its own."""
    case: Case = request.param
    directory = tmp_path_factory.mktemp(case.id)
    sagas = sagas_in(directory)
    environ = {"SAGAS_DIR": str(sagas), "FAULT_HOLD_SECONDS": str(HOLD), "STALL_BASE_SECONDS": "0.2"}
    environ |= {"STALL_MAX_SECONDS": "1", "LEASE_SECONDS": "3"}
    choreographed = case.engine == CHOREOGRAPHY
    stack = Stack(
        databases(request, case.database, directory),
        directory,
        ports,
        environ,
        broker=choreographed,
        mode="choreography" if choreographed else "orchestration",
        temporal=request.getfixturevalue("temporal_server").address if case.engine == TEMPORAL else None,
    )
    if case.engine == STEP_FUNCTIONS:
        stack.processes = tuple(SERVICES.values())
    else:
        stack.add_odd(ports, sagas)
    stack.start_all()
    drivers = {BUILT_IN: ["orchestrator"], CHOREOGRAPHY: ["nats", "orchestrator"], TEMPORAL: ["worker", "orchestrator"]}
    yield (OnStepFunctions(stack, sagas) if case.engine == STEP_FUNCTIONS else OnStack(stack, drivers[case.engine]))
    stack.stop_all()


@pytest.fixture(scope="module")
def ran(engine: Engine) -> Iterator[Ran]:
    """Every scenario, all at once: most of them wait most of the time."""
    with ThreadPoolExecutor(8) as pool:
        wanted = ["", *ROLLED_BACK, *RETRIED, *IN_DOUBT, *STUCK]
        patient = {flags: "hasty" if re.search("lost|late", flags) else "signup" for flags in wanted}
        yield {flags: pool.submit(engine.run, flags, saga) for flags, saga in patient.items()}


def in_order(undone: list[str]) -> bool:
    """Each once, the last step first."""
    return undone == sorted(set(undone), reverse=True)


@promise("All succeed: a row in each service")
def test_all_succeed(engine: Engine, ran: Ran) -> None:
    """Pitfalls 16, 17."""
    code, saga = ran[""].result()
    assert (code, saga["status"], saga["error"]) == (200, "COMPLETED", None)
    assert rows_of(engine, saga["saga_id"]) == ONE_EACH
    user, payment = (row for name in "AC" for row in engine.stack.rows(name) if row["saga_id"] == saga["saga_id"])
    assert (user["username"], user["id"]) == ("ada", payment["user_id"])
    assert saga["result"]["user_id"] == user["id"]


@pytest.mark.parametrize("flags", ROLLED_BACK)
@promise("A step that fails, refuses, times out or answers garbage leaves every table as before")
def test_a_failed_step_leaves_every_table_as_before(engine: Engine, ran: Ran, flags: str) -> None:
    """Pitfalls 2, 3, 4, 5, 10, 14, 30: what is undone includes the failed step where it may have had its effect."""
    code, saga = ran[flags].result()
    expected, step, kind = ROLLED_BACK[flags]
    assert (code, saga["status"]) == (expected, "COMPENSATED")
    assert (saga["error"]["step"], saga["error"]["kind"]) == (step, kind)
    assert in_order(engine.undone(saga))
    assert rows_of(engine, saga["saga_id"]) == NONE


@promise("A refusal is not tried again, and told with its reason")
def test_a_refusal_is_told_with_its_reason(engine: Engine, ran: Ran) -> None:
    _, saga = ran["fail=b:refuse"].result()
    assert saga["error"] == {"step": "B", "kind": "refused", "status_code": 409, "message": "injected: refuse"}
    assert engine.undone(saga) == ["A"]


@pytest.mark.parametrize("flags", RETRIED)
@promise("A retry that succeeds inserts once")
def test_a_retry_that_succeeds_inserts_once(engine: Engine, ran: Ran, flags: str) -> None:
    """Pitfall 1."""
    code, saga = ran[flags].result()
    assert (code, saga["status"], saga["error"]) == (200, "COMPLETED", None)
    assert rows_of(engine, saga["saga_id"]) == ONE_EACH


@pytest.mark.parametrize("flags", IN_DOUBT)
@promise("A pivot whose outcome is in doubt is found committed, and the saga goes forward")
def test_a_payment_in_doubt_is_found_committed_and_the_saga_goes_forward(engine: Engine, ran: Ran, flags: str) -> None:
    """Pitfall 24."""
    code, saga = ran[flags].result()
    assert (code, saga["status"], saga["error"]) == (200, "COMPLETED", None)
    assert rows_of(engine, saga["saga_id"]) == ONE_EACH


@promise("An action that arrives after its compensation does nothing")
def test_an_action_that_arrives_after_its_compensation_does_nothing(engine: Engine, ran: Ran) -> None:
    """Pitfall 21: one more is sent after all those that the services still hold back."""

    def arrives_late(step: str) -> int:
        _, saga = ran[f"fail={step.lower()}:late"].result()
        assert barrier_of(engine, step, saga["saga_id"]) == "sealed"
        url = f"{engine.stack.url_of(SERVICES[step])}/invoke?fail=late"
        code = requests.post(url, json={"user_id": 1}, headers={"Saga-Id": saga["saga_id"]}, timeout=30).status_code
        assert rows_of(engine, saga["saga_id"]) == NONE
        return code

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(arrives_late, "BC")) == [409, 409]


@pytest.mark.parametrize("flags", STUCK)
@promise("A compensation that fails is tried until it succeeds")
def test_a_compensation_that_fails_is_tried_until_it_succeeds(engine: Engine, ran: Ran, flags: str) -> None:
    """Pitfalls 7, 8: a failed undo is no success, and does not stop the rest."""
    code, saga = ran[flags].result()
    assert (code, saga["status"]) == (500, "COMPENSATED")
    assert in_order(engine.undone(saga))
    assert engine.undone(saga)[-1] == "A"
    assert rows_of(engine, saga["saga_id"]) == NONE


@promise("Sagas side by side each end as they should; nobody else's rows are touched")
def test_many_sagas_at_once_each_end_as_they_should(engine: Engine, ran: Ran) -> None:
    """Pitfall 6: the same user name in all of them."""
    all_ended(ran)
    expected = {"": 200, "fail=b:after": 500, "fail=c": 500, "fail=a:after:1": 200, "fail=b:refuse": 409}
    started = [(flags, engine.begin(flags)) for flags in list(expected) * 3]
    codes = [saga.ended()[0] for _, saga in started]
    assert codes == [expected[flags] for flags, _ in started]
    for code, (_, saga) in zip(codes, started, strict=True):
        assert rows_of(engine, saga.saga_id) == (ONE_EACH if code == 200 else NONE)


@promise("A service that is killed in the middle is waited for")
def test_a_service_that_is_killed_in_the_middle_is_waited_for(engine: Engine, ran: Ran) -> None:
    """Pitfalls 11, 26: it may have taken effect there, so that must be undone, or found done, once it is back."""
    all_ended(ran)
    started = engine.begin("delay=b:1500")
    eventually(lambda: rows_of(engine, started.saga_id)["A"])
    kill_and_start(engine, "service_b")
    code, saga = started.ended()
    assert saga["status"] in ("COMPLETED", "COMPENSATED")
    assert rows_of(engine, started.saga_id) == (ONE_EACH if code == 200 else NONE)


@promise(
    "What drives it is killed with kill -9 in the middle, and started again: nothing is lost",
    {STEP_FUNCTIONS: "AWS keeps that; the interpreter that executes the state machine in our tests has no server"},
)
def test_what_drives_it_is_killed_in_the_middle(engine: Engine, ran: Ran) -> None:
    """Pitfalls 11, 13, 22."""
    all_ended(ran)
    for driver in engine.drivers:
        expected = {"": 200, "fail=c": 500, "fail=b:after": 500}
        started = {flags: engine.begin(f"delay=b:700&{flags}") for flags in expected}
        eventually(lambda started=started: all(rows_of(engine, saga.saga_id)["A"] for saga in started.values()))
        kill_and_start(engine, driver)
        for flags, saga in started.items():
            assert (saga.ended()[0], driver) == (expected[flags], driver)
            assert rows_of(engine, saga.saga_id) == (ONE_EACH if expected[flags] == 200 else NONE)


@promise(
    "An Idempotency-Key starts one saga, however often it is sent",
    {STEP_FUNCTIONS: "there is no POST /start: on AWS an execution's name is its key"},
)
def test_an_idempotency_key_starts_one_saga(engine: Engine) -> None:
    headers = {"Idempotency-Key": "the same"}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: engine.stack.post_start(headers=headers), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    (saga_id,) = {answer.json()["saga_id"] for answer in answers}
    assert rows_of(engine, saga_id) == ONE_EACH
    assert engine.stack.post_start(body={"username": "eve"}, headers=headers).status_code == 422


@promise(
    "An operator can cancel a saga under way",
    {
        CHOREOGRAPHY: "nobody is in charge of a choreographed saga",
        STEP_FUNCTIONS: "to stop an execution rolls nothing back",
    },
)
def test_an_operator_cancels_a_saga_under_way(engine: Engine) -> None:
    started = engine.begin("delay=b:1500")
    eventually(lambda: rows_of(engine, started.saga_id)["A"])
    url = f"{engine.stack.url}/sagas/{started.saga_id}/cancel"
    assert requests.post(url, timeout=30).status_code == 202
    assert requests.post(url, timeout=30).status_code == 409
    code, saga = started.ended()
    assert (code, saga["error"]["kind"]) == (409, "cancelled")
    assert rows_of(engine, started.saga_id) == NONE


@promise(
    "A result that is nested 100 deep turns the saga back, and the error says so",
    {STEP_FUNCTIONS: "the Amazon States Language does not tell how deep a result is"},
)
def test_a_result_that_is_nested_100_deep_turns_the_saga_back(engine: Engine) -> None:
    """What its function returned is the kit's to refuse; what came over HTTP may have had its effect, and is undone."""
    choreographed = engine.stack.mode == "choreography"
    undone = {"deep result": ["A"], **({} if choreographed else {"deep answer": ["Odd", "A"]})}
    for want, steps in undone.items():
        code, saga = odd_saga(engine, {"username": "ada", "want": want})
        assert (code, saga["status"]) == (500, "COMPENSATED")
        assert (saga["error"]["step"], saga["error"]["kind"]) == ("Odd", "failed")
        assert "nested too deeply: 64 levels are the most" in saga["error"]["message"]
        assert engine.undone(saga) == steps
        assert rows_of(engine, saga["saga_id"]) == NONE
        assert odd_records(engine, saga["saga_id"]) == []
        assert engine.stack.get(f"/ui/sagas/{saga['saga_id']}").status_code == 200


@promise(
    "A number of more digits than a double has is kept, digit for digit",
    {STEP_FUNCTIONS: "JSONata's numbers are doubles"},
)
def test_a_number_of_many_digits_is_kept_digit_for_digit(engine: Engine) -> None:
    """From the caller to a service, and from the service, which returned a Decimal, to whoever asks for the saga."""
    code, saga = odd_saga(engine, {"username": "ada", "want": "digits", "amount": "0.30000000000000000001"})
    assert (code, saga["status"], saga["error"]) == (200, "COMPLETED", None)
    later = json.loads(engine.stack.get(f"/sagas/{saga['saga_id']}").text, parse_float=str)
    for told in (saga, later):
        assert (told["result"]["price"], told["result"]["sent"]) == (PRICE, "0.30000000000000000001")
        assert told["input"]["amount"] == "0.30000000000000000001"
    assert len(odd_records(engine, saga["saga_id"])) == 1


def odd_saga(engine: Engine, input: dict[str, str]) -> Answer:
    """The saga of tests/support/odd_service.py; an `amount` is sent as a number, and a number is told as its text."""
    body = json.dumps(input)
    if "amount" in input:
        body = body.replace(json.dumps(input["amount"]), input["amount"])
    answer = engine.stack.post_start("saga=odd", data=body)
    return answer.status_code, json.loads(answer.text, parse_float=str)


def odd_records(engine: Engine, saga_id: str) -> list[object]:
    """The rows that the service has of this saga."""
    answer = requests.get(f"{engine.stack.url_of('odd')}/records/{saga_id}", timeout=10)
    return list(answer.json()["records"])


def all_ended(ran: Ran) -> None:
    """So that what follows disturbs no other scenario."""
    for running in ran.values():
        running.result()
