"""POST /test_status: call a service's action once and undo it, to see whether it is there and keeps the contract."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import uuid_utils

from saga import progress
from saga.call import MESSAGE_CHARACTERS_AT_MOST
from saga.definition import SagaDefinition, Step
from saga.errors import BadInput, Conflict
from saga.http_client.transport import HttpAnswer, Transport
from saga.machine import AttemptsSoFar, Call, Direction
from saga.payload import parse_object

UNDONE_WITHIN = 3  # attempts


def step_called(service: str, definitions: Sequence[SagaDefinition]) -> tuple[SagaDefinition, Step]:
    """Return the first saga with a step called `service`, in either case, and the step. Raises BadInput."""
    for definition in definitions:
        for step in definition.steps:
            if step.name.lower() == service.lower():
                return definition, step
    known = dict.fromkeys(step.name for definition in definitions for step in definition.steps)
    raise BadInput(f"service: there is no service {service!r}; the services are {', '.join(known)}", "service")


def probe(definition: SagaDefinition, step: Step, transport: Transport, token: str | None) -> dict[str, Any]:
    """Call the step's action, undo it, and return {"status_code", "answer"}; the code is None where no answer came.

    A pivot cannot be undone. So its compensation comes first, after which no action of that saga takes effect at any
    participant that keeps the contract; one built with our kit then runs the action dry. Raises Conflict, and calls
    nobody, where the step has no compensation or comes after the pivot: what it did would stay.
    """
    _check(definition, step)
    service = _Service(step, {name: sample(definition, name) for name in step.send}, transport, token)
    if step.pivot:
        sealed = service.post(Direction.COMPENSATION)
        if not _good(sealed):
            return _said(sealed)
        return _said(service.post(Direction.ACTION, {"Saga-Dry-Run": "true"}))
    called = service.post(Direction.ACTION)
    for _ in range(UNDONE_WITHIN):  # also where it was not answered: it may have had its effect, or have it later
        if _good(service.post(Direction.COMPENSATION)):
            break
    return _said(called)


def _check(definition: SagaDefinition, step: Step) -> None:
    if step.compensation is None:
        what = f"{step.name} is a pivot without a compensation" if step.pivot else f"{step.name} has no compensation"
        raise Conflict(f"{what}: a call to try it could not be undone")
    pivot = next((index for index, each in enumerate(definition.steps) if each.pivot), len(definition.steps))
    if definition.steps.index(step) > pivot:
        raise Conflict(f"{step.name} comes after the pivot: a call to try it would not be undone")


class _Service:
    """A step's service, called in the name of a saga that does not exist."""

    def __init__(self, step: Step, fields: Mapping[str, Any], transport: Transport, token: str | None):
        self._step = step
        self._fields = fields
        self._transport = transport
        self._token = token
        self._saga_id = str(uuid_utils.uuid7())

    def post(self, direction: Direction, more: Mapping[str, str] | None = None) -> HttpAnswer:
        """Make one attempt of the step's action or compensation."""
        step = self._step
        url = step.action if direction is Direction.ACTION else str(step.compensation)
        call = Call(step, direction, url, self._fields)
        made = progress.request(self._saga_id, call, AttemptsSoFar(), False, secrets.token_hex(8), self._token)
        headers = {**made.headers, "Saga-Attempt": "1", **(more or {})}
        return self._transport.post(made.url, headers, made.body, made.timeout)


def _good(answer: HttpAnswer) -> bool:
    return answer.failure is None and answer.status is not None and 200 <= answer.status < 300


def _said(answer: HttpAnswer) -> dict[str, Any]:
    if answer.failure is not None:
        return {"status_code": answer.status, "answer": {"error": answer.message}}
    try:
        said: Any = parse_object(answer.body, strict=False)
    except BadInput:
        said = answer.body.decode("utf-8", "replace")[:MESSAGE_CHARACTERS_AT_MOST]
    return {"status_code": answer.status, "answer": said}


def sample(definition: SagaDefinition, name: str) -> Any:
    """Return a value that the input's schema takes for a field; a number where it has no such field, as for an id."""
    properties = (definition.input or {}).get("properties", {})
    if name not in properties:
        return 0
    schema = properties[name]
    if not isinstance(schema, dict):
        return "test"
    if "enum" in schema or "examples" in schema or "default" in schema:
        return schema.get("default", [*schema.get("examples", []), *schema.get("enum", [])][0])
    return {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}.get(schema.get("type", ""), "test")
