"""The state machine that a saga is exported as: its shape, and the rules of the language, as others know them."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from statelint.config import Config
from statelint.linter import Linter

from saga.cli.main import main
from saga.definition import SagaDefinition, Step
from saga.definition_file import load_definition
from saga.errors import BadInput, NotExpressible
from saga.step_functions.asl import BEGIN, COMPENSATED, COMPLETED, CONNECTION_ARN, state_machine
from tests.support.node import checked
from tests.support.participants import definitions
from tests.support.stack import ROOT

HTTPS = {f"SERVICE_{name}_URL": f"https://{name.lower()}.example.com" for name in "ABC"}
SAGAS = ROOT / "orchestrator" / "sagas"
SIGNUP = load_definition(SAGAS / "signup.yaml", HTTPS)
State = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def recursion_limit() -> None:
    """Python's own, which importing jsonata-python raises for everybody."""
    importlib.import_module("jsonata.jsonata")
    sys.setrecursionlimit(1000)


def states(definition: SagaDefinition) -> dict[str, State]:
    return dict(state_machine(definition)["States"])


def nexts(state: State) -> Iterator[str]:
    """Every state that can follow."""
    yield from (state[name] for name in ("Next", "Default") if name in state)
    yield from (branch["Next"] for branch in [*state.get("Catch", ()), *state.get("Choices", ())])


def reachable(known: dict[str, State], start: str) -> set[str]:
    found: set[str] = set()
    ahead = [start]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found.add(name)
            ahead += nexts(known[name])
    return found


def pivot_of(definition: SagaDefinition) -> int:
    return next((index for index, step in enumerate(definition.steps) if step.pivot), len(definition.steps))


@given(definitions())
def test_every_state_can_be_reached_and_can_end(definition: SagaDefinition) -> None:
    """Pitfall 10."""
    known = states(definition)
    assert reachable(known, BEGIN) == set(known)
    ends = {name for name, state in known.items() if state["Type"] == "Succeed"}
    assert ends == {COMPLETED, COMPENSATED}
    assert all(ends & reachable(known, name) for name in known)
    assert max(map(len, known)) <= 80


@given(definitions())
def test_every_call_catches_everything_and_is_given_up_in_time(definition: SagaDefinition) -> None:
    """Pitfalls 14, 15."""
    tasks = [state for state in states(definition).values() if state["Type"] == "Task"]
    for task in tasks:
        assert [catch["ErrorEquals"] for catch in task["Catch"][-2:]] == [["States.DataLimitExceeded"], ["States.ALL"]]
        assert 1 <= task["TimeoutSeconds"] <= 60
        assert task["Retry"][-1]["JitterStrategy"] == "FULL"
    pivot = pivot_of(definition)
    undoable = [step for index, step in enumerate(definition.steps) if step.compensation and index <= pivot]
    assert len(tasks) == len(definition.steps) + len(undoable)


@given(definitions())
def test_compensations_follow_one_another_in_reverse_order(definition: SagaDefinition) -> None:
    known, pivot = states(definition), pivot_of(definition)
    undos = [f"Undo {step.name}" for step in definition.steps[:pivot] if step.compensation]
    assert {name for name in known if name.startswith("Undo") and "rests" not in name} == set(undos)
    for undo, following in zip(undos, [COMPENSATED, *undos], strict=False):
        assert known[undo]["Next"] == following
        assert {catch["Next"] for catch in known[undo]["Catch"]} == {f"{undo} rests"}


@given(definitions())
def test_past_the_pivot_there_is_no_way_back(definition: SagaDefinition) -> None:
    """Pitfall 24."""
    known, pivot = states(definition), pivot_of(definition)
    if pivot < len(definition.steps):
        ahead = reachable(known, known[definition.steps[pivot].name]["Next"])
        assert COMPENSATED not in ahead
        assert not [name for name in ahead if name.startswith(("Undo", "Seal"))]


def test_an_action_whose_outcome_is_unknown_is_compensated_and_a_pivot_sealed() -> None:
    known = states(SIGNUP)
    assert known["B"]["Catch"][-1]["Next"] == "Undo B"
    assert known["C"]["Catch"][-1]["Next"] == "Seal C"
    assert known["Seal C"]["Next"] == "Undo B"
    assert [(catch["ErrorEquals"], catch["Next"]) for catch in known["Seal C"]["Catch"]] == [
        (["States.Http.StatusCode.409"], COMPLETED),
        (["States.DataLimitExceeded"], "Seal C rests"),
        (["States.ALL"], "Seal C rests"),
    ]


def test_failure_flags_travel_as_query_parameters() -> None:
    faulty = SIGNUP.with_faults({("B", "action"): [("fail", "after:1"), ("fail", "late"), ("delay", "5")]}, ())
    arguments = states(faulty)["B"]["Arguments"]
    assert arguments["ApiEndpoint"] == "https://b.example.com/invoke"
    assert arguments["QueryParameters"] == {"fail": ["after:1", "late"], "delay": "5"}


def test_times_become_whole_seconds_that_are_not_shorter() -> None:
    step = replace(SIGNUP.steps[0], timeout=0.5, backoff=1.2, retries=7)
    task = states(replace(SIGNUP, steps=(step, *SIGNUP.steps[1:])))["A"]
    assert task["TimeoutSeconds"] == 1
    assert task["Retry"][-1]["IntervalSeconds"] == 2
    assert task["Retry"][-1]["MaxAttempts"] == 7


def test_the_deadline_is_counted_in_milliseconds_from_the_start_of_the_execution() -> None:
    choice = states(replace(SIGNUP, deadline=60.0005))["In time after A"]["Choices"][0]
    elapsed = "$millis() - $toMillis($states.context.Execution.StartTime)"
    assert choice["Condition"] == f"{{% {elapsed} >= 60001 %}}"
    assert not [name for name in states(replace(SIGNUP, deadline=None)) if name.startswith("In time")]


def test_no_name_of_a_field_ends_the_expression_that_it_stands_in() -> None:
    odd = replace(SIGNUP.steps[0], send=("a %} b", 'c " d', "{% e"))
    body = states(replace(SIGNUP, steps=(odd, *SIGNUP.steps[1:])))["A"]["Arguments"]["RequestBody"]
    assert body.startswith("{% ")
    assert body.endswith(" %}")
    assert "%" not in body[2:-2]


def test_the_connection_is_where_credentials_come_from() -> None:
    arn = "arn:aws:events:eu-central-1:123456789012:connection/saga/5b3c"
    text = json.dumps(state_machine(SIGNUP, arn))
    assert text.count(arn) == 6
    assert "uthorization" not in text
    assert json.dumps(state_machine(SIGNUP)).count("${ConnectionArn}") == 6
    for wrong in ("", "{% $x %}", "arn:aws:iam::123456789012:role/saga"):
        with pytest.raises(BadInput, match="connection-arn"):
            state_machine(SIGNUP, wrong)


def test_the_template_of_the_docs_gives_it_its_connection_and_the_right_to_call() -> None:
    page = (ROOT / "docs" / "step-functions.md").read_text()
    resources = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])["Resources"]
    substituted = resources["Signup"]["Properties"]["DefinitionSubstitutions"]
    assert [f"${{{name}}}" for name in substituted] == [CONNECTION_ARN]
    policy = resources["Role"]["Properties"]["Policies"][0]["PolicyDocument"]
    assert [statement["Action"] for statement in policy["Statement"]] == [
        "states:InvokeHTTPEndpoint",
        "events:RetrieveConnectionCredentials",
        ["secretsmanager:GetSecretValue", "secretsmanager:DescribeSecret"],
    ]


def test_what_step_functions_cannot_do_is_refused_by_name() -> None:
    long = replace(SIGNUP.steps[1], timeout=60.5)
    with pytest.raises(NotExpressible, match=r"steps\[1\].timeout: 60.5 s, but an HTTP Task"):
        state_machine(replace(SIGNUP, steps=(SIGNUP.steps[0], long)))
    with pytest.raises(NotExpressible, match="no orchestrator"):
        state_machine(SIGNUP.with_faults({}, ["before-A"]))
    hundred = tuple(Step(f"S{n}", "https://x", "https://x", send=("a",)) for n in range(100))
    assert len(states(SagaDefinition("hundred", hundred))) == 403  # the most steps that a definition may have
    with pytest.raises(NotExpressible, match="bytes"):
        state_machine(replace(SIGNUP, steps=(replace(SIGNUP.steps[0], send=("x" * 600_000,)),)))


@settings(max_examples=25, deadline=None)
@given(definitions())
def test_it_keeps_the_rules_of_the_language_as_statelint_knows_them(definition: SagaDefinition) -> None:
    assert Linter.validate(state_machine(definition), Config(evaluate_jsonata=True)) == []


def test_it_keeps_the_rules_of_the_language_as_asl_validator_knows_them() -> None:
    long = tuple(Step(f"S{n}", "https://x", "https://x", pivot=n == 8, send=("a",)) for n in range(10))
    without = replace(SIGNUP, steps=(*SIGNUP.steps[:2], replace(SIGNUP.steps[2], compensation=None)))
    alone = SagaDefinition("alone", (Step("A", "https://x"),), secret=("one", "two"))
    exported = [state_machine(each) for each in (SIGNUP, without, alone, SagaDefinition("long", long))]
    broken = state_machine(SIGNUP)
    broken["States"]["B"]["TimeoutSeconds"] = "soon"
    *good, bad = checked(machines=[*exported, broken])["errors"]
    assert good == [[], [], [], []]
    assert bad


def test_the_command_prints_the_state_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in HTTPS.items():
        monkeypatch.setenv(name, url)
    run = CliRunner().invoke(main, ["export", "--asl", "signup", "--sagas-dir", str(SAGAS)])
    assert (run.exit_code, run.stderr) == (0, "")
    assert json.loads(run.stdout) == state_machine(SIGNUP)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["signup"], "--asl"),
        (["--asl", "nope"], "the sagas are signup"),
        (["--asl", "signup", "--connection-arn", "it"], "connection-arn: 'it'"),
        (["--asl", "signup", "--sagas-dir", "/nowhere"], "no *.yaml file"),
        (["--asl", "signup", "--output", "/nowhere/it.json"], "/nowhere/it.json"),
    ],
)
def test_the_command_says_what_is_wrong(words: list[str], said: str) -> None:
    run = CliRunner().invoke(main, ["export", *words], env={"SAGAS_DIR": str(SAGAS)})
    assert run.exit_code == 2
    assert said in run.stderr


def test_the_command_warns_of_addresses_that_aws_does_not_call() -> None:
    run = CliRunner().invoke(
        main, ["export", "--asl", "signup"], env={"SAGAS_DIR": str(SAGAS), "SERVICE_A_URL": "http://a"}
    )
    assert run.exit_code == 0
    assert "https:// addresses only, and not http://a/invoke, http://a/compensate" in run.stderr
