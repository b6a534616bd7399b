"""Builds what tests begin with, each part by its name."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from saga.context import Context
from saga.definition import SagaDefinition, Step
from saga.machine import STARTED, Line, State, begin
from saga.saga_row import SagaRow


def a_saga_id(number: int = 1) -> str:
    """Return the saga id with this number; the ids sort by their numbers."""
    return str(uuid.UUID(int=number))


def signup(**changes: Any) -> SagaDefinition:
    """Return the saga that ships, with its services at http://a, http://b and http://c."""
    steps = tuple(
        Step(name, f"http://{name.lower()}/invoke", f"http://{name.lower()}/compensate", send, pivot=name == "C")
        for name, send in [("A", ("username",)), ("B", ("user_id", "address")), ("C", ("user_id", "payment"))]
    )
    return SagaDefinition(**{"name": "signup", "steps": steps, "secret": ("payment",), "deadline": 60.0, **changes})


def a_saga_row(**changes: Any) -> SagaRow:
    """Return the row of a `signup` whose first step is being executed by nobody, started at the second 0."""
    values: dict[str, Any] = {
        "id": a_saga_id(),
        "definition": signup(),
        "input": {},
        "state": State.EXECUTING,
        "cursor": 0,
        "context": Context(),
        "epoch": 1,
        "owner": None,
        "due_at": None,
        "rounds": 0,
        "idempotency_key": None,
        "request_hash": None,
        "error": None,
        "started_at": 0.0,
        "ended_at": None,
        "deadline_at": None,
    }
    return SagaRow(**{**values, **changes})


def a_started_saga(
    definition: SagaDefinition,
    input: Mapping[str, Any],
    at: float,
    detail: Mapping[str, Any] | None = None,
    **changes: Any,
) -> tuple[SagaRow, Line]:
    """Return a saga that nothing has happened to since it was started at `at`, and the first line of its log."""
    saga = begin(definition, input)
    line = Line(1, round(at, 6), STARTED, detail=detail)
    first = {"state": saga.state, "cursor": saga.cursor, "context": Context().after(line, saga, saga), "started_at": at}
    return a_saga_row(definition=definition, input=input, **{**first, **changes}), line
