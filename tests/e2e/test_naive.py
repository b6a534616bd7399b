"""What the naive coordinator gets wrong, as the services' own rows tell: the reason for everything else here."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.dashboard.naive import contradiction, found_of, remembered_by_services, rows_by_step, run_naive, sweep
from saga.definition import SagaDefinition
from saga.definition_file import load_definitions
from saga.faults.flags import parse_plan
from tests.support.stack import INPUT, Stack, impatient_sagas

pytestmark = pytest.mark.xdist_group("naive")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack]) -> Stack:
    return make_shared_stack("sqlite", FAULT_HOLD_SECONDS="2")


@pytest.fixture
def definition(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> SagaDefinition:
    sagas = impatient_sagas(tmp_path_factory.mktemp("sagas"), 0.5)
    urls = {f"SERVICE_{name}_URL": stack.url_of(f"service_{name.lower()}") for name in "ABC"}
    return load_definitions(sagas, urls)["signup"]


@pytest.mark.parametrize(
    ("fail", "says", "left"),
    [
        ([], "COMPLETED", {"A": 1, "B": 1, "C": 1}),
        (["b"], "ROLLED BACK", {"A": 0, "B": 0, "C": 0}),
        (["b:refuse"], "ROLLED BACK", {"A": 0, "B": 0, "C": 0}),
        (["b:after:1"], "COMPLETED", {"A": 1, "B": 2, "C": 1}),  # the retry is done twice
        (["b:after"], "ROLLED BACK", {"A": 0, "B": 3, "C": 0}),  # the failed step's own effect is forgotten
        (["b:lost"], "ROLLED BACK", {"A": 0, "B": 3, "C": 0}),  # a time-out is taken for nothing
        (["b", "a:undo"], "ROLLED BACK", {"A": 1, "B": 0, "C": 0}),  # a failed undo is called a success
        (["c:after"], "ROLLED BACK", {"A": 0, "B": 0, "C": 3}),  # money was taken of nobody
        (["orchestrator:after-b"], "nothing any more: it crashed, and kept no log", {"A": 1, "B": 1, "C": 0}),
    ],
)
def test_what_it_says_and_what_it_leaves(
    stack: Stack, definition: SagaDefinition, fail: list[str], says: str, left: dict[str, int]
) -> None:
    """And sweeping up by hand takes away all but what the pivot did."""
    before = stack.counts()
    plan = parse_plan(fail, [], ["A", "B", "C"], enabled=True)
    run = run_naive(definition.with_faults(plan.queries(), plan.orchestrator), INPUT, f"{abs(hash(str(fail))):x}")
    assert run.says == says
    answers = found_of(run.id, definition, None)
    found = rows_by_step(answers)
    assert {step: len(rows or []) for step, rows in found.items()} == left
    assert {step: count - before[step] for step, count in stack.counts().items()} == left
    true = {"COMPLETED": {1}, "ROLLED BACK": {0}}.get(says, {0})
    assert (contradiction(run, found) is None) == (set(left.values()) == true)
    remembered = {(call.step, call.attempt) for call in remembered_by_services(answers, run.id).calls}
    assert {request for request, answer in answers.items() if answer and answer["records"]} <= remembered
    assert remembered <= {(call.step, call.attempt) for call in run.calls}
    sweep(run.id, definition, None)
    assert {step: count - before[step] for step, count in stack.counts().items()} == {"A": 0, "B": 0, "C": left["C"]}


def test_a_service_that_does_not_answer_is_not_taken_for_empty(stack: Stack, definition: SagaDefinition) -> None:
    run = run_naive(definition, INPUT, "unasked")
    stack.kill("service_b")
    try:
        assert rows_by_step(found_of(run.id, definition, None))["B"] is None
    finally:
        stack.start("service_b")
