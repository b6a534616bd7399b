"""The form of the page "Break it": what its fields say is to be started, and what they hold at first. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from werkzeug.datastructures import MultiDict

from orchestrator.definition_to_start import definition_to_start
from orchestrator.parts import Orchestrator
from orchestrator.probe import sample
from saga.definition import SagaDefinition
from saga.errors import BadInput
from saga.faults.flags import FaultKind
from saga.payload import parse_object

INPUT = {"username": "ada", "address": "1 Main St", "payment": "4111-1111"}  # of the scenarios
MEANINGS = {
    FaultKind.BEFORE: "500 before its transaction",
    FaultKind.AFTER: "commits, then 500",
    FaultKind.REFUSE: "409, nothing done",
    FaultKind.LOST: "commits, and the answer is lost",
    FaultKind.LATE: "acts only after the time-out",
    FaultKind.GARBAGE: "commits, then answers no JSON",
    FaultKind.CRASH: "the process exits before its commit",
    FaultKind.CRASH_AFTER: "the process exits after its commit",
    FaultKind.UNDO: "its compensation answers 500",
}

_HERE = "the field"  # a JSON object's key, under which a form's field is read

Form = MultiDict[str, str]
Flags = list[tuple[str, str]]


def started_by(
    orchestrator: Orchestrator, form: Form, mode: str | None = None
) -> tuple[SagaDefinition, Mapping[str, Any]]:
    """The saga that a form starts, with its faults, and its input; in `mode` where that is given, else in the form's.

    Raises BadInput that names the field that is wrong, and Forbidden where failures are injected but FAULTS is off.
    """
    saga = form.get("saga")
    plain = orchestrator.definition(saga)
    flags, body = flags_in(form, plain), body_in(form, plain)
    fail, delay = ([value for name, value in flags if name == flag] for flag in ("fail", "delay"))
    return definition_to_start(orchestrator, saga, mode or form.get("mode"), fail, delay), body


def sample_input(definition: SagaDefinition) -> dict[str, Any]:
    """An input that the saga takes: a value for each field that it requires, as far as the schema tells one."""
    required = (definition.input or {}).get("required", [])
    return {name: INPUT.get(name) or sample(definition, name) for name in required}


def prefilled(definition: SagaDefinition) -> dict[str, Any]:
    """The input with which the form is first shown: known fields, and every field that the saga requires."""
    shown = {name: INPUT[name] for name in (definition.input or {}).get("properties", {}) if name in INPUT}
    return shown | sample_input(definition)


def flags_in(form: Form, definition: SagaDefinition) -> Flags:
    """The flags of POST /start in a form: as they are, or as the form's fields for each step."""
    flags = [(name, value) for name in ("fail", "delay") for value in form.getlist(name) if value]
    for step in definition.steps:
        name = step.name.lower()
        kind, times = form.get(f"kind-{step.name}", ""), form.get(f"times-{step.name}", "").strip()
        delay = form.get(f"delay-{step.name}", "").strip()
        if kind:
            flags.append(("fail", f"{name}:{kind}" + (f":{times}" if times else "")))
        if delay and delay != "0":
            flags.append(("delay", f"{name}:{delay}"))
    if form.get("crash"):
        flags.append(("fail", f"orchestrator:{form['crash'].lower()}"))
    return flags


def body_in(form: Form, definition: SagaDefinition) -> dict[str, Any]:
    """The saga's input in a form; BadInput names the field that is no JSON where its schema wants no text."""
    body: dict[str, Any] = {}
    for name, schema in (definition.input or {}).get("properties", {}).items():
        text = form.get(name, "")
        if text and isinstance(schema, dict) and schema.get("type", "string") != "string":
            try:
                body[name] = parse_object(f'{{"{_HERE}":{text}}}', name)[_HERE]
            except BadInput as error:
                if "deeply" in str(error) or (error.field or "").startswith(_HERE):
                    raise BadInput(f"{name}{str(error).removeprefix(name).removeprefix(_HERE)}", name) from None
                raise BadInput(f"{name} must be {schema['type']}, not {text!r}", name) from None
        elif text:
            body[name] = text
    return body
