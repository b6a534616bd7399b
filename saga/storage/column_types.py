"""These column types hold the same values on SQLite and MySQL: JSON, times, ASCII tokens, floating-point numbers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import DateTime, Double, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

from saga.payload import compact, stored


@dataclass(frozen=True)
class EncodedJson:
    """A JSON value that has been encoded: it is stored as it is."""

    text: str


class Json(TypeDecorator[Any]):
    """JSON as text, whose numbers come back as they went in; a native JSON column does not promise that."""

    impl = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        """Return the JSON text of a Python value; None stands for NULL."""
        return None if value is None else value.text if isinstance(value, EncodedJson) else compact(value)

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        """Return the Python value of a text; an Undecodable where it is no JSON, so that the other rows can be read."""
        return None if value is None else _decoded(value)


@dataclass(frozen=True)
class Undecodable:
    """What a column holds that its type cannot read, and why: a value, since one row must not stop a whole fetch."""

    raw: Any
    reason: str


def decodable(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row for showing, in which a column that cannot be decoded holds the reason instead of its content."""
    return {
        str(name): {"unreadable": value.reason} if isinstance(value, Undecodable) else value
        for name, value in row.items()
    }


def _decoded(text: Any) -> Any:
    if not isinstance(text, str):
        return Undecodable(text, f"it is no text, but of the type {type(text).__name__}")
    try:
        value = stored(text)
        if _SUSPECT(text):
            compact(value).encode()
        return value
    except json.JSONDecodeError as error:
        return Undecodable(text, f"it is not valid JSON at character {error.pos}")
    except ValueError as error:
        return Undecodable(text, str(error) if "nested" in str(error) else "it is not valid JSON")


# What may be half a surrogate pair, which no answer can hold.
_SUSPECT = re.compile("\\\\u[dD][89a-fA-F]|[\ud800-\udfff]").search


_EPOCH = datetime(1970, 1, 1)


def _utc_text(value: float | None) -> str | None:
    return None if value is None else datetime.fromtimestamp(value, UTC).isoformat(" ", "microseconds")[:-6]


class UtcTime(TypeDecorator[float]):
    """A time: seconds since the epoch in Python, a UTC date and time with microseconds in the database."""

    impl = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    cache_ok = True

    def bind_processor(self, dialect: Any) -> Callable[[float | None], str | None]:
        """Return the function from seconds to the text that SQLite keeps and MySQL reads."""
        return _utc_text

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        """Return the function from a date and time, which SQLite gives as text, to seconds or an Undecodable."""
        return _seconds


def _seconds(value: Any) -> float | Undecodable | None:
    if value is None:
        return None
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return (at - _EPOCH) / timedelta(seconds=1)
    except (ValueError, TypeError):  # no text, no such date, or one with a time zone
        return Undecodable(value, "it is no date and time")


def Token(length: int) -> TypeEngine[str]:  # a type, so named as one
    """Return the type of a text of at most `length` ASCII characters that is compared byte by byte."""
    binary = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return String(length).with_variant(binary, "mysql", "mariadb")


Float = Double
