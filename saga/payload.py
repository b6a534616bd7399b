"""JSON bodies: parsed strictly, checked, compared as values, masked before they are shown."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from saga.errors import BadInput

MASK = "***"

JSON = Any  # what json.loads returns


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(number: str) -> float:
    if math.isinf(value := float(number)):
        raise ValueError(f"{number} is too large a number")
    return value


_decode = json.JSONDecoder(parse_constant=_not_json, parse_float=_finite).decode
compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode  # a JSON value's text
_sorted = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode


def parse_object(body: bytes | str, what: str = "the body") -> dict[str, JSON]:
    """The JSON object (RFC 8259) in `body`; BadInput says what else it is."""
    try:
        text = body if isinstance(body, str) else body.decode(json.detect_encoding(body))
        value = _decode(text)
        if "\\u" in text or isinstance(body, str):
            compact(value).encode()  # a lone surrogate is no text
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{what} is not valid JSON: {_first_line(error)}") from None
    if not isinstance(value, dict):
        raise BadInput(f"{what} must be a JSON object, not {_kind(value)}")
    return value


def check_fields(schema: Draft202012Validator, value: JSON, secret: Iterable[str] = ()) -> None:
    """Raise BadInput, naming the field, unless `value` fits; a secret value is not quoted."""
    error = best_match(schema.iter_errors(value))
    if error is None:
        return
    path = list(error.absolute_path)
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        field = field_name([*path, missing])
        raise BadInput(f"{field} is required", field)
    field, secret = field_name(path), frozenset(secret)
    texts = secret_texts(value, secret)
    problem = mask(error.message, secret, texts | {repr(text)[1:-1] for text in texts})  # before it is cut
    problem = problem if len(problem) < 300 else f"{problem[:297]}..."
    if any(str(part) in secret for part in path):
        problem = f"does not fit {error.validator}: {error.validator_value}"
    raise BadInput(f"{field or 'the body'}: {problem}", field or None)


def field_name(path: Iterable[str | int]) -> str:
    """`steps[1].timeout` for the path ("steps", 1, "timeout")."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def canonical(value: JSON) -> str:
    """One text for equal JSON values: sorted keys, no spaces, 1.0 written as 1 (in the spirit of RFC 8785)."""
    return _sorted(_plain_numbers(value))


def digest(value: JSON) -> str:
    """SHA-256 of the canonical text, as 64 hex digits: equal for equal JSON values."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def mask(value: JSON, secret: Iterable[str], secret_values: Iterable[str] = ()) -> JSON:
    """`value` with every field named in `secret` masked, and every text that echoes a secret value."""
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
    """The texts that must not be echoed: every scalar under a secret field, as it would be printed."""
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
    """Whether a field of this name is somewhere in it."""
    if isinstance(value, Mapping):
        return any(name in names or holds(item, names) for name, item in value.items())
    return isinstance(value, list) and any(holds(item, names) for item in value)


def iso(at: float | None) -> str | None:
    """`at`, in seconds since the epoch, as 2026-01-31T12:00:00.000Z."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain_numbers(value: JSON) -> JSON:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _kind(value: JSON) -> str:
    names = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else "it is nested too deeply"
