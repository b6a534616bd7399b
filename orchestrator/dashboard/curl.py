"""The command that starts a saga: what a reader pastes into a shell to do the same again. Pure.

A secret is not in it. Where one belongs stands a variable of the shell, which the reader sets first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from saga.definition import SagaDefinition
from saga.payload import compact

Flags = Sequence[tuple[str, str]]

# Set to a text of ours, these would mean something else to a shell or to curl.
_TAKEN = {
    *("CDPATH", "CURL_HOME", "EGID", "ENV", "EUID", "GID", "HISTFILE", "HOME", "HOST", "IFS", "LANG", "LOGNAME"),
    *("MAIL", "OPTARG", "OPTIND", "PATH", "PPID", "PS1", "PS2", "PWD", "RANDOM", "SECONDS", "SHELL", "STATUS", "TERM"),
    *("TMPDIR", "TZ", "UID", "USER", "USERNAME"),
}


@dataclass(frozen=True)
class Curl:
    """`line` runs in sh, bash and zsh once `variables` are set; `key`: the Idempotency-Key that is in it."""

    line: str
    variables: tuple[str, ...] = ()
    key: str | None = None


@dataclass(frozen=True)
class _Variable:
    name: str


def curl(
    url: str, flags: Flags, body: Mapping[str, Any], definition: SagaDefinition | None = None, key: str | None = None
) -> Curl:
    """The command that sends `body` to `url`; what `definition` keeps secret is left to variables."""
    query = urlencode(flags, safe=":")
    secret, schema = (definition.secret, definition.input) if definition else ((), None)
    pieces = list(_written(body, schema, secret, ()))
    data = "".join(f'"${piece.name}"' if isinstance(piece, _Variable) else quote(piece) for piece in _joined(pieces))
    header = f" -H {quote(f'Idempotency-Key: {key}')}" if key else ""
    where = quote(url + (f"?{query}" if query else ""))
    variables = dict.fromkeys(piece.name for piece in pieces if isinstance(piece, _Variable))
    line = f"curl -X POST {where} -H 'content-type: application/json'{header} -d {data}"
    return Curl(line, tuple(variables), key)


def flags_of(definition: SagaDefinition) -> list[tuple[str, str]]:
    """The flags of POST /start that a saga was started with, as its snapshot has them."""
    found = [("mode", definition.mode)] if definition.mode != SagaDefinition.mode else []  # the default needs no flag
    found += [("fail", f"orchestrator:{point.lower()}") for point in definition.faults]
    for step in definition.steps:
        for url in (step.action, step.compensation or ""):
            query = parse_qsl(urlsplit(url).query)
            found += [(name, f"{step.name.lower()}:{value}") for name, value in query if name in ("fail", "delay")]
    return list(dict.fromkeys(found))


def _written(
    value: Any, schema: Any, secret: Sequence[str], path: tuple[str, ...], hidden: bool = False
) -> Iterator[str | _Variable]:
    """`value` as JSON, in pieces; `schema` tells of a secret whether it is a text."""
    schema = schema if isinstance(schema, Mapping) else {}
    if hidden:
        quotes = '"' if isinstance(value, str) and _is_text(schema) else ""
        yield from (quotes, _Variable(_name(path)), quotes)
    elif isinstance(value, Mapping):
        properties = schema.get("properties", {})
        for number, (name, part) in enumerate(value.items()):
            yield ("{" if number == 0 else ", ") + f"{compact(name)}: "
            yield from _written(part, properties.get(name), secret, (*path, name), name in secret)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield "[" if number == 0 else ", "
            yield from _written(part, schema.get("items"), secret, (*path, str(number)))
        yield "]" if value else "[]"
    else:
        yield compact(value)


def _is_text(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type", "string")
    return kind == "string" or (isinstance(kind, list) and "string" in kind)


def _name(path: Sequence[str]) -> str:
    """PAYMENT for the field `payment`, CARD_NUMBER for `number` in `card`."""
    name = re.sub("[^A-Z0-9_]", "_", "_".join(path).upper(), flags=re.ASCII)
    return f"SECRET_{name}" if name in _TAKEN or not name[:1].isalpha() else name


def _joined(pieces: Sequence[str | _Variable]) -> Iterator[str | _Variable]:
    """The pieces, with the texts between two variables joined."""
    text = ""
    for piece in pieces:
        if isinstance(piece, str):
            text += piece
            continue
        if text:
            yield text
        text = ""
        yield piece
    if text:
        yield text
