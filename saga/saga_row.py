"""A `SagaRow` is a saga as its row of `sagas` has it; `read_row` reads one, whatever is in the row. Pure.

A row that this version cannot decode is not an error: it becomes an Unreadable, so that it stops no other saga.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from saga.context import Context
from saga.definition import SagaDefinition, SnapshotError
from saga.machine import ENDED, STARTED, Line, Saga, State, begin, fold
from saga.unreadable import Unreadable, position_problem, results_problem, row_problem, unreadable

# Who may own a saga besides a process, which has a name of its own, and None where nobody drives it
NOBODY = ""  # its driver let it go in the middle of a call, which may still be under way: anybody may claim it at once
WORKFLOW = "temporal"  # a workflow drives it, and no process claims it


@dataclass(frozen=True)
class SagaRow:
    """A row of `sagas`; its times are in seconds since the epoch.

    `input` and `results` (by the step's name) are empty in a row that was read bare: see `SagaLog.find_many`.
    """

    id: str
    definition: SagaDefinition
    input: Mapping[str, Any]
    state: State
    cursor: int
    context: Context
    epoch: int
    owner: str | None
    due_at: float | None
    rounds: int
    idempotency_key: str | None
    request_hash: str | None
    error: Mapping[str, Any] | None
    started_at: float
    ended_at: float | None
    deadline_at: float | None
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def present(self) -> Present:
        """The part of the row that is written at each move."""
        return Present(
            self.state, self.cursor, self.context.as_json(), self.rounds,
            self.error, self.ended_at, self.owner, self.due_at,
        )  # fmt: skip

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to the saga."""
        return self.state in ENDED

    @property
    def saga(self) -> Saga:
        """The saga as the state machine knows it. Recovery needs nothing else."""
        return Saga(self.definition, self.input, self.state, self.cursor, self.results, self.context.calls)

    def after(self, line: Line, result: Mapping[str, Any] | None = None) -> SagaRow:
        """Return the row after one more line; `result` is what the action answered that this line says is done."""
        before = self.saga
        after = fold(before, line, {} if result is None or line.step is None else {line.step: result})
        context = self.context.after(line, before, after)
        return replace(self, state=after.state, cursor=after.cursor, results=after.results, context=context)


def new_saga_row(
    saga_id: str,
    definition: SagaDefinition,
    input: Mapping[str, Any],
    now: float,
    key: str | None = None,
    request_hash: str | None = None,
) -> tuple[SagaRow, Line]:
    """Return the row and the first line of a new saga, which starts `now`; nobody owns it yet, and it is never due."""
    saga, line = begin(definition, input), Line(1, now, STARTED)
    row = SagaRow(
        id=saga_id,
        definition=definition,
        input=input,
        state=saga.state,
        cursor=saga.cursor,
        context=Context().after(line, saga, saga),
        epoch=1,
        owner=None,
        due_at=None,
        rounds=0,
        idempotency_key=key,
        request_hash=request_hash,
        error=None,
        started_at=now,
        ended_at=None,
        deadline_at=now + definition.deadline if definition.deadline else None,
    )
    return row, line


Stored = SagaRow | Unreadable  # what a row of `sagas` is to its readers


@dataclass(frozen=True)
class Present:
    """The part of a saga's row that its driver writes at each move, all of it each time."""

    state: State
    cursor: int
    context: Mapping[str, Any]  # as the column has it
    rounds: int
    error: Mapping[str, Any] | None
    ended_at: float | None
    owner: str | None
    due_at: float | None


def read_row(row: Mapping[Any, Any], results: Mapping[str, Any] | None = None) -> Stored:
    """Return the saga that a row holds, whatever is in the row; `results` is what its actions answered, by step.

    A row without the column `input` becomes a SagaRow without its input.
    """
    values = {str(name): value for name, value in row.items()}
    if reason := row_problem(values):
        return unreadable(values, reason)
    try:
        saga_row = _saga_row(values, results or {})
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        return unreadable(values, error)
    reason = position_problem(saga_row.definition, saga_row.state, saga_row.cursor)
    return unreadable(values, reason) if reason else saga_row


def _saga_row(values: Mapping[str, Any], results: Mapping[str, Any]) -> SagaRow:
    """Return the saga in columns that have the types that they must have.

    Raises SnapshotError and other ValueErrors.
    """
    state = State(values["state"])
    given = {"input": {}, **{name: value for name, value in values.items() if name != "name"}}
    given["definition"] = SagaDefinition.from_json(values["definition"], driven=state not in ENDED)
    given["context"] = Context.from_json(values["context"])
    if reason := results_problem(results):
        raise SnapshotError(reason)
    return SagaRow(**{**given, "state": state, "results": results})
