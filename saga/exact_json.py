"""Turns JSON text into Python values and back, digit for digit (RFC 8259).

A number whose value a double would change becomes a Decimal, and stays one wherever it goes. Any other number is an
int or a float.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any, NoReturn
from uuid import UUID

Path = Sequence[str | int]
JSON = Any  # None, bool, int, float, Decimal, str, list, dict

DIGITS_AT_MOST = 4300  # characters that a number may have at most; also Python's own limit for an int

_ZERO = re.compile(r"-?[0.]+(?:[eE].*)?")


class Twice(ValueError):
    """An object has the key `key` twice, which `decode_strictly` refuses."""

    def __init__(self, key: str):
        super().__init__(f"the key {_short(key)!r} is here twice")
        self.key = key


def number(text: str) -> float | Decimal:
    """Return the value of the JSON number `text`, which has a fraction or an exponent.

    It is a Decimal where a double would change the value, otherwise a float. Raises ValueError where the text has more
    than DIGITS_AT_MOST characters, or the value is out of a double's range.
    """
    value = float(text)
    if repr(value) == text:
        return value
    if len(text) > DIGITS_AT_MOST:
        raise ValueError(f"a number of {len(text)} characters is too long: {DIGITS_AT_MOST} are the most")
    if math.isinf(value):
        raise ValueError(f"{_short(text)} is too large a number")
    if value == 0:
        if _ZERO.fullmatch(text):
            return value
        raise ValueError(f"{_short(text)} is too small a number")
    exact = Decimal(text)
    return value if exact == Decimal(repr(value)) else exact


def _not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _unique(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        raise Twice(next(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return made


class Decoder(json.JSONDecoder):
    """Decodes JSON text with exact numbers. Of a key that an object has twice, the last value counts.

    `decode` raises ValueError for what is not JSON, and RecursionError for what is nested too deeply for Python.
    """

    def __init__(self, **options: Any):
        super().__init__(**{"parse_constant": _not_json, "parse_float": number, **options})


decode: Callable[[str], JSON] = Decoder().decode
decode_strictly: Callable[[str], JSON] = Decoder(object_pairs_hook=_unique).decode  # raises Twice


class _Wrong:
    def __init__(self, problem: str):
        self.problem = problem


def _fraction_or_wrong(text: str) -> Any:
    try:
        return number(text)
    except ValueError as error:
        return _Wrong(str(error))


def _whole_or_wrong(text: str) -> Any:
    return (
        0
        if len(text) <= DIGITS_AT_MOST
        else _Wrong(f"a number of {len(text)} digits is too long: {DIGITS_AT_MOST} are the most")
    )


def wrong_number(text: str) -> tuple[Path, str] | None:
    """Return the path of the first number in the JSON `text` that cannot be kept, and what is wrong with it."""
    try:
        value = Decoder(parse_float=_fraction_or_wrong, parse_int=_whole_or_wrong).decode(text)
    except (ValueError, RecursionError):
        return None
    found = first(value, lambda part: part.problem if isinstance(part, _Wrong) else None)
    return found and (found[0], found[1])


def first(value: JSON, problem: Callable[[Any], str | None]) -> tuple[Path, str] | None:
    """Return the path of the first part of `value`, in the order of the text, that has a problem; and the problem.

    It works without recursion, so that no value is nested too deeply for it.
    """
    left: list[tuple[Any, Any, Any]] = [(None, None, value)]  # (its parent's entry, its key there, itself)
    while left:
        entry = left.pop()
        part = entry[2]
        if (found := problem(part)) is not None:
            path: list[str | int] = []
            while entry[0] is not None:
                path.append(entry[1])
                entry = entry[0]
            return path[::-1], found
        if isinstance(part, Mapping):
            left += [(entry, key, item) for key, item in reversed(list(part.items()))]
        elif isinstance(part, (list, tuple)):
            left += [(entry, index, part[index]) for index in range(len(part) - 1, -1, -1)]
    return None


class _Odd(Exception):
    """Raised where a value holds something that Python's own encoder does not know."""


def _odd(value: Any) -> NoReturn:
    raise _Odd


def writer(known: Callable[[Any], Any], sort_keys: bool = False, spaced: bool = False) -> Callable[[Any], str]:
    """Return a function from a value to its JSON text, in which a Decimal is written digit for digit.

    `known(value)` turns a value that JSON does not know into one that it does, or raises TypeError. The function that
    is returned raises this TypeError, ValueError for a number that JSON does not have, and RecursionError.
    """
    comma, colon = separators = (", ", ": ") if spaced else (",", ":")
    quick = json.JSONEncoder(
        ensure_ascii=False, separators=separators, allow_nan=False, sort_keys=sort_keys, default=_odd
    ).encode

    def written(value: Any) -> str:
        if isinstance(value, Decimal):
            return _digits(value)
        if isinstance(value, dict):
            pairs = [(_key(name), item) for name, item in value.items()]
            if sort_keys:
                pairs.sort(key=lambda pair: pair[0])
            return "{" + comma.join(f"{encode_basestring(name)}{colon}{written(item)}" for name, item in pairs) + "}"
        if isinstance(value, (list, tuple)):
            return "[" + comma.join(map(written, value)) + "]"
        try:
            return quick(value)
        except _Odd:
            return written(known(value))

    def text(value: Any) -> str:
        try:
            return quick(value)
        except _Odd:
            return written(value)

    def _key(name: Any) -> str:
        return name if isinstance(name, str) else next(iter(json.loads(quick({name: 0}))))

    return text


def _digits(value: Decimal) -> str:
    if not value.is_finite():
        raise ValueError(f"{value} is not JSON")
    text = str(value)
    number(text)
    return text


def _as_json(value: Any) -> Any:
    """Return what stands for a value in JSON: an id as text, a date or a time in ISO 8601."""
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, (date, time)):  # a datetime is a date, too
        return value.isoformat()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


compact = writer(_as_json)  # without any spaces
readable = writer(_as_json, spaced=True)  # on one line, with spaces after commas and colons
_sorted = writer(_as_json, sort_keys=True)


def canonical(value: JSON) -> str:
    """Return a text that is the same for equal JSON values: keys sorted, no spaces, 1.0 as 1 (compare RFC 8785)."""
    return _sorted(_plain_numbers(value))


def _plain_numbers(value: JSON) -> JSON:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return {key: _plain_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain_numbers(item) for item in value]
    if isinstance(value, Decimal):
        value = _plain_decimal(value)
    if isinstance(value, float) and value.is_integer():
        return int(value) if abs(value) < 2**53 else int(Decimal(repr(value)))
    return value


def _plain_decimal(value: Decimal) -> int | float | Decimal:
    near = float(value)
    if math.isfinite(near) and Decimal(repr(near)) == value:
        return near
    digits, exponent = value.as_tuple().digits, value.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > DIGITS_AT_MOST or len(digits) > DIGITS_AT_MOST:
        return value  # it does not come from a JSON text
    numerator, denominator = value.as_integer_ratio()
    if denominator == 1:
        return numerator
    while digits[-1] == 0:
        digits, exponent = digits[:-1], exponent + 1
    return Decimal((value.as_tuple().sign, digits, exponent))


def too_deep(value: JSON, most: int) -> bool:
    """Return whether arrays and objects are nested more than `most` levels deep, in linear time, without recursion."""
    level = [value] if isinstance(value, (dict, list, tuple)) else []
    for _ in range(most):
        if not level:
            return False
        level = [
            item
            for part in level
            for item in (part.values() if isinstance(part, dict) else part)
            if isinstance(item, (dict, list, tuple))
        ]
    return bool(level)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
