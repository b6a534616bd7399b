"""This module parses JSON bodies, checks them against a schema, compares them as values, and masks secrets in them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError, best_match
from jsonschema.validators import extend

from saga.errors import BadInput, NotJson
from saga.exact_json import JSON, Twice, decode_strictly, first, too_deep, wrong_number
from saga.exact_json import canonical as canonical  # these four are re-exported
from saga.exact_json import compact as compact
from saga.exact_json import decode as decode
from saga.exact_json import readable as readable

MASK = "***"
LEVELS_AT_MOST = 64  # levels of arrays and objects in what others send us, at most
LEVELS_ADDED = 8  # levels that we may add, in events and in the database


def parse_object(
    body: bytes | str, what: str = "the body", *, depth: int = LEVELS_AT_MOST, strict: bool = True
) -> dict[str, JSON]:
    """Return the JSON object (RFC 8259) in `body`, which may be `depth` levels deep.

    Raises BadInput, which says what is wrong with it; `what` is what the message calls it. With `strict`, an object
    that has a key twice is refused; otherwise the last value counts.
    """
    try:
        text = body if isinstance(body, str) else body.decode(json.detect_encoding(body))
        value = decode_strictly(text) if strict else decode(text)
        if text.count("[") + text.count("{") > depth and too_deep(value, depth):
            raise RecursionError
        if "\\u" in text or isinstance(body, str):
            compact(value).encode()  # fails for a lone surrogate, which no database stores as text
    except Twice as error:
        raise BadInput(f"{what} is not clear: {error}", error.key[:255]) from None
    except ValueError as error:
        if not isinstance(error, (json.JSONDecodeError, UnicodeError)) and (wrong := wrong_number(text)):
            field = field_name(wrong[0])
            raise BadInput(f"{field or what}: {wrong[1]}", field or None) from None
        raise BadInput(f"{what} is not valid JSON: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise BadInput(f"{what} is nested too deeply: {depth} levels are the most") from None
    if not isinstance(value, dict):
        raise BadInput(f"{what} must be a JSON object, not {_kind(value)}")
    return value


def pretty(value: JSON) -> str:
    """Return a JSON value as people read it: a line for each field, indented by two spaces for each level."""
    levels, lines = 0, [""]
    for part in _PARTS.findall(compact(value)):
        if part in ("]", "}"):
            levels -= 1
            lines.append("  " * levels)
        lines[-1] += ": " if part == ":" else part
        if part in ("[", "{", ","):
            levels += part != ","
            lines.append("  " * levels)
    return "\n".join(lines)


_PARTS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|\[\]|\{\}|[\[\]{},:]|[^\[\]{},:"]+')  # the parts of a compact JSON text


def stored(text: str) -> JSON:
    """Return the JSON value that we once stored as `text`. Raises ValueError where it is not JSON, or too deep."""
    try:
        value = decode(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    levels = LEVELS_AT_MOST + LEVELS_ADDED
    if text.count("[") + text.count("{") > levels and too_deep(value, levels):
        raise ValueError("it is nested too deeply")
    return value


def sayable(value: Any, what: str) -> tuple[dict[str, JSON], str]:
    """Return the object that a service's own function gave, as JSON values, and its JSON text.

    A Decimal becomes a number; a UUID, a date and a time become texts. Raises NotJson, which names the field, where
    JSON cannot hold a value; `what` is what the message calls the object.
    """
    if not isinstance(value, Mapping):
        raise NotJson(f"{what} must be a mapping, not {type(value).__name__}")
    try:
        text = compact(value)
        text.encode()
        if text.count("[") + text.count("{") > LEVELS_AT_MOST and too_deep(value, LEVELS_AT_MOST):
            raise RecursionError
    except RecursionError:
        raise NotJson(f"{what} is nested too deeply: {LEVELS_AT_MOST} levels are the most") from None
    except (TypeError, ValueError):
        raise NotJson(f"{what} is not JSON: {_unsayable(value)}") from None
    if type(value) is dict and all(type(item) in _SCALARS for item in value.values()) and all(map(_is_text, value)):
        return value, text
    return decode(text), text


_SCALARS = frozenset({str, int, float, bool, type(None)})


def _is_text(key: Any) -> bool:
    return type(key) is str


def _unsayable(value: Any) -> str:
    """Return which field of `value` JSON cannot hold, and why."""

    def problem(part: Any) -> str | None:
        try:
            if isinstance(part, Mapping):
                compact(dict.fromkeys(part)).encode()
            elif not isinstance(part, (list, tuple)):
                compact(part).encode()
        except (TypeError, ValueError) as error:
            return str(error)
        return None

    if too_deep(value, LEVELS_AT_MOST):
        return "it is nested too deeply, or holds itself"
    path, why = first(value, problem) or ((), "it holds something that is not JSON")
    return f"{field_name(path)}: {why}" if path else why


def _exact(number: Any) -> Any:
    return Decimal(repr(number)) if isinstance(number, float) else number


def _exactly(keyword: str) -> Any:
    """Return jsonschema's check for a keyword, which compares a Decimal with the digits of the schema's number."""
    plain = Draft202012Validator.VALIDATORS[keyword]

    def check(validator: Any, limit: Any, instance: Any, schema: Any) -> Any:
        return plain(validator, _exact(limit) if isinstance(instance, Decimal) else limit, instance, schema)

    return check


def _multiple_of(validator: Any, factor: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """Check multipleOf exactly: 19.99 is a multiple of 0.01, though it is not in doubles."""
    if validator.is_type(instance, "number") and Fraction(str(instance)) % Fraction(str(factor)):
        yield ValidationError(f"{instance!r} is not a multiple of {factor}")


_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"multipleOf": _multiple_of}
    | {name: _exactly(name) for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer",
        lambda checker, instance: (
            Draft202012Validator.TYPE_CHECKER.is_type(instance, "integer")
            or (isinstance(instance, Decimal) and instance.as_integer_ratio()[1] == 1)
        ),
    ),
)


def schema_of(schema: Mapping[str, Any]) -> Draft202012Validator:
    """Return the validator of a JSON Schema (2020-12) that checks Decimals by their exact value."""
    made: Draft202012Validator = _Validator(schema)
    return made


def check_fields(schema: Draft202012Validator, value: JSON, secret: Iterable[str] = ()) -> None:
    """Raise BadInput, which names the field, unless `value` fits the schema; no value of a secret field is quoted."""
    try:
        error = best_match(schema.iter_errors(value))
    except RecursionError:
        raise BadInput("the body cannot be checked: its JSON Schema refers to itself without an end") from None
    if error is None:
        return
    path = list(error.absolute_path)
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        field = field_name([*path, missing])
        raise BadInput(f"{field} is required", field)
    field, secret = field_name(path), frozenset(secret)
    texts = secret_texts(value, secret)
    message = re.sub(r"Decimal\('([^']*)'\)", r"\1", error.message)
    problem = mask(message, secret, texts | {repr(text)[1:-1] for text in texts})  # before the message is cut
    problem = problem if len(problem) < 300 else f"{problem[:297]}..."
    if any(str(part) in secret for part in path):
        problem = f"does not fit {error.validator}: {error.validator_value}"
    raise BadInput(f"{field or 'the body'}: {problem}", field or None)


def field_name(path: Iterable[str | int]) -> str:
    """Return the name of a field from its path: `steps[1].timeout` for ("steps", 1, "timeout")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def digest(value: JSON) -> str:
    """Return the SHA-256 of a value's canonical text, as 64 hex digits. It is equal for equal JSON values."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def mask(value: JSON, secret: Iterable[str], secret_values: Iterable[str] = ()) -> JSON:
    """Return `value` with every field masked that `secret` names, and every text that echoes one of `secret_values`."""
    names = frozenset(secret)
    if not names or value is None:
        return value
    texts = sorted((text for text in secret_values if text), key=len, reverse=True)
    echo = re.compile("|".join(map(re.escape, texts))) if texts else None

    def masked(part: JSON) -> JSON:
        if isinstance(part, dict):
            return {key: MASK if key in names else masked(item) for key, item in part.items()}
        if isinstance(part, list):
            return [masked(item) for item in part]
        if echo and isinstance(part, str):
            return echo.sub(MASK, part)
        return part

    return masked(value)


def secret_texts(values: JSON, secret: Iterable[str]) -> frozenset[str]:
    """Return the texts that must not be echoed: every scalar under a secret field, as it would be printed."""
    names, found = frozenset(secret), set[str]()

    def collect(part: JSON, hidden: bool) -> None:
        if isinstance(part, Mapping):
            for name, item in part.items():
                collect(item, hidden or name in names)
        elif isinstance(part, list):
            for item in part:
                collect(item, hidden)
        elif hidden and part is not None and not isinstance(part, bool):
            found.add(str(part))

    if names:
        collect(values, hidden=False)
    return frozenset(found)


def holds(value: JSON, names: Collection[str]) -> bool:
    """Return whether a field with one of these names is anywhere in `value`."""
    if isinstance(value, Mapping):
        return any(name in names or holds(item, names) for name, item in value.items())
    return isinstance(value, list) and any(holds(item, names) for item in value)


def iso(at: float | None) -> str | None:
    """Return a time, given in seconds since the epoch, as 2026-01-31T12:00:00.000Z; None for None."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _kind(value: JSON) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
