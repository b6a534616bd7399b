"""These functions say what follows from an answer or an event: the next line of a saga's log, and its next row. Pure.

Whoever moves a saga on uses these functions: the built-in driver, the Temporal workflow, and the observer of a
choreographed saga. These rules have no other home: what an event changes in the row and which line tells of it
(`after_event`), when somebody has to look at the saga again (`with_due_time`), which cause the API shows, how rounds
are counted, and what a cancel does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from saga.call import Attempt, CallRequest, Outcome, authorization
from saga.machine import (
    ATTEMPT,
    ENDED,
    STALLED,
    AttemptsSoFar,
    Call,
    Direction,
    Event,
    Line,
    Saga,
    State,
    apply,
    cannot_undo,
    passed_over,
)
from saga.payload import mask, readable, secret_texts
from saga.saga_row import SagaRow

Cause = Mapping[str, Any]  # why a saga turns back: what the API shows as its error


def request(saga_id: str, call: Call, calls: AttemptsSoFar, sealing: bool, span: str, token: str | None) -> CallRequest:
    """Return the HTTP request for a call, as the participant contract has it.

    `calls` is what is known of earlier attempts of this call, and `span` is a trace's span id of 16 hex digits. The
    request leaves as many attempts as this round has left.
    """
    step = call.step
    headers = {
        "Content-Type": "application/json",
        "Saga-Id": saga_id,
        "Saga-Step": step.name,
        "Idempotency-Key": f"{saga_id}:{step.name}:{call.direction}",
        "traceparent": f"00-{saga_id.replace('-', '')}-{span}-01",  # W3C Trace Context
        **authorization(call.url, token),
    }
    return CallRequest(
        url=call.url,
        headers=headers,
        body=readable(call.fields).encode(),
        timeout=step.timeout,
        retries=max(0, step.retries - calls.this_round),
        backoff=step.backoff,
        first_attempt=calls.attempts + 1,
        sealing=sealing,
        uncertain_before=calls.uncertain,
    )


def attempt_line(number: int, at: float, call: Call, attempt: Attempt) -> Line:
    """Return the line of the log that tells of one attempt; `number` is the line's own."""
    message = {"message": attempt.message} if attempt.message else {}
    detail = {"call": call.direction, "verdict": attempt.verdict, **message}
    duration_ms = round(attempt.duration_ms, 3)
    return Line(number, at, ATTEMPT, call.step.name, attempt.number, attempt.status_code, duration_ms, detail)


def answered(saga: Saga, call: Call, outcome: Outcome, late: bool) -> tuple[Event, Cause | None]:
    """Return the event that an outcome is, and the cause where the saga turns back with it.

    `late` says that the saga's deadline has passed. Where steps are still to come, the saga then turns back even
    though the action was done; its effect counts, and is compensated.
    """
    event = Event(f"{call.direction}_{outcome.verdict}")
    last = saga.cursor == len(saga.definition.steps) - 1
    if event is Event.ACTION_DONE and late and saga.state is State.EXECUTING and not last:
        return overdue(call)
    if event is Event.ACTION_DONE or call.direction is Direction.COMPENSATION:
        return event, None
    return event, cause(call.step.name, outcome.kind or "failed", outcome.message or "", outcome.status_code)


def overdue(call: Call) -> tuple[Event, Cause | None]:
    """Return the event and the cause of a saga whose deadline passed before this call, or before its answer."""
    return Event.DEADLINE_PASSED, cause(call.step.name, "deadline", "the deadline passed")


def cancelled(row: SagaRow) -> Cause | None:
    """Return the cause with which a saga turns back that an operator cancels now.

    None means that it does not turn back: while the pivot's outcome is open, that outcome decides, and the log only
    notes that somebody asked. Whether a saga can be cancelled at all is said by `permitted_commands`.
    """
    if row.state is not State.EXECUTING:
        return None
    return cause(row.definition.steps[row.cursor].name, "cancelled", "cancelled by an operator")


def cause(step: str, kind: str, message: str, status_code: int | None = None) -> Cause:
    """Return a cause in the form in which the row keeps it and the API shows it."""
    return {"step": step, "kind": kind, "status_code": status_code, "message": message}


def after_event(
    row: SagaRow,
    event: Event,
    at: float,
    result: Mapping[str, Any] | None = None,
    cause: Cause | None = None,
    detail: Mapping[str, Any] | None = None,
    passes_over: Callable[[], bool] = lambda: False,
) -> tuple[SagaRow, Line]:
    """Return the row after an event of the state machine, and the line that tells of it.

    `at` is the line's time, in seconds since the epoch. `result` is what the action answered, or what an operator
    says in its place. `cause` says why the saga turns back, where it does. `detail` is what the line says besides.
    `passes_over` is asked where the saga arrives at a step that nobody can undo: True means that it goes on past it,
    as older versions did. Raises IllegalEvent where the transition table has no row for it.
    """
    before = row.saga
    after = apply(before, event, result)
    if cannot_undo(after) and passes_over():
        after = passed_over(after)
    step = before.step.name if before.step else None
    line = Line(row.context.lines + 1, at, str(event), step, detail=_event_detail(after, cause, detail))
    moved = row.after(line, result)
    return replace(moved, rounds=_rounds(row, event, after), error=_error(row, event, after, cause)), line


def with_due_time(
    row: SagaRow,
    at: float,
    *,
    owner: str | None,
    due_at: float | None,
    stalled: Callable[[int], tuple[str | None, float | None]],
) -> SagaRow:
    """Return the row with who has the saga now, and when somebody has to look at it again.

    A saga that moves has this `owner` and this `due_at`, which is the end of the owner's lease. `stalled(rounds)` gives
    both for a saga that has just failed in so many rounds. An ended saga has neither, and ended `at`.
    """
    if row.state in ENDED:
        return replace(row, owner=None, due_at=None, ended_at=at)
    if row.state in STALLED:
        owner, due_at = stalled(row.rounds)
    return replace(row, owner=owner, due_at=due_at)


def _event_detail(after: Saga, cause: Cause | None, more: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the detail of an event's line. Its `stalled` says why a saga stalls without a call that has failed."""
    detail: dict[str, Any] = {"state": after.state, **({"message": cause["message"]} if cause else {}), **(more or {})}
    reason = cannot_undo(after)
    return {**detail, "stalled": reason} if reason else detail


def _rounds(row: SagaRow, event: Event, after: Saga) -> int:
    """Return in how many rounds in a row the present call has failed."""
    if after.state in STALLED:
        return row.rounds + 1
    return row.rounds if event is Event.RESUMED else 0


def _error(row: SagaRow, event: Event, after: Saga, cause: Cause | None) -> Cause | None:
    """Return the first cause, which is kept through the roll-back; None where the saga, or its pivot, completed."""
    if after.state is State.COMPLETED:
        return None
    if row.state is State.SEALING and event is Event.COMPENSATION_REFUSED:
        return None
    return with_first_cause(row, cause).error


def with_first_cause(row: SagaRow, cause: Cause | None) -> SagaRow:
    """Return the row with this cause, unless it has one already: the first cause is the one that is kept."""
    return row if row.error or not cause else replace(row, error=masked(row, cause))


def masked(row: SagaRow, cause: Cause) -> Cause:
    """Return the cause without the secrets that its message may echo.

    The row keeps it like this, so that a list of sagas can show it without having read their secrets.
    """
    return {**cause, "message": mask(cause["message"], row.definition.secret, secrets_of(row))}


def secrets_of(row: SagaRow) -> frozenset[str]:
    """Return the texts in a saga's input and results that nobody may be shown."""
    secret = row.definition.secret
    return secret_texts(row.input, secret).union(*(secret_texts(part, secret) for part in row.results.values()))
