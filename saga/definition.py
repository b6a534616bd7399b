"""A saga's definition: its steps as data, loaded from YAML and checked before anything runs.

A wrong file is a DefinitionError that names the file, the line and the field.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlencode, urlsplit

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from saga.errors import DefinitionError
from saga.exact_json import DIGITS
from saga.payload import DEPTH, check_fields, compact, field_name, schema_of
from saga.urls import masked

ORCHESTRATION, CHOREOGRAPHY = "orchestration", "choreography"  # the modes
BUILTIN, TEMPORAL = "builtin", "temporal"  # the engines
NAME_PATTERN = "^[A-Za-z][A-Za-z0-9_-]{0,63}$"
NO_COMPENSATION = "none"  # in place of a compensation: there is nothing to undo
NODES_AT_MOST = 20_000  # parts of a file, each alias counted as all that it stands for
ONE_RECORD, SOME_RECORDS, NO_RECORDS, UNCHECKED = (
    "one",
    "some",
    "none",
    "skip",
)  # how many records a step leaves: what the audit expects
CALL_FIELDS = ("action", "compensation")  # the fields of a step that hold URLs

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


@dataclass(frozen=True)
class Step:
    """One step: its action, beside it the compensation that undoes it. Times are in seconds.

    Without a `compensation` its action has no effect that would have to be undone, the pivot's and those after it
    apart. `unsaid`: only of a snapshot that an older version made, whose file did not have to say so.
    `records`: how many its service has of a saga that completed, as the audit expects them.
    """

    name: str
    action: str
    compensation: str | None = None
    send: tuple[str, ...] = ()
    timeout: float = 5.0
    retries: int = 2
    backoff: float = 0.2
    pivot: bool = False
    unsaid: bool = False
    records: str = ONE_RECORD


@dataclass(frozen=True)
class SagaDefinition:
    """A saga as data. `faults` are the orchestrator's own injected crashes; a step's are in its URLs.

    `mode`: whether the orchestrator drives it, or its services tell each other; `engine`: what drives it.
    """

    name: str
    steps: tuple[Step, ...]
    input: Mapping[str, Any] | None = None
    secret: tuple[str, ...] = ()
    deadline: float | None = None
    faults: tuple[str, ...] = ()
    mode: str = ORCHESTRATION
    engine: str = BUILTIN

    @property
    def choreographed(self) -> bool:
        """Whether nobody drives it."""
        return self.mode == CHOREOGRAPHY

    @property
    def on_temporal(self) -> bool:
        """Whether a workflow drives it."""
        return self.engine == TEMPORAL

    @cached_property
    def _validator(self) -> Draft202012Validator:
        return schema_of({} if self.input is None else dict(self.input))

    def check_input(self, value: Mapping[str, Any]) -> None:
        """Raise BadInput, naming the field, unless `value` fits the definition's JSON Schema (2020-12)."""
        check_fields(self._validator, value, self.secret)

    def with_faults(
        self, queries: Mapping[tuple[str, str], Sequence[tuple[str, str]]], own: Sequence[str]
    ) -> SagaDefinition:
        """The same saga with failure flags in its steps' URLs, keyed by (step name, "action" | "compensation")."""
        if not queries and not own:
            return self
        steps = tuple(
            replace(
                step,
                action=_with_query(step.action, queries.get((step.name, "action"), ())),
                compensation=step.compensation
                and _with_query(step.compensation, queries.get((step.name, "compensation"), ())),
            )
            for step in self.steps
        )
        return replace(self, steps=steps, faults=tuple(own))

    def in_mode(self, mode: str) -> SagaDefinition:
        """The same saga, orchestrated or choreographed, which no engine drives."""
        return self if mode == self.mode else replace(self, mode=mode, engine=BUILTIN)

    def on_engine(self, engine: str) -> SagaDefinition:
        """The same saga, driven by another engine."""
        return self if engine == self.engine else replace(self, engine=engine)

    @property
    def warnings(self) -> list[str]:
        """What is perhaps a slip of the pen: a name that nothing else in the definition knows."""
        given = set((self.input or {}).get("properties", {}))
        if not given:
            return []
        sent = {name for step in self.steps for name in step.send}
        found = [
            f"secret: {name!r} is no property of the input, and no step sends it: is it a result's field, or misspelt?"
            for name in self.secret
            if name not in given | sent
        ]
        first = self.steps[0]
        return found + [
            f"steps[0].send: {name!r} is no property of the input: {first.name} will not be sent it"
            for name in first.send
            if name not in given
        ]

    @cached_property
    def snapshot(self) -> Mapping[str, Any]:
        """What the saga log keeps of it, as JSON values; `from_json` reads it back."""
        return asdict(self)

    @cached_property
    def snapshot_text(self) -> str:
        """The same as JSON text, made once for all sagas."""
        return compact(self.snapshot)

    @classmethod
    def from_json(cls, snapshot: Mapping[str, Any], driven: bool = True) -> SagaDefinition:
        """The definition whose `snapshot` it is. SnapshotError where it is none of this version's.

        A field that is not known here is a newer version's. Of the saga as a whole it is ignored. Of a step it may
        say how the step is to be called, so it is ignored only where nobody calls it any more: not `driven`.
        """
        if not isinstance(snapshot.get("steps"), list | tuple) or not snapshot["steps"]:
            raise SnapshotError("definition.steps must be a list with at least one step")
        steps = []
        for index, step in enumerate(snapshot["steps"]):
            place = f"definition.steps[{index}]"
            if not isinstance(step, dict):
                raise SnapshotError(f"{place} must be an object")
            newer = sorted(step.keys() - _OF_A_STEP.keys())
            if newer and driven:
                raise SnapshotError(f"a newer version's field in {place}: {', '.join(newer)[:100]}")
            steps.append(Step(**{**_known(step, _OF_A_STEP, place), "unsaid": _unsaid(step)}))
        return cls(**_known(snapshot, _OF_A_SAGA, "definition"), steps=tuple(steps))


def _unsaid(step: Mapping[str, Any]) -> bool:
    """Whether a step of a snapshot does not say how it is undone: it was made before files had to."""
    return bool(step.get("unsaid", step.get("compensation") is None))


class SnapshotError(ValueError):
    """A snapshot in the saga log is none of this version's; the message names the field."""


def _known(values: Mapping[str, Any], fits: Mapping[str, Callable[[Any], bool]], place: str) -> dict[str, Any]:
    """The fields that are known here, with lists as tuples; a field that is not there has its default."""
    found: dict[str, Any] = {}
    for name, fit in fits.items():
        if name in values:
            value = tuple(values[name]) if isinstance(values[name], list) else values[name]
            if not fit(value):
                raise SnapshotError(f"{place}.{name} is of no type or value that this version knows")
            found[name] = value
        elif name in ("name", "action"):
            raise SnapshotError(f"{place}.{name} is missing")
    for name in CALL_FIELDS:
        try:
            urlsplit(str(found.get(name)))
        except ValueError:
            raise SnapshotError(f"{place}.{name} is no URL") from None
    return found


def fits(kind: Any) -> Callable[[Any], bool]:
    """Whether a value is of the type that a field is annotated with, as a snapshot has it."""
    arguments, origin = get_args(kind), get_origin(kind)
    if kind is Any:
        return lambda value: True
    if origin in (Union, UnionType):
        either = [fits(each) for each in arguments]
        return lambda value: any(fit(value) for fit in either)
    if origin is tuple:
        each = fits(arguments[0])
        return lambda value: type(value) is tuple and all(map(each, value))
    if kind is float:
        return lambda value: type(value) in (float, int)
    if kind is int:
        return lambda value: type(value) is int
    return lambda value: isinstance(value, origin or kind)


_OF_A_STEP = {name: fits(kind) for name, kind in get_type_hints(Step).items()}
_OF_A_SAGA = {name: fits(kind) for name, kind in get_type_hints(SagaDefinition).items() if name != "steps"} | {
    "mode": lambda value: value in (ORCHESTRATION, CHOREOGRAPHY),
    "engine": lambda value: value in (BUILTIN, TEMPORAL),
}


def load_definitions(directory: Path, environ: Mapping[str, str]) -> dict[str, SagaDefinition]:
    """Every `*.yaml` in `directory`, by the saga's name; DefinitionError where one is wrong or none is there."""
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
    """The saga in the YAML file `path`, with `${VAR}` expanded from `environ`; `urls`: also in those of its steps."""
    try:
        return parse_definition(path.read_text(encoding="utf-8"), environ, str(path), urls)
    except (OSError, UnicodeDecodeError) as error:
        raise DefinitionError(str(path), None, "", f"cannot be read: {error}") from None


def parse_definition(text: str, environ: Mapping[str, str], file: str = "<yaml>", urls: bool = True) -> SagaDefinition:
    """The saga that the YAML `text` describes; `file` is only named in errors."""
    try:
        root = _compose(text, file)
        if root is None:
            raise DefinitionError(file, 1, "", "the file is empty")
        source = _Source(file, root, urls)
        source.refuse_duplicate_keys()
        data = yaml.safe_load(text)
        data = source.expand(data, environ)
    except ValueError as error:  # PyYAML's own, of a number or a date that is none
        raise DefinitionError(file, None, "", f"not valid YAML: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise DefinitionError(file, mark.line + 1 if mark else None, "", f"not valid YAML: {problem}") from None
    except RecursionError:
        raise DefinitionError(file, None, "", "it is nested too deeply, or an alias refers to itself") from None
    _check(source, data)
    steps = tuple(
        Step(**{**step, "send": tuple(step.get("send", ())), "compensation": _undo(step)}) for step in data["steps"]
    )
    return SagaDefinition(data["name"], steps, data.get("input"), tuple(data.get("secret", ())), data.get("deadline"))


def _check(source: _Source, data: Any) -> None:
    """Raise for the first thing that is wrong: the shape by JSON Schema, then what a schema cannot say."""
    found = Draft202012Validator(FILE_SCHEMA).iter_errors(data)
    # A misspelt field first: it is the cause of the missing one.
    errors = sorted(found, key=lambda e: (e.validator != "additionalProperties", list(map(str, e.absolute_path))))
    if errors:
        path = list(errors[0].absolute_path)
        if errors[0].validator == "additionalProperties":  # name the key itself, and its line
            path.append(next(key for key in errors[0].instance if key not in errors[0].schema["properties"]))
            known = ", ".join(errors[0].schema["properties"])
            raise source.error(path, f"there is no such field; the fields are {known}")
        raise source.error(path, errors[0].message)
    if "input" in data:
        try:
            json.dumps(data["input"], allow_nan=False)
            Draft202012Validator.check_schema(data["input"])
        except (TypeError, ValueError) as error:
            raise source.error(["input"], f"not JSON: {error}") from None
        except SchemaError as error:
            raise source.error(["input", *error.absolute_path], f"not a JSON Schema: {error.message}") from None
    names: set[str] = set()
    for index, step in enumerate(data["steps"]):
        if step["name"].lower() in names | {"orchestrator"}:
            raise source.error(["steps", index, "name"], f"the name {step['name']!r} is taken (case is not told apart)")
        names.add(step["name"].lower())
        for field in CALL_FIELDS:
            url = _undo(step) if field == "compensation" else step[field]
            if source.urls and url is not None and not _is_url(url):
                text = url if "://" in url else masked(f"://{url}")[3:]
                raise source.error(["steps", index, field], f"{text!r} is not an http:// or https:// URL")
    pivots = [index for index, step in enumerate(data["steps"]) if step.get("pivot")]
    if len(pivots) > 1:
        raise source.error(["steps", pivots[1], "pivot"], "a saga has at most one pivot")
    pivot = pivots[0] if pivots else len(data["steps"])
    for index, step in enumerate(data["steps"]):
        path = ["steps", index, "compensation"]
        if index < pivot and "compensation" not in step:
            where = "before the pivot" if pivots else "of a saga without a pivot"
            problem = f"it is missing: a step {where} says how it is undone. Give the URL of the call that undoes"
            raise source.error(
                path, f"{problem} {step['name']}, or write `compensation: {NO_COMPENSATION}` if it has no effect"
            )
        if index > pivot and _undo(step):
            problem = "a step after the pivot is never undone, since the saga only goes forward from there: remove it"
            raise source.error(path, problem)


def _undo(step: Mapping[str, Any]) -> str | None:
    """The URL of a step's compensation, in its file's words; None where it says that there is nothing to undo."""
    undo = step.get("compensation", NO_COMPENSATION)
    return None if undo == NO_COMPENSATION else undo


def _compose(text: str, file: str) -> yaml.Node | None:
    loader = _Bounded(text)
    loader.file = file
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


class _Bounded(yaml.SafeLoader):
    """Refuses, with its line, what is nested too deeply, is too much once every alias stands for what it names, or
    is a number that would be changed in silence."""

    file = ""

    def __init__(self, text: str):
        super().__init__(text)
        self._level = 0
        self._measured: dict[int, tuple[int, int]] = {}  # by a node's identity: how many nodes, how deep

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self._level += 1
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if self._level > DEPTH + 1:  # a scalar may stand in the last level
            raise self._refused(event, f"it is nested too deeply: {DEPTH} levels are the most")
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is not None and id(node) not in self._measured and not isinstance(event, yaml.AliasEvent):
            self._measured[id(node)] = self._measure(node)
        self._check(node, event)
        return node

    def _measure(self, node: yaml.Node) -> tuple[int, int]:
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
        if known[0] > NODES_AT_MOST:
            raise self._refused(event, f"it is too much, with what its aliases stand for: {NODES_AT_MOST} parts")
        if known[1] > DEPTH:
            raise self._refused(event, f"it is nested too deeply, with what its aliases stand for: {DEPTH} levels")

    def _refuse_inexact(self, node: yaml.ScalarNode) -> None:
        if node.tag == "tag:yaml.org,2002:int" and len(node.value) > DIGITS:
            raise self._refused(node, f"a number of {len(node.value)} digits is too long: {DIGITS} are the most")
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
    """The YAML node tree beside the data: knows the line of every field."""

    def __init__(self, file: str, root: yaml.Node, urls: bool):
        self.file = file
        self.root = root
        self.urls = urls

    def error(self, path: Sequence[Any], problem: str) -> DefinitionError:
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
        for path, node in _walk(self.root):
            if isinstance(node, yaml.MappingNode):
                seen: set[str] = set()
                for key, _ in node.value:
                    if key.value in seen:
                        line = key.start_mark.line + 1
                        raise DefinitionError(self.file, line, field_name([*path, key.value]), "this key is here twice")
                    seen.add(key.value)

    def expand(self, data: Any, environ: Mapping[str, str], path: tuple[Any, ...] = ()) -> Any:
        """`data` with every `${VAR}` in its strings replaced; an unset one is an error."""
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
    except ValueError:  # a port that is none
        return False


def _with_query(url: str, query: Sequence[tuple[str, str]]) -> str:
    if not query:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query, safe=':')}"
