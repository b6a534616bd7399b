"""An exported saga, executed by an interpreter that is not ours, against participants in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saga.definition import SagaDefinition, Step
from saga.definition_file import load_definition
from saga.machine import State
from saga.step_functions.asl import state_machine
from tests.support.node import checked
from tests.support.participants import Participants, Plan, by_the_machine, definitions, plans
from tests.support.stack import ROOT

if TYPE_CHECKING:
    from tests.support.step_functions import Execution

pytestmark = pytest.mark.xdist_group("asl")  # the interpreter takes seconds to import
INPUT = {"a": 'it\'s "odd" {% $x %} \\ é', "last": None, "list": []}


def step(name: str, **changes: Any) -> Step:
    return Step(name, f"https://{name}.example.com/do", f"https://{name}.example.com/undo", **changes)


def execute(there: Participants, input: Any = INPUT) -> Execution:
    """Run it; an attempt that is lost fails as one that Step Functions has timed out."""
    from tests.support.step_functions import HttpError, StepFunctions

    def invoke(arguments: Mapping[str, Any]) -> dict[str, Any]:
        body = json.loads(json.dumps(arguments["RequestBody"]))
        status, content = there.answer(arguments["Headers"], body)
        if status is None:
            raise HttpError("States.Timeout", "")
        if not isinstance(status, int):
            raise HttpError("States.Http.Socket", "the connection broke")
        if status != 200:
            raise HttpError(f"States.Http.StatusCode.{status}", content.decode())
        answer = content.decode()
        return {"StatusCode": 200, "Headers": {}, "ResponseBody": json.loads(answer) if answer[0] == "{" else answer}

    return StepFunctions(invoke=invoke).execute(there.definition, input)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.step_functions.PACE", 0.0)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_any_saga_with_any_faults_ends_all_or_nothing_and_as_the_state_machine_says(data: st.DataObject) -> None:
    """Pitfalls 4, 5, 7, 8, 10, 24: the oracle is saga.machine, driven by the same answers."""
    definition = data.draw(definitions())
    plan = data.draw(plans(definition))
    there, beside = Participants(definition, plan), Participants(definition, plan)
    execution = execute(there)
    saga, error = by_the_machine(definition, INPUT, beside)
    assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
    assert execution.output["status"] == ("COMPLETED" if saga.state is State.COMPLETED else "COMPENSATED")
    there.check_all_or_nothing(execution.output["status"])
    assert there.calls == beside.calls
    assert there.bodies == beside.bodies
    if saga.state is State.COMPENSATED:
        told = {name: execution.output["error"][name] for name in ("step", "kind", "status_code")}
        if error["kind"] == "timeout":  # it sees only the last attempt
            assert told["kind"] in ("timeout", "failed")
            told["kind"] = "timeout"
        assert told == error
    else:
        assert execution.output["error"] is None


SENT = ("a", "last", "list", "A_id", "C_id", "no such")


def signup() -> SagaDefinition:
    return SagaDefinition(
        "signup",
        (step("A", send=SENT), step("B", send=SENT), step("C", pivot=True), step("D", send=SENT)),
        secret=("B_id",),
        deadline=60,
    )


def test_the_output_tells_what_the_api_tells() -> None:
    execution = execute(Participants(signup()))
    assert execution.output["status"] == "COMPLETED"
    assert execution.output["result"] == {"A_id": 1, "B_id": "***", "C_id": 1, "D_id": 1, "last": "D", "list": ["D"]}


def test_a_call_carries_what_its_step_may_see() -> None:
    """Of the input and of the steps before it: a later one wins, a missing one is left out, null is a value."""
    there = Participants(signup(), {"C:action": ["refuse"]})
    assert execute(there).undone == ["B", "A"]
    assert there.bodies == {
        "A": {"a": INPUT["a"], "last": None, "list": []},
        "B": {"a": INPUT["a"], "last": "A", "list": ["A"], "A_id": 1},
        "C": {},
    }


def test_a_call_after_the_pivot_is_made_until_it_succeeds_with_growing_rests() -> None:
    """Pitfall 25."""
    there = Participants(signup(), {"D:action": ["refuse", *["before"] * 36]})
    execution = execute(there)
    assert execution.output["status"] == "COMPLETED"
    assert there.calls.count("D:action") == 38
    ceilings = [min(300, 2**number) for number in range(len(execution.pauses))]
    assert len(ceilings) > 10
    assert all(most / 2 <= rest <= most for rest, most in zip(execution.pauses, ceilings, strict=True))


def test_a_compensation_is_made_until_it_succeeds_and_the_others_follow() -> None:
    """Pitfalls 7, 8."""
    there = Participants(signup(), {"B:action": ["after"] * 3, "B:compensation": ["unknown 4xx"] * 20})
    execution = execute(there)
    assert execution.output["status"] == "COMPENSATED"
    assert execution.output["error"] == {"step": "B", "kind": "failed", "status_code": 500, "message": "odd"}
    assert there.undone == ["B", "A"]


@pytest.mark.parametrize(("rounds", "most"), [(1, 1), (2, 2), (9, 256), (10, 300), (100_000, 300)])
def test_a_rest_is_at_most_five_minutes_however_often_it_is_taken(rounds: int, most: int) -> None:
    from tests.support.step_functions import evaluate

    seconds = state_machine(signup())["States"]["Undo A rests"]["Seconds"]
    assert most / 2 <= evaluate(f"($rounds := {rounds}; {seconds[2:-2]})") <= most


def test_a_refusal_after_an_attempt_of_unknown_outcome_is_compensated_as_well() -> None:
    """Pitfall 4: the first attempt had its effect, and its answer was lost."""
    there = Participants(signup(), {"B:action": ["lost", "refuse"]})
    execution = execute(there)
    assert execution.undone == ["B", "A"]
    assert there.applied == set()


def test_a_refusal_at_once_is_not_compensated() -> None:
    """Pitfall 3."""
    there = Participants(signup(), {"B:action": ["refuse"]})
    assert execute(there).undone == ["A"]
    assert "B:compensation" not in there.calls


def test_a_pivot_without_compensation_turns_back_only_for_a_refusal_at_once() -> None:
    pivot = replace(step("C", pivot=True), compensation=None)
    definition = SagaDefinition("pay", (step("A"), pivot))
    assert execute(Participants(definition, {"C:action": ["refuse"]})).output["status"] == "COMPENSATED"
    there = Participants(definition, {"C:action": ["lost", "refuse", "before", "before", "refuse"]})
    execution = execute(there)
    assert execution.output["status"] == "COMPLETED"
    assert there.calls.count("A:compensation") == 0


@pytest.mark.parametrize(
    ("cause", "message"),
    [
        ('{"error": "no \\"stock\\" \\u00e9\\n"}', 'no "stock" é\n'),
        ('{"error": {"code": 7}}', "HTTP 409"),
        ("", "HTTP 409"),
        ('<html>"error": "\\x"</html>', "HTTP 409"),
        ('{"error": "' + "x" * 900 + '"}', "x" * 500),
    ],
)
def test_a_participants_own_words_are_told(cause: str, message: str) -> None:
    execution = _with_answer("C", lambda: ("States.Http.StatusCode.409", cause))
    assert execution.output["error"] == {"step": "C", "kind": "refused", "status_code": 409, "message": message}


def _with_answer(name: str, error: Callable[[], tuple[str, str]]) -> Execution:
    from tests.support.step_functions import HttpError, StepFunctions

    def invoke(arguments: Mapping[str, Any]) -> dict[str, Any]:
        if arguments["Headers"]["Idempotency-Key"].endswith(f":{name}:action"):
            raise HttpError(*error())
        return {"StatusCode": 200, "Headers": {}, "ResponseBody": {}}

    return StepFunctions(invoke=invoke).execute(signup(), INPUT)


@pytest.mark.parametrize(
    ("error", "kind", "status_code", "message"),
    [
        ("States.Timeout", "timeout", None, "no answer within 5 s"),
        ("States.Http.Socket", "failed", None, "why"),
        ("States.Http.StatusCode.503", "failed", 503, "HTTP 503"),
        ("States.Http.StatusCode.400", "refused", 400, "HTTP 400"),
        ("States.Http.StatusCode.408", "timeout", 408, "HTTP 408"),
        ("States.Http.StatusCode.425", "failed", 425, "HTTP 425"),
        ("States.Http.StatusCode.429", "failed", 429, "HTTP 429"),
        ("States.Http.StatusCode.499", "failed", 499, "HTTP 499"),
        ("States.Http.StatusCode.302", "failed", 302, "HTTP 302"),
        ("States.DataLimitExceeded", "failed", None, "why"),
        ("Events.ConnectionResource.InvalidConnectionState", "failed", None, "why"),
    ],
)
def test_every_error_of_an_http_task_turns_the_saga_back(
    error: str, kind: str, status_code: int | None, message: str
) -> None:
    execution = _with_answer("B", lambda: (error, "why"))
    told = {"step": "B", "kind": kind, "status_code": status_code, "message": message}
    assert execution.output["error"] == told
    assert execution.undone == (["A"] if error.endswith("400") else ["B", "A"])


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ({"StatusCode": 204}, "COMPLETED"),
        ({"StatusCode": 204, "ResponseBody": ""}, "COMPLETED"),
        ({"StatusCode": 201, "ResponseBody": {"x": 1}}, "COMPLETED"),
        ({"StatusCode": 202, "ResponseBody": {"x": 1}}, "COMPENSATED"),
        ({"StatusCode": 200, "ResponseBody": "OK"}, "COMPENSATED"),
    ],
)
def test_what_a_2xx_says(answer: dict[str, Any], status: str) -> None:
    """204 is an empty result; 202 is not done."""
    from tests.support.step_functions import StepFunctions

    def invoke(arguments: Mapping[str, Any]) -> dict[str, Any]:
        key = arguments["Headers"]["Idempotency-Key"]
        said = answer if key.endswith((":B:action", ":A:compensation")) else {"StatusCode": 200, "ResponseBody": {}}
        if key.endswith(":A:compensation") and status == "COMPENSATED":
            said = {"StatusCode": 204}
        return {"Headers": {}, **said}

    output = StepFunctions(invoke=invoke).execute(signup(), INPUT).output
    assert output["status"] == status
    assert output["result"] == (answer["ResponseBody"] if answer.get("ResponseBody") and status == "COMPLETED" else {})


def test_an_answer_that_step_functions_cannot_read_ends_the_execution_without_a_roll_back() -> None:
    """What it cannot express, as docs/step-functions.md says: nothing catches States.Runtime."""
    execution = _with_answer("B", lambda: ("States.Runtime", "the content type image/png is not supported"))
    assert (execution.status, execution.error) == ("FAILED", "States.Runtime")
    assert execution.undone == []


@pytest.mark.parametrize("input", [[], "text", None, 7])
def test_an_input_that_is_no_object_fails_before_anything_is_called(input: Any) -> None:
    there = Participants(signup())
    execution = execute(there, input)
    assert execution.status == "FAILED"
    assert there.calls == []


def test_past_its_deadline_it_turns_back_with_the_step_that_was_done_last() -> None:
    there = Participants(replace(signup(), deadline=1e-9))
    execution = execute(there)
    assert execution.output["error"] == {
        "step": "A",
        "kind": "deadline",
        "status_code": None,
        "message": "the deadline passed",
    }
    assert execution.undone == ["A"]


def test_a_pivot_that_is_done_knows_no_deadline() -> None:
    definition = SagaDefinition("pay", (step("C", pivot=True), step("D"), step("E")), deadline=1e-9)
    assert execute(Participants(definition)).output["status"] == "COMPLETED"


PAGE = (ROOT / "docs" / "step-functions.md").read_text()
BILLED: dict[str, Plan] = {
    "all goes well": {},
    "B refuses": {"B:action": ["refuse"]},
    "B fails three times, B and A are undone": {"B:action": ["before"] * 3},
    "the pivot's outcome is unknown, its seal finds it committed": {"C:action": ["after"] * 3},
}


@pytest.mark.parametrize("saga", BILLED)
def test_a_saga_costs_what_the_docs_say(saga: str) -> None:
    """Pitfall 18."""
    https = {f"SERVICE_{name}_URL": f"https://{name.lower()}.example.com" for name in "ABC"}
    shipped = load_definition(ROOT / "orchestrator" / "sagas" / "signup.yaml", https)
    count = execute(Participants(shipped, BILLED[saga])).transitions
    assert f"| {saga} | {count} | ${25 * count} |" in PAGE


def test_a_call_that_never_succeeds_costs_and_lasts_what_the_docs_say() -> None:
    def after(rounds: int) -> Execution:
        return execute(Participants(signup(), {"D:action": ["before"] * 3 * rounds}))

    few, more = after(4), after(5)
    transitions, events = more.transitions - few.transitions, more.events - few.events
    rest = 0.75 * 300  # seconds, on average
    assert transitions == 4
    assert f"about {round(86_400 / rest * transitions, -2):,.0f} a day, 4 cents" in PAGE
    assert f"after about {25_000 / events * rest / 86_400:.0f} days" in PAGE


def test_jsonatas_reference_implementation_gives_the_same_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is executed here is jsonata-python's reading of the expressions; AWS may run another's."""
    from tests.support import step_functions

    seen: dict[str, Any] = {}
    plain = step_functions.evaluate

    def recorded(expression: str) -> Any:
        seen[expression] = {"error": True}
        seen[expression] = {"value": (value := plain(expression))}
        return value

    monkeypatch.setattr(step_functions, "evaluate", recorded)
    garbled: Plan = {"B:action": ["garbage"] * 3, "A:compensation": ["garbage"]}
    for plan in ({}, garbled, {"A:action": ["refuse"]}, {"C:action": ["lost", "refuse"], "C:compensation": ["before"]}):
        execute(Participants(signup(), plan))
    fixed = [expression for expression in seen if not re.search(r"\$(random|millis)\(", expression)]
    values = checked(expressions=fixed)["values"]
    assert [{"error": True} if "error" in value else value for value in values] == [seen[each] for each in fixed]
    assert len(fixed) > 100
