"""What the audit expects of a step, and what a saga's page makes of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.dashboard.truth import Agreement, agreements, violations
from saga.definition import SagaDefinition, Step
from saga.definition_file import parse_definition
from saga.errors import DefinitionError
from saga.machine import State
from saga.saga_row import SagaRow
from saga.views.audit import expected, violation
from tests.support.builders import a_saga_row

COMPLETED, COMPENSATED = State.COMPLETED, State.COMPENSATED


def a_step(records: str = "one", compensation: str | None = "http://a/compensate") -> Step:
    return Step("A", "http://a/invoke", compensation, records=records)


def a_saga(state: State, *steps: Step) -> SagaRow:
    ended = 2.0 if state in (COMPLETED, COMPENSATED) else None
    definition = SagaDefinition("test", steps or (a_step(),))
    return a_saga_row(id="id", definition=definition, state=state, started_at=1.0, ended_at=ended)


@pytest.mark.parametrize(
    ("records", "state", "right", "wrong", "words"),
    [
        ("one", COMPLETED, [1], [0, 2, 3], "one record"),
        ("one", COMPENSATED, [0], [1, 2], "no record"),
        ("some", COMPLETED, [1, 2, 9], [0], "at least one record"),
        ("some", COMPENSATED, [0], [1, 2], "no record"),
        ("none", COMPLETED, [0], [1, 2], "no record"),
        ("none", COMPENSATED, [0], [1, 2], "no record"),
        ("skip", COMPLETED, [0, 1, 2], [], ""),
        ("skip", COMPENSATED, [0, 1, 2], [], ""),
    ],
)
def test_a_step_says_how_many_records_it_leaves(
    records: str, state: State, right: list[int], wrong: list[int], words: str
) -> None:
    step = a_step(records)
    row = a_saga(state, step)
    assert [violation(row, step, found) for found in right] == [None] * len(right)
    for found in wrong:
        told = {"saga_id": "id", "step": "A", "status": state.upper(), "expected": words, "found": found}
        assert violation(row, step, found) == told


def test_nothing_was_promised_of_a_step_of_a_compensated_saga_that_cannot_be_undone() -> None:
    assert expected(a_step(compensation=None), COMPENSATED) is None
    assert expected(a_step("none", compensation=None), COMPENSATED) is not None
    assert expected(a_step(compensation=None), COMPLETED) is not None


@pytest.mark.parametrize("state", [state for state in State if state not in (COMPLETED, COMPENSATED)])
def test_of_a_saga_that_has_not_ended_nothing_is_expected_yet(state: State) -> None:
    row = a_saga(state)
    assert violation(row, row.definition.steps[0], 7) is None
    assert violations(row, {"A": {"records": [{}] * 7}}) == []
    assert agreement(row, "applied", 1) == Agreement(None, "not settled yet")


def agreement(row: SagaRow, effect: str, number: int | None) -> Agreement:
    rows = {"A": None if number is None else {"records": [{}] * number}}
    return agreements(row, [{"name": "A", "effect": effect}], rows)["A"]


@pytest.mark.parametrize(
    ("state", "effect", "number", "told"),
    [
        (COMPLETED, "applied", 1, Agreement(True, "as the log says")),
        (COMPENSATED, "undone", 0, Agreement(True, "as the log says")),
        (COMPENSATED, "undone", 1, Agreement(False, "the log says undone, A has 1 row")),
        (COMPENSATED, "none", 2, Agreement(False, "the log says that it had no effect, A has 2 rows")),
        (COMPLETED, "applied", 0, Agreement(False, "the log says applied, A has no row")),
        (COMPLETED, "applied", None, Agreement(None, "not known: it does not answer")),
    ],
)
def test_the_rows_are_held_against_the_log(state: State, effect: str, number: int | None, told: Agreement) -> None:
    row = a_saga(state)
    assert agreement(row, effect, number) == told
    wrong = violations(row, {"A": None if number is None else {"records": [{}] * number}})
    assert bool(wrong) == (told.holds is False)


def test_what_is_not_compared_is_said() -> None:
    assert agreement(a_saga(COMPLETED, a_step("skip")), "applied", None).text == "not compared (records: skip)"
    assert "nothing was promised" in agreement(a_saga(COMPENSATED, a_step(compensation=None)), "applied", 1).text


YAML = """
name: test
steps:
  - name: A
    action: http://a/invoke
    compensation: http://a/compensate
    records: {}
"""


@pytest.mark.parametrize("records", ["one", "some", "none", "skip"])
def test_the_file_says_it_and_the_snapshot_keeps_it(records: str) -> None:
    definition = parse_definition(YAML.format(records), {})
    assert definition.steps[0].records == records
    assert SagaDefinition.from_json(definition.snapshot) == definition


def test_without_it_there_is_one_also_in_the_snapshot_of_an_older_version() -> None:
    definition = parse_definition(YAML.replace("    records: {}\n", ""), {})
    assert definition.steps[0].records == "one"
    older: dict[str, Any] = dict(definition.snapshot)
    older["steps"] = [{name: value for name, value in step.items() if name != "records"} for step in older["steps"]]
    assert SagaDefinition.from_json(older) == replace(definition)


@pytest.mark.parametrize("records", ["two", "1", "true", "[one]"])
def test_another_word_is_refused_with_its_line(records: str) -> None:
    with pytest.raises(DefinitionError, match=r"<yaml>:7.*steps\[0\]\.records"):
        parse_definition(YAML.format(records), {})
