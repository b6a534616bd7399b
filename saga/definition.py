"""A `SagaDefinition` is a saga as data: its steps in order, and what every part of the stack asks of them.

A definition comes from a YAML file (`saga.definition_file`) or from a snapshot in the saga log. It does nothing by
itself: the state machine asks it for the next step, and the driver calls that step's URL.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlencode, urlsplit

from jsonschema import Draft202012Validator

from saga.payload import check_fields, compact, schema_of
from saga.retry import ATTEMPT_SECONDS, BACKOFF_SECONDS, RETRIES

# The core only carries these names along. The part that runs sagas in a mode, or on an engine, knows what they mean.
ORCHESTRATION, CHOREOGRAPHY = "orchestration", "choreography"  # the modes
MODES = (ORCHESTRATION, CHOREOGRAPHY)
BUILTIN, TEMPORAL = "builtin", "temporal"  # the engines

# How many business records a step leaves of a saga that completed: what the audit expects to find.
ONE_RECORD, SOME_RECORDS, NO_RECORDS, UNCHECKED = "one", "some", "none", "skip"

CALL_FIELDS = ("action", "compensation")  # the fields of a step that hold URLs


@dataclass(frozen=True)
class Step:
    """One step of a saga: the URL of its action and, beside it, the URL of the compensation that undoes it.

    `send` names the fields of the input and of earlier steps' results that both calls get. Times are in seconds.
    A step without a `compensation` either has no effect that would have to be undone, or is the pivot, or comes after
    the pivot. `unsaid` is only true in snapshots of older versions, whose files did not have to say how a step is
    undone: then nobody knows whether there is something to undo.
    """

    name: str
    action: str
    compensation: str | None = None
    send: tuple[str, ...] = ()
    timeout: float = ATTEMPT_SECONDS
    retries: int = RETRIES
    backoff: float = BACKOFF_SECONDS
    pivot: bool = False
    unsaid: bool = False
    records: str = ONE_RECORD


@dataclass(frozen=True)
class SagaDefinition:
    """A whole saga as data.

    `input` is the JSON Schema of the body that starts it, and `secret` names the fields that nobody is shown.
    `deadline` is in seconds after the start; when it has passed, the saga turns back. `faults` names the injected
    crashes of the orchestrator itself; those of a participant are in the URLs of its step. `mode` says whether an
    orchestrator drives the saga or its services react to each other's events, and `engine` says what drives it.
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
    def coordinator(self) -> str:
        """The name of what coordinates the saga: the engine that drives it, or choreography, where nobody does."""
        return CHOREOGRAPHY if self.mode == CHOREOGRAPHY else self.engine

    @property
    def choreographed(self) -> bool:
        """Whether its services react to each other's events, so that no orchestrator drives it."""
        return self.mode == CHOREOGRAPHY

    @cached_property
    def _validator(self) -> Draft202012Validator:
        return schema_of({} if self.input is None else dict(self.input))

    def check_input(self, value: Mapping[str, Any]) -> None:
        """Raise BadInput, which names the field, unless `value` fits the definition's JSON Schema (2020-12)."""
        check_fields(self._validator, value, self.secret)

    def with_faults(
        self, queries: Mapping[tuple[str, str], Sequence[tuple[str, str]]], own: Sequence[str]
    ) -> SagaDefinition:
        """Return the same saga with failures injected.

        `queries` holds the flags that are added to the URLs, by (step name, "action" | "compensation"); `own` names
        the crashes of the orchestrator.
        """
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
        """Return the same saga in another mode, which also puts it back on the built-in engine."""
        return self if mode == self.mode else replace(self, mode=mode, engine=BUILTIN)

    def on_engine(self, engine: str) -> SagaDefinition:
        """Return the same saga, to be driven by another engine."""
        return self if engine == self.engine else replace(self, engine=engine)

    @property
    def warnings(self) -> list[str]:
        """What may be a misspelling: each name that nothing else in the definition knows, in a sentence."""
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
        """The definition as JSON values, as the saga log keeps it beside every saga; `from_json` reads it back."""
        return asdict(self)

    @cached_property
    def snapshot_text(self) -> str:
        """The snapshot as JSON text. It is made once and then shared by all sagas of this definition."""
        return compact(self.snapshot)

    @classmethod
    def from_json(cls, snapshot: Mapping[str, Any], driven: bool = True) -> SagaDefinition:
        """Return the definition that a snapshot holds. Raises SnapshotError where this version cannot read it.

        A field that this version does not know was written by a newer one. At the top level it is ignored. In a step
        it may say how the step must be called, so it is ignored only in a saga that nobody drives any more
        (`driven=False`).
        """
        if not isinstance(snapshot.get("steps"), list | tuple) or not snapshot["steps"]:
            raise SnapshotError("definition.steps must be a list with at least one step")
        steps = []
        for index, step in enumerate(snapshot["steps"]):
            place = f"definition.steps[{index}]"
            if not isinstance(step, dict):
                raise SnapshotError(f"{place} must be an object")
            newer = sorted(step.keys() - _STEP_TYPES.keys())
            if newer and driven:
                raise SnapshotError(f"a newer version's field in {place}: {', '.join(newer)[:100]}")
            # A file had to say how a step is undone from a certain version on; older snapshots are silent about it.
            unsaid = bool(step.get("unsaid", step.get("compensation") is None))
            steps.append(Step(**{**_known_fields(step, _STEP_TYPES, place), "unsaid": unsaid}))
        return cls(**_known_fields(snapshot, _SAGA_TYPES, "definition"), steps=tuple(steps))


class SnapshotError(ValueError):
    """A snapshot in the saga log cannot be read by this version; the message names the field."""


def _known_fields(values: Mapping[str, Any], types: Mapping[str, Callable[[Any], bool]], place: str) -> dict[str, Any]:
    """Return those fields that this version knows, with lists as tuples. A missing field gets its default."""
    found: dict[str, Any] = {}
    for name, has_its_type in types.items():
        if name in values:
            value = tuple(values[name]) if isinstance(values[name], list) else values[name]
            if not has_its_type(value):
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


def type_check(annotation: Any) -> Callable[[Any], bool]:
    """Return a function that says whether a value, read from JSON, has the type of a field's annotation."""
    arguments, origin = get_args(annotation), get_origin(annotation)
    if annotation is Any:
        return lambda value: True
    if origin in (Union, UnionType):
        alternatives = [type_check(each) for each in arguments]
        return lambda value: any(check(value) for check in alternatives)
    if origin is tuple:
        item_check = type_check(arguments[0])
        return lambda value: type(value) is tuple and all(map(item_check, value))
    if annotation is float:
        return lambda value: type(value) in (float, int)
    if annotation is int:
        return lambda value: type(value) is int  # a bool is an int to isinstance
    return lambda value: isinstance(value, origin or annotation)


_STEP_TYPES = {name: type_check(annotation) for name, annotation in get_type_hints(Step).items()}
_SAGA_TYPES = {
    name: type_check(annotation) for name, annotation in get_type_hints(SagaDefinition).items() if name != "steps"
} | {
    "mode": lambda value: value in MODES,
    "engine": lambda value: value in (BUILTIN, TEMPORAL),
}


def _with_query(url: str, query: Sequence[tuple[str, str]]) -> str:
    if not query:
        return url
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query, safe=':')}"
