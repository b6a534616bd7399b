"""A saga in a YAML file: read, checked, and refused with the file, the line and the field where something is wrong.

`load_definitions` reads a directory when a process starts, so that a wrong file stops the process before any saga
runs. Everything that is wrong is a DefinitionError.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from saga.definition import (
    CALL_FIELDS,
    NO_RECORDS,
    ONE_RECORD,
    SOME_RECORDS,
    UNCHECKED,
    SagaDefinition,
    Step,
)
from saga.errors import DefinitionError
from saga.exact_json import DIGITS_AT_MOST
from saga.payload import LEVELS_AT_MOST, field_name
from saga.urls import masked

NAME_PATTERN = "^[A-Za-z][A-Za-z0-9_-]{0,63}$"
NO_COMPENSATION = "none"  # what a file writes in place of a compensation's URL where there is nothing to undo
YAML_NODES_AT_MOST = 20_000  # parts of a file, each alias counted as all that it stands for

FILE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["name", "steps"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": NAME_PATTERN},
        "input": {"type": "object"},
        "secret": {"type": "array", "items": {"type": "string", "minLength": 1}, "uniqueItems": True},
        "deadline": {"type": "number", "exclusiveMinimum": 0, "maximum": 31_536_000},
        "steps": {
            "type": "array",
            "minItems": 1,
            "maxItems": 100,
            "items": {
                "type": "object",
                "required": ["name", "action"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string", "pattern": NAME_PATTERN},
                    "action": {"type": "string", "minLength": 1},
                    "compensation": {"type": "string", "minLength": 1},
                    "send": {"type": "array", "items": {"type": "string", "minLength": 1}, "uniqueItems": True},
                    "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 3600},
                    "retries": {"type": "integer", "minimum": 0, "maximum": 100},
                    "backoff": {"type": "number", "minimum": 0, "maximum": 60},
                    "pivot": {"type": "boolean"},
                    "records": {"enum": [ONE_RECORD, SOME_RECORDS, NO_RECORDS, UNCHECKED]},
                },
            },
        },
    },
}


def load_definitions(directory: Path, environ: Mapping[str, str]) -> dict[str, SagaDefinition]:
    """Return the saga of every `*.yaml` file in `directory`, by the saga's name.

    `environ` is where `${VAR}` in a file is looked up. Raises DefinitionError where a file is wrong, where two files
    define a saga of the same name, or where there is no file.
    """
    found: dict[str, SagaDefinition] = {}
    for path in sorted(directory.glob("*.yaml")):
        definition = load_definition(path, environ)
        if definition.name in found:
            raise DefinitionError(str(path), 1, "name", f"another file already defines the saga {definition.name!r}")
        found[definition.name] = definition
    if not found:
        raise DefinitionError(str(directory), None, "", "there is no *.yaml file here; SAGAS_DIR says where to look")
    return found


def load_definition(path: Path, environ: Mapping[str, str], urls: bool = True) -> SagaDefinition:
    """Return the saga in the YAML file `path`, with `${VAR}` expanded from `environ`.

    With `urls=False` the URLs of its steps stay as they are written: a service that only listens need not know where
    the others are. Raises DefinitionError where the file is wrong or cannot be read.
    """
    try:
        return parse_definition(path.read_text(encoding="utf-8"), environ, str(path), urls)
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(str(path), None, "", f"cannot be read: {error}") from None


def parse_definition(text: str, environ: Mapping[str, str], file: str = "<yaml>", urls: bool = True) -> SagaDefinition:
    """Return the saga that the YAML `text` describes; `file` is only named in errors. Raises DefinitionError."""
    try:
        root = _compose(text, file)
        if root is None:
            raise DefinitionError(file, 1, "", "the file is empty")
        source = _Source(file, root, urls)
        source.refuse_duplicate_keys()
        data = yaml.safe_load(text)
        data = source.expand(data, environ)
    except ValueError as error:  # PyYAML raises it for a number or a date that does not exist
        raise DefinitionError(file, None, "", f"not valid YAML: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise DefinitionError(file, mark.line + 1 if mark else None, "", f"not valid YAML: {problem}") from None
    except RecursionError:
        raise DefinitionError(file, None, "", "it is nested too deeply, or an alias refers to itself") from None
    _check(source, data)
    steps = tuple(
        Step(**{**step, "send": tuple(step.get("send", ())), "compensation": _compensation_url(step)})
        for step in data["steps"]
    )
    return SagaDefinition(data["name"], steps, data.get("input"), tuple(data.get("secret", ())), data.get("deadline"))


def _check(source: _Source, data: Any) -> None:
    """Raise DefinitionError for the first thing that is wrong: the shape first, then what a schema cannot say."""
    _check_shape(source, data)
    if "input" in data:
        _check_input_schema(source, data["input"])
    _check_steps(source, data["steps"])
    _check_compensations(source, data["steps"])


def _check_shape(source: _Source, data: Any) -> None:
    found = Draft202012Validator(FILE_SCHEMA).iter_errors(data)
    # A misspelt field comes first, since it is the cause of the one that is missing.
    errors = sorted(found, key=lambda e: (e.validator != "additionalProperties", list(map(str, e.absolute_path))))
    if errors:
        path = list(errors[0].absolute_path)
        if errors[0].validator == "additionalProperties":  # name the key itself, and its line
            path.append(next(key for key in errors[0].instance if key not in errors[0].schema["properties"]))
            known = ", ".join(errors[0].schema["properties"])
            raise source.error(path, f"there is no such field; the fields are {known}")
        raise source.error(path, errors[0].message)


def _check_input_schema(source: _Source, schema: Any) -> None:
    try:
        json.dumps(schema, allow_nan=False)
        Draft202012Validator.check_schema(schema)
    except (TypeError, ValueError) as error:
        raise source.error(["input"], f"not JSON: {error}") from None
    except SchemaError as error:
        raise source.error(["input", *error.absolute_path], f"not a JSON Schema: {error.message}") from None


def _check_steps(source: _Source, steps: Sequence[Mapping[str, Any]]) -> None:
    """Every step has a name of its own and calls HTTP URLs."""
    names: set[str] = set()
    for index, step in enumerate(steps):
        if step["name"].lower() in names | {"orchestrator"}:
            raise source.error(["steps", index, "name"], f"the name {step['name']!r} is taken (case is not told apart)")
        names.add(step["name"].lower())
        for field in CALL_FIELDS:
            url = _compensation_url(step) if field == "compensation" else step[field]
            if source.urls and url is not None and not _is_url(url):
                text = url if "://" in url else masked(f"://{url}")[3:]
                raise source.error(["steps", index, field], f"{text!r} is not an http:// or https:// URL")


def _check_compensations(source: _Source, steps: Sequence[Mapping[str, Any]]) -> None:
    """Every step before the pivot, or of a saga without one, says how it is undone; after the pivot no step does."""
    pivots = [index for index, step in enumerate(steps) if step.get("pivot")]
    if len(pivots) > 1:
        raise source.error(["steps", pivots[1], "pivot"], "a saga has at most one pivot")
    pivot = pivots[0] if pivots else len(steps)
    for index, step in enumerate(steps):
        path = ["steps", index, "compensation"]
        if index < pivot and "compensation" not in step:
            where = "before the pivot" if pivots else "of a saga without a pivot"
            problem = f"it is missing: a step {where} says how it is undone. Give the URL of the call that undoes"
            raise source.error(
                path, f"{problem} {step['name']}, or write `compensation: {NO_COMPENSATION}` if it has no effect"
            )
        if index > pivot and _compensation_url(step):
            problem = "a step after the pivot is never undone, since the saga only goes forward from there: remove it"
            raise source.error(path, problem)


def _compensation_url(step: Mapping[str, Any]) -> str | None:
    """Return the URL of a step's compensation; None where the step has none or says that there is nothing to undo."""
    url = step.get("compensation", NO_COMPENSATION)
    return None if url == NO_COMPENSATION else url


def _compose(text: str, file: str) -> yaml.Node | None:
    loader = _StrictLoader(text)
    loader.file = file
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _StrictLoader(yaml.SafeLoader):
    """Composes YAML nodes, and refuses three things that PyYAML would take, each with its line.

    They are: what is nested too deeply, what is too large once every alias stands for what it names, and a number
    that would silently become another one.
    """

    file = ""

    def __init__(self, text: str):
        super().__init__(text)
        self._level = 0
        self._measured: dict[int, tuple[int, int]] = {}  # by a node's identity: (how many nodes, how many levels)

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._level += 1
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if self._level > LEVELS_AT_MOST + 1:  # a scalar may stand in the last level
            raise self._refused(event, f"it is nested too deeply: {LEVELS_AT_MOST} levels are the most")
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is not None and id(node) not in self._measured and not isinstance(event, yaml.AliasEvent):
            self._measured[id(node)] = self._measure(node)
        self._check(node, event)
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
        """Return how many nodes are in a node and how many levels, from the sizes of its children."""
        if isinstance(node, yaml.ScalarNode):
            self._refuse_inexact(node)
            return 1, 0
        children = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else node.value
        sizes = [self._measured[id(each)] for each in children]
        return 1 + sum(size for size, _ in sizes), 1 + max((depth for _, depth in sizes), default=0)

    def _check(self, node: yaml.Node | None, event: yaml.Event) -> None:
        known = self._measured.get(id(node))
        if known is None:
            raise self._refused(event, "an alias refers to what it stands in")
        if known[0] > YAML_NODES_AT_MOST:
            raise self._refused(event, f"it is too much, with what its aliases stand for: {YAML_NODES_AT_MOST} parts")
        if known[1] > LEVELS_AT_MOST:
            raise self._refused(
                event, f"it is nested too deeply, with what its aliases stand for: {LEVELS_AT_MOST} levels"
            )

    def _refuse_inexact(self, node: yaml.ScalarNode) -> None:
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > DIGITS_AT_MOST:
            raise self._refused(
                node, f"a number of {len(node.value)} digits is too long: {DIGITS_AT_MOST} are the most"
            )
        if node.tag != "tag:yaml.org,2002:float":
            return
        text = node.value.replace("_", "").lower()
        if text.lstrip("+-") in (".inf", ".nan"):
            raise self._refused(node, f"{node.value} is no number here")
        with suppress(ValueError):  # YAML 1.1 also knows numbers to the base of 60
            if not math.isfinite(value := float(text)) or Decimal(repr(value)) != Decimal(text):
                raise self._refused(node, f"the number {node.value[:60]} is not one that a double holds")

    def _refused(self, part: Any, problem: str) -> DefinitionError:
        return DefinitionError(self.file, part.start_mark.line + 1, "", problem)


class _Source:
    """The tree of YAML nodes beside the data. It knows the line of every field."""

    def __init__(self, file: str, root: yaml.Node, urls: bool):
        self.file = file
        self.root = root
        self.urls = urls

    def error(self, path: Sequence[Any], problem: str) -> DefinitionError:
        """Return an error that names the file, the line of the field at `path`, and the field."""
        return DefinitionError(self.file, self._line(path), field_name(path), masked(problem))

    def _line(self, path: Sequence[Any]) -> int:
        node, line = self.root, self.root.start_mark.line
        for part in path:
            if isinstance(node, yaml.MappingNode):
                match = next(((key, value) for key, value in node.value if key.value == str(part)), None)
                if match is None:
                    break
                line, node = match[0].start_mark.line, match[1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
                node = node.value[part]
                line = node.start_mark.line
        return int(line) + 1

    def refuse_duplicate_keys(self) -> None:
        """Raise DefinitionError for a key that a mapping has twice; PyYAML would take the last one."""
        for path, node in _walk(self.root):
            if isinstance(node, yaml.MappingNode):
                seen: set[str] = set()
                for key, _ in node.value:
                    if key.value in seen:
                        line = key.start_mark.line + 1
                        raise DefinitionError(self.file, line, field_name([*path, key.value]), "this key is here twice")
                    seen.add(key.value)

    def expand(self, data: Any, environ: Mapping[str, str], path: tuple[Any, ...] = ()) -> Any:
        """Return `data` with every `${VAR}` in its strings replaced. Raises DefinitionError for an unset variable."""
        if isinstance(data, dict):
            return {key: self.expand(value, environ, (*path, key)) for key, value in data.items()}
        if isinstance(data, list):
            return [self.expand(value, environ, (*path, index)) for index, value in enumerate(data)]
        if not isinstance(data, str) or (not self.urls and path[:1] == ("steps",) and path[-1] in CALL_FIELDS):
            return data

        def value_of(match: re.Match[str]) -> str:
            if match[1] not in environ:
                raise self.error(path, f"the environment variable {match[1]} is not set")
            return environ[match[1]]

        return re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", value_of, data)


def _walk(node: yaml.Node, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], yaml.Node]]:
    yield path, node
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _walk(value, (*path, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _walk(value, (*path, index))


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and not url.fragment and url.port != 0
    except ValueError:  # the port is not a number
        return False
