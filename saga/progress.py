"""What follows from an answer or an event, whoever drives the saga: the built-in driver, or a workflow. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from saga.call import Attempt, CallRequest, Outcome, authorization
from saga.machine import STALLED, Call, CallHistory, Direction, Event, Saga, State, cannot_undo
from saga.payload import mask, readable, secret_texts
from saga.saga_log import Record

Cause = Mapping[str, Any]  # why a saga turns back: what the API shows as its error


def saga_of(record: Record) -> Saga:
    """The saga as its row has it: what its driver had, before a crash."""
    return Saga(record.definition, record.input, record.state, record.cursor, record.results, record.context.calls)


def request(saga_id: str, call: Call, calls: CallHistory, sealing: bool, span: str, token: str | None) -> CallRequest:
    """The call as the participant contract has it; `calls`: what was tried of it before; `span`: 16 hex digits."""
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


def attempt_detail(call: Call, attempt: Attempt) -> dict[str, Any]:
    """What an attempt's line says besides its number, its status code and its time."""
    message = {"message": attempt.message} if attempt.message else {}
    return {"call": call.direction, "verdict": attempt.verdict, **message}


def answered(saga: Saga, call: Call, outcome: Outcome, late: bool) -> tuple[Event, Cause | None]:
    """The event that an outcome is, and the cause where the saga turns back; `late`: the deadline has passed.

    Past the deadline with steps still to come, the answer counts, but the saga turns back with it.
    """
    event = Event(f"{call.direction}_{outcome.verdict}")
    last = saga.cursor == len(saga.definition.steps) - 1
    if event is Event.ACTION_DONE and late and saga.state is State.EXECUTING and not last:
        return overdue(call)
    if event is Event.ACTION_DONE or call.direction is Direction.COMPENSATION:
        return event, None
    return event, cause(call.step.name, outcome.kind or "failed", outcome.message or "", outcome.status_code)


def overdue(call: Call) -> tuple[Event, Cause | None]:
    """What follows where the deadline has passed before a call, or by its answer."""
    return Event.DEADLINE_PASSED, cause(call.step.name, "deadline", "the deadline passed")


def cancelled(step: str) -> Cause:
    """Why a saga turns back that an operator cancels at `step`."""
    return cause(step, "cancelled", "cancelled by an operator")


def cause(step: str, kind: str, message: str, status_code: int | None = None) -> Cause:
    """A cause, from its parts."""
    return {"step": step, "kind": kind, "status_code": status_code, "message": message}


def changes(record: Record, before: Saga, event: Event, after: Saga, cause: Cause | None) -> dict[str, Any]:
    """What an event changes in the saga's row, but for who owns it and when it is due."""
    return {
        "state": after.state,
        "cursor": after.cursor,
        "results": after.results,
        "rounds": _rounds(record, event, after),
        "error": _error(record, before.state, event, after, cause),
    }


def _rounds(record: Record, event: Event, after: Saga) -> int:
    """How many rounds in a row the present call has failed in."""
    if after.state in STALLED:
        return record.rounds + 1
    return record.rounds if event is Event.RESUMED else 0


def _error(record: Record, before: State, event: Event, after: Saga, cause: Cause | None) -> Cause | None:
    """The first cause, kept through the roll-back; none once the saga has completed, or its pivot has."""
    if after.state is State.COMPLETED:
        return None
    if before is State.SEALING and event is Event.COMPENSATION_REFUSED:
        return None
    return record.error or (cause and masked(record, cause))


def masked(record: Record, cause: Cause) -> Cause:
    """The cause as the row keeps it: a list shows it without having read the secrets that its message may echo."""
    return {**cause, "message": mask(cause["message"], record.definition.secret, secrets_of(record))}


def secrets_of(record: Record) -> frozenset[str]:
    """The texts of a saga that nobody is shown."""
    secret = record.definition.secret
    return secret_texts(record.input, secret).union(*(secret_texts(part, secret) for part in record.results.values()))


def event_detail(after: Saga, cause: Cause | None, more: Mapping[str, Any] | None) -> dict[str, Any]:
    """What an event's line says; `stalled`: why it is stalled, where that is not because a call did not succeed."""
    said: dict[str, Any] = {"state": after.state, **({"message": cause["message"]} if cause else {}), **(more or {})}
    stuck = cannot_undo(after)
    return {**said, "stalled": stuck} if stuck else said


def fault(when: str, call: Call, faults: Sequence[str], struck: Sequence[str]) -> str | None:
    """The injected crash that strikes `when` ("before", "after") this call; each once a saga: `struck` are those."""
    undo = "undo-" if call.direction is Direction.COMPENSATION else ""
    name = f"{when}-{undo}{call.step.name}"
    return name if name in faults and name not in struck else None
