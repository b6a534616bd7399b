"""What the orchestrator, the workflow and its activities tell each other: data, kept in Temporal's histories.

A field that is added needs a default: histories of sagas under way do not have it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saga.call import Attempt, Outcome
from saga.machine import Call, CallHistory, Line
from saga.saga_log import Present

WORKFLOW = "saga"  # the workflow's type, and what it knows:
REPRESENTATION = "representation"  # a query,
CANCEL, RESUME, RESOLVE = "cancel", "resume", "resolve"  # and updates
CONFLICT, BAD_RESULT = "conflict", "bad_result"  # the types of their refusals
RESULTS_AT_MOST = 1_000_000  # bytes, all of a saga's


@dataclass(frozen=True)
class Timing:
    """Seconds, as the settings were when the saga was started."""

    lease: float  # after which a silent worker's call is made again
    stall_base: float
    stall_max: float


@dataclass(frozen=True)
class ContinuedState:
    """A workflow's own, where its history has grown too long and it goes on in a new one."""

    lines: Sequence[Line]  # those that the saga log may not have
    projected: int
    results: Mapping[str, Mapping[str, Any]]
    answered: Mapping[str, int]  # those of the results that the saga log may not have: the numbers of their lines


@dataclass(frozen=True)
class WorkflowInput:
    """A saga to drive: the workflow's input."""

    definition: Mapping[str, Any]  # its snapshot
    input: Mapping[str, Any]
    started_at: float
    deadline_at: float | None
    timing: Timing
    searchable: bool = False  # the server knows our search attributes
    carried: ContinuedState | None = None
    present: Present | None = None  # with `carried`


@dataclass(frozen=True)
class Result:
    """What a step's action answered, and the number of the line that says that it is done."""

    step: str
    line: int
    result: Mapping[str, Any]


@dataclass(frozen=True)
class Projection:
    """What the saga log should show: the saga's row, and the lines and the results that it may not have."""

    saga_id: str
    present: Present
    lines: Sequence[Line]
    results: Sequence[Result] = ()


@dataclass(frozen=True)
class CallActivityInput:
    """A call to make, with all its attempts; first of all the saga log is brought up to date."""

    projection: Projection
    call: Call
    calls: CallHistory
    sealing: bool
    deadline_at: float | None  # from which on no attempt is made
    lease: float
    crashes: Sequence[str] = ()  # injected: "before" the call, "after" it
    results_bytes: int = 0  # of what the saga's actions have answered so far, together


@dataclass(frozen=True)
class AttemptRecord:
    """An attempt, and when it was answered."""

    attempt: Attempt
    at: float


@dataclass(frozen=True)
class CallActivityResult:
    """What a call came to; no outcome: the deadline passed, or the worker was shut down, before an attempt."""

    made: Sequence[AttemptRecord]
    projected: int  # up to which line the saga log was brought
    outcome: Outcome | None = None
    overdue: bool = False
