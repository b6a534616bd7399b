"""The form of the page "Break it": what its fields say is to be started, and what they hold at first. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from werkzeug.datastructures import MultiDict

from orchestrator.dashboard.scenarios import find_scenario
from orchestrator.definition_to_start import definition_to_start
from orchestrator.parts import Orchestrator
from orchestrator.probe import sample
from saga.definition import SagaDefinition
from saga.errors import BadInput
from saga.faults.flags import FaultKind, parse_plan
from saga.payload import compact, parse_object
from saga.saga_row import SagaRow

INPUT = {"username": "ada", "address": "1 Main St", "payment": "4111-1111"}  # of the cards
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

CRASHES = {
    "before": "just before it calls {step}",
    "after": "when {step} has answered, before that is in the log",
    "before-undo": "just before it tells {step} to undo",
    "after-undo": "when {step} has undone, before that is in the log",
}

_HERE = "the field"  # a JSON object's key, under which a form's field is read

Form = MultiDict[str, str]
Flags = list[tuple[str, str]]


def started_by(
    orchestrator: Orchestrator, form: Form, mode: str | None = None
) -> tuple[SagaDefinition, Mapping[str, Any]]:
    """The saga that a form starts, with its faults, and its input; in `mode` where that is given, else in the form's.

    A form names a card of the saga, or has fields for each step. Raises BadInput that names the field that is wrong,
    and FaultsOff where failures are injected but FAULTS is off.
    """
    saga = form.get("saga")
    plain = orchestrator.definition(saga)
    scenario = find_scenario(plain, form.get("scenario"))
    if form.get("scenario") and scenario is None:
        raise BadInput(f"scenario: {plain.name} has no card {form['scenario']!r}", "scenario")
    flags = list(scenario.flags) if scenario else flags_in(form, plain)
    body = prefilled(plain) if scenario else body_in(form, plain)
    return with_flags(orchestrator, saga, mode or form.get("mode"), flags), body


def with_flags(orchestrator: Orchestrator, saga: str | None, mode: str | None, flags: Flags) -> SagaDefinition:
    """The saga called `saga`, in this mode, with these flags of POST /start."""
    fail, delay = ([value for name, value in flags if name == flag] for flag in ("fail", "delay"))
    return definition_to_start(orchestrator, saga, mode, fail, delay)


def form_of(row: SagaRow, flags: Sequence[tuple[str, str]]) -> Form:
    """The form in which a saga's reader finds it again, to change it; what is secret stays out of it.

    A flag for which the form has no field, since it has one kind of failure for each step, is in it as it is.
    """
    form: Form = MultiDict({"saga": row.definition.name, "mode": row.definition.mode})
    for name, value in row.input.items():
        if name not in row.definition.secret:
            form[name] = value if isinstance(value, str) else compact(value)
    names = {step.name.lower(): step.name for step in row.definition.steps}
    for flag, value in flags:
        step, _, rest = value.partition(":")
        kind, _, times = rest.partition(":")
        name = names.get(step, "")
        if flag == "fail" and step == "orchestrator" and "crash" not in form:
            form["crash"] = rest
        elif flag == "fail" and f"kind-{name}" not in form:
            form[f"kind-{name}"], form[f"times-{name}"] = kind or FaultKind.BEFORE, times
        elif flag == "delay" and f"delay-{name}" not in form:
            form[f"delay-{name}"], form[f"delays-{name}"] = kind, times
        elif flag != "mode":
            form.add(flag, value)
    return form


def endless_delays(flags: Flags, definition: SagaDefinition) -> Iterator[str]:
    """A warning for each step whose every attempt is held up beyond its time-out; nothing where a flag is wrong."""
    try:
        plan = parse_plan([], [value for name, value in flags if name == "delay"], _names(definition), enabled=True)
    except BadInput:
        return
    for step in definition.steps:
        wait = sum(delay.milliseconds for delay in plan.delays.get(step.name, ()) if delay.times is None)
        if wait >= step.timeout * 1000:
            yield (
                f"{wait} ms is more than {step.name}'s time-out of {step.timeout:g} s, and holds up every attempt: "
                f"none of its action succeeds, and none of its compensation, so that the saga stalls until you "
                f"resolve it. Say in how many attempts, for example 3."
            )


def _names(definition: SagaDefinition) -> list[str]:
    return [step.name for step in definition.steps]


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
        delays = form.get(f"delays-{step.name}", "").strip()
        if delay and delay != "0":
            flags.append(("delay", f"{name}:{delay}" + (f":{delays}" if delays else "")))
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
