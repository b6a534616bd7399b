"""JSON that others send: digit for digit, bounded in its depth, clear about what it cannot keep."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.call import classify_attempt
from saga.choreography.events import EventKind, SagaEvent, parse_event
from saga.errors import BadInput, NotJson
from saga.http_client.transport import HttpAnswer
from saga.payload import (
    LEVELS_AT_MOST,
    canonical,
    check_fields,
    compact,
    mask,
    parse_object,
    pretty,
    sayable,
    schema_of,
    secret_texts,
    stored,
)

digits = st.text("0123456789", min_size=1, max_size=40)
numbers = st.builds(
    lambda sign, whole, fraction, exponent: (
        sign + (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "") + exponent
    ),
    st.sampled_from(["", "-"]),
    digits,
    st.one_of(st.just(""), digits),
    st.one_of(st.just(""), st.builds(lambda e: f"e{e}", st.integers(-200, 200)), st.just("E+5")),
)
texts = st.text(st.characters(exclude_categories=["Cs"]))
values = st.recursive(
    st.none() | st.booleans() | texts | numbers.map(lambda text: json.loads(text, parse_float=Decimal)),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    """An object of so many levels, itself counted."""
    return '{"x":' + opening * (levels - 1) + ("0" if opening != "[" else "") + closing * (levels - 1) + "}"


def exactly(text: str) -> Any:
    """The value of a JSON text by Python's own parser, with every number as a Decimal."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


@given(numbers)
def test_a_number_keeps_its_value_or_is_refused_by_its_field(text: str) -> None:
    kept = parse_object(f'{{"n":[{text}]}}')
    assert Decimal(json.loads(compact(kept), parse_float=str, parse_int=str)["n"][0]) == Decimal(text)
    assert stored(compact(kept)) == kept


@given(st.dictionaries(texts, values, max_size=4))
def test_any_value_is_written_as_it_was_read(value: dict[str, Any]) -> None:
    text = compact(value)
    assert exactly(text) == exactly(pretty(value)) == exactly(compact(parse_object(text)))
    assert canonical(parse_object(text)) == canonical(parse_object(pretty(value)))


@given(st.dictionaries(texts, st.recursive(texts | st.integers() | st.none(), st.lists, max_leaves=9)))
def test_what_people_read_looks_as_pythons_own(value: dict[str, Any]) -> None:
    assert pretty(value) == json.dumps(value, indent=2, ensure_ascii=False)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1.0"),
        ("1e0", "1"),
        ("-0.0", "0"),
        ("1E5", "100000"),
        ("1e23", "100000000000000000000000"),
        ("12345678901234567890.10", "1234567890123456789010e-2"),
        ("12345678901234567890123.0", "12345678901234567890123"),
        ("0.1", "0.10"),
    ],
)
def test_equal_numbers_are_equal_bodies(one: str, other: str) -> None:
    assert canonical(parse_object(f'{{"n":{one}}}')) == canonical(parse_object(f'{{"n":{other}}}'))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12345678901234567890.123", "12345678901234567890.124"),
        ("1e23", "99999999999999991611392"),
        ("0.1", "0.1000000000000000055511151231257827021181583404541015625"),
        ("9007199254740993.0", "9007199254740992.0"),
    ],
)
def test_numbers_that_a_double_confuses_are_other_bodies(one: str, other: str) -> None:
    assert canonical(parse_object(f'{{"n":{one}}}')) != canonical(parse_object(f'{{"n":{other}}}'))


@pytest.mark.parametrize("text", ["1e400", "-1e400", "1e-400", "9" * 5000, "0." + "1" * 5000, "1e" + "9" * 30])
def test_a_number_that_cannot_be_kept_is_refused_by_its_field(text: str) -> None:
    with pytest.raises(BadInput, match=r"order\.items\[1\]\.price: ") as caught:
        parse_object(f'{{"order": {{"items": [1, {{"price": {text}}}]}}}}')
    assert caught.value.field == "order.items[1].price"


def test_a_key_that_is_there_twice_is_refused_in_a_request_and_read_in_an_answer() -> None:
    with pytest.raises(BadInput, match="'a' is here twice"):
        parse_object('{"b": [{"a": 1, "a": 2}]}')
    assert parse_object('{"a": 1, "a": 2}', strict=False) == {"a": 2}


@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")])
def test_the_bound_of_depth_is_exact(brackets: tuple[str, str]) -> None:
    opening, closing = brackets
    per = opening.count("[") + opening.count("{")
    fits = '{"x":' + opening * ((LEVELS_AT_MOST - 1) // per) + "0" + closing * ((LEVELS_AT_MOST - 1) // per) + "}"
    parse_object(fits)
    for levels in (LEVELS_AT_MOST, 600, 100_000):
        deep = '{"x":' + opening * (levels // per + per - 1) + "0" + closing * (levels // per + per - 1) + "}"
        with pytest.raises(BadInput, match="nested too deeply: 64 levels"):
            parse_object(deep)
    parse_object(nested(LEVELS_AT_MOST))
    with pytest.raises(BadInput, match="deeply"):
        parse_object(nested(LEVELS_AT_MOST + 1))


@pytest.mark.parametrize(
    "body", ['{"x":"' + "[" * 700 + '"}', '{"x":"\\"' + "{[" * 700 + '"}', '{"x":[' + "[]," * 700 + "0]}"]
)
def test_brackets_that_open_no_level_do_not_count(body: str) -> None:
    parse_object(body)


def test_what_is_not_closed_is_no_json_however_deep_it_begins() -> None:
    for levels in (10, 100_000):
        with pytest.raises(BadInput):
            parse_object('{"x":' + "[" * levels)


def test_every_reader_takes_what_the_parser_takes() -> None:
    """The deepest value goes through all that walks through values."""
    value = parse_object(nested(LEVELS_AT_MOST))
    assert mask(value, ["y"], ["secret"]) == value
    assert secret_texts(value, ["x"]) == frozenset()
    assert stored(compact({"fields": {"A": value}}))["fields"]["A"] == value
    schema = {"properties": {"x": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"anyOf": [{"items": {"$ref": "#/$defs/n"}}]}}}
    check_fields(schema_of(schema), value)
    canonical(value)


def test_what_was_stored_too_deep_is_a_value_error() -> None:
    for levels in (100, 100_000):
        with pytest.raises(ValueError, match="deeply"):
            stored(nested(levels))


def test_a_schema_that_never_ends_is_bad_input() -> None:
    with pytest.raises(BadInput, match="without an end"):
        check_fields(schema_of({"$ref": "#"}), {})


def test_an_event_carries_the_deepest_input_and_nothing_deeper() -> None:
    fields = parse_object(nested(LEVELS_AT_MOST))
    event = SagaEvent("signup", "s1", EventKind.STARTED, None, {"fields": fields, "at": 1.5})
    assert parse_event(event.subject, event.payload()).body["fields"] == fields
    with pytest.raises(BadInput, match="deeply"):
        parse_event("saga.signup.started", b'{"saga_id": "s1", "fields": ' + nested(600).encode() + b"}")


def test_an_event_keeps_digits_and_its_times_are_doubles() -> None:
    body = b'{"saga_id":"s1","at":1732645000.1234567890123,"result":{"n":12345678901234567890.123}}'
    told = parse_event("saga.signup.A.done", body).body
    assert (type(told["at"]), told["result"]) == (float, {"n": Decimal("12345678901234567890.123")})


@pytest.mark.parametrize("status", [200, 409, 500])
def test_an_answer_that_is_nested_too_deeply_says_so(status: int) -> None:
    made = classify_attempt(HttpAnswer(1.0, status, {}, nested(600).encode()), 1)
    assert made.message is not None
    assert "nested too deeply: 64 levels" in made.message
    assert made.verdict == {200: "unknown", 409: "refused", 500: "unknown"}[status]


def test_an_answer_whose_number_cannot_be_kept_names_the_field_and_not_the_number() -> None:
    made = classify_attempt(HttpAnswer(1.0, 200, {}, b'{"a": {"b": 1e400}}'), 1)
    assert made.message == "HTTP 200 with a body that is not a JSON object: the number a.b cannot be kept exactly"


def test_a_function_may_return_what_python_has_for_numbers_ids_and_times() -> None:
    at = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
    said, text = sayable(
        {
            "amount": Decimal("19.90"),
            "id": UUID(int=7),
            "at": at,
            "days": (at.date(),),
            "row": MappingProxyType({"a": 1}),
        },
        "it",
    )
    assert text == (
        '{"amount":19.90,"id":"00000000-0000-0000-0000-000000000007","at":"2026-01-31T12:00:00+00:00",'
        '"days":["2026-01-31"],"row":{"a":1}}'
    )
    assert said["row"] == {"a": 1}
    assert said["days"] == ["2026-01-31"]


@pytest.mark.parametrize(
    ("result", "named"),
    [
        ({"a": {1, 2}}, "a: set"),
        ({"a": [0, {"b": float("nan")}]}, "a[1].b"),
        ({"a": Decimal("Infinity")}, "a: Infinity"),
        ({"a": Decimal("1e-400")}, "a: 1E-400 is too small"),
        ({"a": b"bytes"}, "a: bytes"),
        ({"a": "\ud800"}, "a: "),
        ({"a": {(1, 2): 3}}, "a: keys"),
        ({"a": 10**5000}, "a: "),
        ({"a": json.loads(nested(70))}, "nested too deeply"),
        ([1], "must be a mapping"),
    ],
)
def test_what_json_cannot_say_is_told_with_its_field(result: Any, named: str) -> None:
    with pytest.raises(NotJson) as caught:
        sayable(result, "it")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "fits", "not_"),
    [
        ({"minimum": 0.1}, "0.10000000000000000001", "0.09999999999999999999999"),
        ({"exclusiveMaximum": 0.1}, "0.09999999999999999999999", "0.1000000000000000000001"),
        ({"multipleOf": 0.01}, "12345678901234567890.12", "12345678901234567890.123"),
        ({"multipleOf": 0.01}, "19.99", "19.995"),
        ({"type": "integer"}, "12345678901234567890123.0", "12345678901234567890123.5"),
        ({"type": "number"}, "12345678901234567890123.5", '"1"'),
    ],
)
def test_a_schema_sees_every_digit(schema: Mapping[str, Any], fits: str, not_: str) -> None:
    checked = schema_of({"properties": {"n": schema}})
    check_fields(checked, parse_object(f'{{"n":{fits}}}'))
    with pytest.raises(BadInput, match=r"^n: ") as caught:
        check_fields(checked, parse_object(f'{{"n":{not_}}}'))
    assert "Decimal" not in str(caught.value)


@given(st.dictionaries(texts, values, max_size=4))
def test_temporals_histories_keep_every_digit(value: dict[str, Any]) -> None:
    converter = pytest.importorskip("saga.temporal.payloads").Payloads()
    [payload] = converter.to_payloads([{"result": value}])
    [back] = converter.from_payloads([payload])
    assert exactly(compact(back)) == exactly(compact({"result": value}))
