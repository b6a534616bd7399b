"""This module reads a saga from a YAML file, and refuses a wrong one with the file, the line and the field.

`load_definitions` reads a directory when a process starts, so that a wrong file stops the process before any saga
runs. Everything that is wrong is a DefinitionError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from saga.urls import masked
from saga.yaml_source import YamlSource, compose

NAME_PATTERN = "^[A-Za-z][A-Za-z0-9_-]{0,63}$"
NO_COMPENSATION = "none"  # what a file writes in place of a compensation's URL where there is nothing to undo

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
        root = compose(text, file)
        if root is None:
            raise DefinitionError(file, 1, "", "the file is empty")
        source = YamlSource(file, root, urls)
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


def _check(source: YamlSource, data: Any) -> None:
    """Raise DefinitionError for the first thing that is wrong: the shape first, then what a schema cannot say."""
    _check_shape(source, data)
    if "input" in data:
        _check_input_schema(source, data["input"])
    _check_steps(source, data["steps"])
    _check_compensations(source, data["steps"])


def _check_shape(source: YamlSource, data: Any) -> None:
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


def _check_input_schema(source: YamlSource, schema: Any) -> None:
    try:
        json.dumps(schema, allow_nan=False)
        Draft202012Validator.check_schema(schema)
    except (TypeError, ValueError) as error:
        raise source.error(["input"], f"not JSON: {error}") from None
    except SchemaError as error:
        raise source.error(["input", *error.absolute_path], f"not a JSON Schema: {error.message}") from None


def _check_steps(source: YamlSource, steps: Sequence[Mapping[str, Any]]) -> None:
    """Raise DefinitionError unless every step has a name of its own and calls HTTP URLs."""
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


def _check_compensations(source: YamlSource, steps: Sequence[Mapping[str, Any]]) -> None:
    """Raise DefinitionError unless exactly those steps say how they are undone that have to.

    They are the steps before the pivot, or all steps where there is no pivot.
    """
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


def _is_url(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in ("http", "https") and bool(url.hostname) and not url.fragment and url.port != 0
    except ValueError:  # the port is not a number
        return False
