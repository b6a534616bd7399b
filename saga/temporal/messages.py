"""The data that the orchestrator, the workflow and its activities send each other. Temporal's histories keep it.

The names of fields must not change, and a field that is added needs a default, because the histories of sagas under
way hold the data as it was. The names of classes and of parameters are in no history.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saga.call import Attempt, Outcome
from saga.machine import AttemptsSoFar, Call, Line
from saga.saga_row import Present

WORKFLOW = "saga"  # the type of the workflow
REPRESENTATION = "representation"  # its query
CANCEL, RESUME, RESOLVE = "cancel", "resume", "resolve"  # its updates
CONFLICT, BAD_RESULT = "conflict", "bad_result"  # the types of the errors with which it refuses an update
RESULTS_AT_MOST = 1_000_000  # bytes, of all results of a saga together


@dataclass(frozen=True)
class Timing:
    """The settings that were in force when the saga was started, in seconds."""

    lease: float  # a worker that is silent for so long is taken for dead
    stall_base: float
    stall_max: float


@dataclass(frozen=True)
class ContinuedState:
    """What a workflow takes along when its history has grown too long and it continues in a new one."""

    lines: Sequence[Line]  # those that the saga log may not have
    projected: int  # the number of the last line that the saga log is known to have
    results: Mapping[str, Mapping[str, Any]]  # what each step's action answered, by the step's name
    answered: Mapping[str, int]  # the results that the saga log may not have: {step: number of its line}


@dataclass(frozen=True)
class WorkflowInput:
    """The saga that the workflow drives. `carried` and `present` are set where it continues an earlier history."""

    definition: Mapping[str, Any]  # the snapshot of the saga's definition
    input: Mapping[str, Any]
    started_at: float
    deadline_at: float | None
    timing: Timing
    searchable: bool = False  # the server knows our search attributes
    carried: ContinuedState | None = None
    present: Present | None = None


@dataclass(frozen=True)
class Result:
    """What a step's action answered, and the number of the line that says that the action is done."""

    step: str
    line: int
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Projection:
    """What the saga log should hold: the saga's row, and the lines and results that it may not have yet."""

    saga_id: str
    present: Present
    lines: Sequence[Line]
    results: Sequence[Result] = ()


@dataclass(frozen=True)
class CallActivityInput:
    """A call to make with all its attempts, and what the saga log should hold before that."""

    projection: Projection
    call: Call
    calls: AttemptsSoFar  # what is known of earlier attempts of this call
    sealing: bool
    deadline_at: float | None  # from then on no attempt is made
    lease: float
    crashes: Sequence[str] = ()  # where the worker shall crash: "before" the call, "after" it
    results_bytes: int = 0  # the size of the saga's results so far, together


@dataclass(frozen=True)
class AttemptRecord:
    """An attempt, and the time at which it was answered or given up."""

    attempt: Attempt
    at: float


@dataclass(frozen=True)
class CallActivityResult:
    """What a call came to. Without an outcome it was not finished: the deadline passed, or the worker was shut down."""

    made: Sequence[AttemptRecord]
    projected: int  # the number of the last line that the saga log has
    outcome: Outcome | None = None
    overdue: bool = False  # the deadline passed
