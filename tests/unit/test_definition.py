"""Definitions: the shipped one loads, and everything wrong is named by file, line and field."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saga.definition import SagaDefinition, Step
from saga.definition_file import load_definition, load_definitions, parse_definition
from saga.errors import BadInput, DefinitionError
from tests.support.stack import ROOT

ENVIRON = {f"SERVICE_{name}_URL": f"http://{name.lower()}" for name in "ABC"}
GOOD = """\
name: order
input: {type: object, required: [sku], properties: {sku: {type: string}, card: {type: string, maxLength: 4}}}
secret: [card]
steps:
  - name: reserve
    action: http://stock/reserve
    compensation: http://stock/release
    send: [sku]
  - name: charge
    action: ${PAY}/charge
    pivot: true
"""


def test_signup_loads_with_the_addresses_of_the_environment() -> None:
    signup = load_definition(ROOT / "orchestrator" / "sagas" / "signup.yaml", ENVIRON)
    assert [step.name for step in signup.steps] == ["A", "B", "C"]
    assert [step.pivot for step in signup.steps] == [False, False, True]
    assert signup.steps[1].action == "http://b/invoke"
    assert signup.secret == ("payment",)
    assert signup.deadline == 60


def test_the_defaults_are_the_documented_ones() -> None:
    step = parse_definition(GOOD, {"PAY": "https://pay"}).steps[1]
    assert step == Step("charge", "https://pay/charge", pivot=True)
    assert (step.timeout, step.retries, step.backoff, step.send, step.compensation) == (5, 2, 0.2, (), None)


def test_a_snapshot_is_read_back_as_it_was() -> None:
    definition = parse_definition(GOOD, {"PAY": "https://pay"}).with_faults({}, ["before-charge"])
    assert SagaDefinition.from_json(definition.snapshot) == definition


@pytest.mark.parametrize(
    ("change", "line", "field", "problem"),
    [
        (("name: order", "nam: order"), 1, "nam", "no such field"),
        (("name: order", "title: x\nname: order"), 1, "title", "no such field"),
        (("    send: [sku]", "    sent: [sku]"), 8, "steps[0].sent", "no such field"),
        (("    send: [sku]", "    send: sku"), 8, "steps[0].send", "array"),
        (("    send: [sku]", "    timeout: soon"), 8, "steps[0].timeout", "number"),
        (("    send: [sku]", "    timeout: 0"), 8, "steps[0].timeout", "0"),
        (("    send: [sku]", "    retries: 1.5"), 8, "steps[0].retries", "integer"),
        (("    send: [sku]", "    retries: -1"), 8, "steps[0].retries", "minimum"),
        (("    send: [sku]", "    pivot: true"), 11, "steps[1].pivot", "at most one pivot"),
        (("http://stock/reserve", "stock/reserve"), 6, "steps[0].action", "not an http"),
        (("http://stock/release", "ftp://stock"), 7, "steps[0].compensation", "not an http"),
        (("http://stock/release", "http://stock:99999"), 7, "steps[0].compensation", "not an http"),
        (("name: charge", "name: Reserve"), 9, "steps[1].name", "taken"),
        (("name: charge", "name: orchestrator"), 9, "steps[1].name", "taken"),
        (("name: charge", "name: 1"), 9, "steps[1].name", "string"),
        (("${PAY}", "${PAID}"), 10, "steps[1].action", "PAID is not set"),
        (("type: object,", "type: objekt,"), 2, "input.type", "JSON Schema"),
        (("    compensation: http://stock/release\n", ""), 5, "steps[0].compensation", "`compensation: none`"),
        (("http://stock/release", "none # x\n    pivot: true"), 12, "steps[1].pivot", "at most one pivot"),
        (("    pivot: true\n", ""), 9, "steps[1].compensation", "of a saga without a pivot"),
        (("http://stock/release", ""), 7, "steps[0].compensation", "not of type 'string'"),
        (("http://stock/release", "None"), 7, "steps[0].compensation", "not an http"),
        (("secret: [card]", "secret: [card]\nsecret: []"), 4, "secret", "twice"),
        (("secret: [card]", "secret: [card"), 4, "", "YAML"),
        (("name: order", ""), 2, "", "name"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(change: tuple[str, str], line: int, field: str, problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        parse_definition(GOOD.replace(*change), {"PAY": "https://pay"}, "order.yaml")
    message = str(caught.value)
    assert message.startswith(f"order.yaml:{line}: ")
    assert field in message
    assert problem in message


AFTER = "  - {name: ship, action: http://ship/x%s}\n"


def test_a_step_that_has_no_effect_says_so() -> None:
    said = parse_definition(GOOD.replace("http://stock/release", "none"), {"PAY": "https://pay"})
    assert (said.steps[0].compensation, said.steps[0].unsaid) == (None, False)
    assert SagaDefinition.from_json(json.loads(said.snapshot_text)) == said
    assert parse_definition(GOOD.replace("pivot: true", "compensation: none"), {"PAY": "https://pay"}).steps[1] == (
        Step("charge", "https://pay/charge")
    )


def test_the_pivot_and_what_comes_after_it_need_no_compensation_and_the_latter_may_have_none() -> None:
    for more in ("", ", compensation: none"):
        ship = parse_definition(GOOD + AFTER % more, {"PAY": "https://pay"}).steps[2]
        assert ship == Step("ship", "http://ship/x")
    with pytest.raises(
        DefinitionError, match=r"order.yaml:12: steps\[2\].compensation: a step after the pivot"
    ) as caught:
        parse_definition(GOOD + AFTER % ", compensation: http://ship/undo", {"PAY": "https://pay"}, "order.yaml")
    assert "remove it" in str(caught.value)


def test_a_service_that_only_listens_checks_it_too() -> None:
    with pytest.raises(DefinitionError, match="`compensation: none`"):
        parse_definition(GOOD.replace("    compensation: http://stock/release\n", ""), {}, urls=False)


def test_a_snapshot_of_an_older_version_has_not_said_that_there_is_nothing_to_undo() -> None:
    snapshot = json.loads(parse_definition(GOOD, {"PAY": "https://pay"}).snapshot_text)
    for step in snapshot["steps"]:
        del step["unsaid"]
    steps = SagaDefinition.from_json(snapshot).steps
    assert [step.unsaid for step in steps] == [False, True]
    again = SagaDefinition.from_json(SagaDefinition.from_json(snapshot).snapshot)
    assert [step.unsaid for step in again.steps] == [False, True]


@pytest.mark.parametrize("text", ["", "[]", "just text", "a: &a [*a]", "\x00"])
def test_what_is_no_definition_at_all_is_an_error_too(text: str) -> None:
    with pytest.raises(DefinitionError):
        parse_definition(text, {})


def test_two_files_may_not_define_one_saga(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.replace("${PAY}", "http://pay"))
    with pytest.raises(DefinitionError, match=r"two\.yaml"):
        load_definitions(tmp_path, {})


def test_a_directory_without_a_saga_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DefinitionError, match="SAGAS_DIR"):
        load_definitions(tmp_path, {})


@pytest.mark.parametrize(
    ("value", "field"),
    [({}, "sku"), ({"sku": 1}, "sku"), ({"sku": "x", "card": "41111"}, "card")],
)
def test_input_is_checked_and_the_field_named(value: dict, field: str) -> None:
    with pytest.raises(BadInput, match=field) as caught:
        parse_definition(GOOD, {"PAY": "https://pay"}).check_input(value)
    assert caught.value.field == field
    assert "41111" not in str(caught.value)  # a secret is not quoted


def test_faults_go_into_the_urls_of_the_snapshot() -> None:
    definition = parse_definition(GOOD, {"PAY": "https://pay?x=1"})
    flawed = definition.with_faults(
        {
            ("reserve", "action"): [("fail", "after:1"), ("delay", "20")],
            ("reserve", "compensation"): [("fail", "undo")],
        },
        ["before-charge"],
    )
    assert flawed.steps[0].action == "http://stock/reserve?fail=after:1&delay=20"
    assert flawed.steps[0].compensation == "http://stock/release?fail=undo"
    assert flawed.steps[1] == definition.steps[1]
    assert flawed.faults == ("before-charge",)


def test_a_name_that_nothing_else_knows_is_doubted() -> None:
    text = """
name: order
input: {type: object, properties: {item: {type: string}, card: {type: string}}}
secret: [cardd, card, receipt]
steps:
  - {name: A, action: http://a/x, send: [itme], compensation: none}
  - {name: B, action: http://b/x, send: [receipt], compensation: none}
"""
    warnings = parse_definition(text, {}).warnings
    assert [doubt.split(" is ")[0] for doubt in warnings] == ["secret: 'cardd'", "steps[0].send: 'itme'"]
    assert parse_definition(text.replace("cardd, ", "").replace("itme", "item"), {}).warnings == []


_ALIASES = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)
_MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}\n" for n in range(1, 10))
_CHAIN = "".join(f"a{n}: &a{n} [[[[[[[[[[{f'*a{n - 1}' if n else 1}]]]]]]]]]]\n" for n in range(9))


@pytest.mark.parametrize(
    ("text", "line", "named"),
    [
        pytest.param("name: x\ninput:\n  default: " + "[" * 600 + "]" * 600, 3, "nested too deeply", id="flow"),
        pytest.param("name: x\n" + "\n".join("  " * n + f"a{n}:" for n in range(100)), 66, "nested", id="block"),
        pytest.param(_ALIASES, 5, "too much", id="aliases"),
        pytest.param(_MERGES, 5, "too much", id="merges"),
        pytest.param(_CHAIN, 7, "nested too deeply", id="a chain of aliases"),
        pytest.param("name: x\na: &a [1, *a]\n", 2, "what it stands in", id="itself"),
        pytest.param("input:\n  maximum: 12345678901234567890.123\n", 2, "a double holds", id="digits"),
        pytest.param("input:\n  maximum: " + "9" * 5000, 2, "too long", id="many digits"),
        pytest.param("deadline: .nan\n", 1, "no number", id="nan"),
        pytest.param("deadline: -.inf\n", 1, "no number", id="infinity"),
    ],
)
def test_a_file_that_is_too_deep_or_too_much_is_named_with_its_line(text: str, line: int, named: str) -> None:
    with pytest.raises(DefinitionError, match=named) as caught:
        parse_definition(text, {}, "deep.yaml")
    assert (caught.value.file, caught.value.line) == ("deep.yaml", line)


@pytest.mark.parametrize("value", ["2026-99-99", "!!float abc"])
def test_a_value_that_pyyaml_stumbles_over_names_the_file(value: str) -> None:
    with pytest.raises(DefinitionError, match=r"deep\.yaml"):
        parse_definition(f"name: x\ninput:\n  default: {value}\n", {}, "deep.yaml")


def test_aliases_that_stand_for_little_are_taken() -> None:
    text = """
name: x
input: {properties: {a: &text {type: string, maxLength: 255}, b: *text, c: {<<: *text, minLength: 1}}}
steps: [{name: A, action: http://a/invoke, compensation: none}]
"""
    assert parse_definition(text, {}).input == {
        "properties": {
            "a": {"type": "string", "maxLength": 255},
            "b": {"type": "string", "maxLength": 255},
            "c": {"type": "string", "maxLength": 255, "minLength": 1},
        }
    }
