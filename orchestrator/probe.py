"""One call to a service, undone again: is it there, and does it keep the contract?"""

from __future__ import annotations

from typing import Any

import requests
import uuid_utils

from saga.definition import SagaDefinition, Step
from saga.errors import BadInput
from saga.payload import compact, parse_object


def probe(definition: SagaDefinition, step: Step, token: str | None) -> dict[str, Any]:
    """What the step's action answers: {"status_code", "answer"}; no status code where there was no answer.

    A pivot cannot be undone. So its compensation comes first, after which no action of that saga takes effect at any
    participant that keeps the contract; one built with our kit then runs the action dry.
    """
    saga_id = str(uuid_utils.uuid7())
    fields = {name: _sample(definition, name) for name in step.send}
    try:
        if step.pivot:
            if step.compensation:
                sealed = _post(step, step.compensation, saga_id, fields, token)
                if not sealed.ok:
                    return _said(sealed)
                return _said(_post(step, step.action, saga_id, fields, token, dry_run=True))
            return {"status_code": None, "answer": {"error": "a pivot without a compensation cannot be tried"}}
        called = _post(step, step.action, saga_id, fields, token)
    except requests.RequestException as error:
        return {"status_code": None, "answer": {"error": f"no answer: {type(error).__name__}"}}
    finally:
        if not step.pivot and step.compensation:
            _undo(step, saga_id, fields, token)
    return _said(called)


def _undo(step: Step, saga_id: str, fields: dict[str, Any], token: str | None) -> None:
    """Also where the action was not answered: it may have had its effect, or have it later."""
    for _ in range(3):
        try:
            if _post(step, str(step.compensation), saga_id, fields, token).ok:
                return
        except requests.RequestException:
            continue


def _post(
    step: Step, url: str, saga_id: str, fields: dict[str, Any], token: str | None, dry_run: bool = False
) -> requests.Response:
    headers = {"Content-Type": "application/json", "Saga-Id": saga_id, "Saga-Step": step.name, "Saga-Attempt": "1"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if dry_run:
        headers["Saga-Dry-Run"] = "true"
    return requests.post(url, data=compact(fields).encode(), headers=headers, timeout=step.timeout)


def _said(response: requests.Response) -> dict[str, Any]:
    answer: Any
    try:
        answer = parse_object(response.content, strict=False)
    except BadInput:
        answer = response.text[:500]
    return {"status_code": response.status_code, "answer": answer}


def _sample(definition: SagaDefinition, name: str) -> Any:
    """A value for a field: what the input's schema would take, or else a number, as most ids are."""
    properties = (definition.input or {}).get("properties", {})
    if name not in properties:
        return 0
    schema = properties[name]
    if not isinstance(schema, dict):
        return "test"
    if "enum" in schema or "examples" in schema or "default" in schema:
        return schema.get("default", [*schema.get("examples", []), *schema.get("enum", [])][0])
    return {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}.get(schema.get("type", ""), "test")
