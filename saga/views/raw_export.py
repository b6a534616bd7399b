"""`raw_export` shows an operator a saga's row, results and lines as the database has them, whatever they hold. Pure.

Secrets are not shown. Where it is known which fields are secret, a payload column is shown with these fields masked;
where it is not known, the whole column is withheld.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from saga.payload import compact, mask, secret_texts

PAYLOADS = ("input", "context", "result", "error", "detail")  # columns that may hold personal data
NOT_KNOWN = "withheld: which fields are secret cannot be read"
NOT_JSON = "withheld: it is not valid JSON, so what is secret in it cannot be masked"


def raw_export(
    row: Mapping[str, Any], results: Sequence[Mapping[str, Any]], lines: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return {"saga_id", "row", "results", "lines"}; a row is {column: its value as text, a number or null}."""
    secret = _secret(row["definition"])
    texts = _texts([row["input"], *(result["result"] for result in results)], secret) if secret else frozenset()
    return {
        "saga_id": row["id"],
        "row": {name: _shown(name, value, secret, texts) for name, value in row.items()},
        "results": [{name: _shown(name, value, secret, texts) for name, value in each.items()} for each in results],
        "lines": [{name: _shown(name, value, secret, texts) for name, value in line.items()} for line in lines],
    }


def _secret(definition: Any) -> list[str] | None:
    """Return the field names that the definition's `secret` lists; None where they cannot be read."""
    snapshot = _parsed(definition)
    names = snapshot.get("secret") if isinstance(snapshot, dict) else None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _texts(payloads: Sequence[Any], secret: Sequence[str]) -> frozenset[str] | None:
    """Return the secret values, which messages may echo; None where not all payloads can be read."""
    found: set[str] = set()
    for text in payloads:
        payload = _parsed(text)
        if payload is None:
            return None
        found |= secret_texts(payload, secret)
    return frozenset(found)


def _shown(name: str, value: Any, secret: Sequence[str] | None, texts: frozenset[str] | None) -> Any:
    """Return a column's value as it may be shown, or the reason why it is withheld."""
    if name not in PAYLOADS or value is None or secret == []:
        return _plain(value)
    if secret is None:
        return NOT_KNOWN
    payload = _parsed(value)
    if payload is None or (texts is None and name in ("context", "error", "detail")):
        return NOT_JSON
    try:
        return _plain(compact(mask(payload, secret, texts or ())))
    except (RecursionError, ValueError):
        return NOT_JSON


def _parsed(text: Any) -> Any:
    """Return the JSON value that a column holds; None where it holds none."""
    try:
        return json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    """Return a column's value as JSON can say it."""
    if isinstance(value, datetime):
        return value.isoformat(" ", "microseconds")
    if isinstance(value, bytes | bytearray):
        return f"bytes: {bytes(value).hex()}"
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()  # a lone surrogate cannot be encoded
    return value if isinstance(value, int | float | None) else str(value)
