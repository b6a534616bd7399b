"""WRONG on purpose: the coordinator of most saga demos, to be run beside the correct one with the same fault.

Its mistakes, each a common one:

1. It keeps no log: a crash in the middle forgets the saga.
2. A retry is a new request, with no idempotency key: what was done and not answered is done twice.
3. A time-out or a 500 is taken for "nothing happened": the failed step's own effect is forgotten.
4. A compensation is tried once, and its failure is passed over: "rolled back", it says.
5. The pivot's unknown outcome is taken for a failure: what was committed there stays alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from orchestrator.dashboard.diagram_rows import seconds_between
from orchestrator.dashboard.formatting import listed
from saga.call import authorization
from saga.definition import SagaDefinition, Step
from saga.errors import BadInput
from saga.http_client import new_transport
from saga.http_client.transport import HttpAnswer, Transport
from saga.machine import fields_for
from saga.payload import parse_object
from saga.views.records import REQUESTS_AT_ONCE, ask, records_url

ATTEMPTS = 3
RECORDS_WITHIN = 1.0  # seconds for a service's records


@dataclass(frozen=True)
class NaiveCall:
    """One request, `at` so many seconds after the first; `status_code` is None where no answer came."""

    step: str
    direction: str
    attempt: int
    request_id: str
    status_code: int | None
    message: str
    at: float = 0.0


@dataclass
class NaiveRun:
    """The calls that the naive coordinator made, and what it says came of them; `id` is that of the saga beside it."""

    id: str
    calls: list[NaiveCall] = field(default_factory=list)
    says: str = "under way"


# What a service has of one request: its records and its barrier rows; None where it does not say.
Found = Mapping[str, Any] | None


class _Gone(Exception):
    """Ends a run where the coordinator's process would exit, after which it would know nothing."""


def run_naive(
    definition: SagaDefinition,
    input: Mapping[str, Any],
    run_id: str,
    token: str | None = None,
    transport: Transport | None = None,
) -> NaiveRun:
    """Run a saga, with the faults that its definition has, as it should not be run.

    Blocks until that has ended, for some seconds per time-out.
    """
    calls = _Calls(transport or new_transport(), token)
    run, coordinator = NaiveRun(run_id), _Naive(definition, calls)
    try:
        run.says = coordinator.run(run, dict(input))
    except _Gone:
        run.says = "nothing any more: it crashed, and kept no log"
    return run


@dataclass(frozen=True)
class _Calls:
    transport: Transport
    token: str | None

    def post(self, step: Step, url: str, fields: Mapping[str, Any], headers: Mapping[str, str]) -> HttpAnswer:
        sent = {"Content-Type": "application/json", **headers, **authorization(url, self.token)}
        return self.transport.post(url, sent, json.dumps(fields).encode(), step.timeout)


class _Naive:
    def __init__(self, definition: SagaDefinition, calls: _Calls):
        self._steps = definition.steps
        self._crashes = definition.faults
        self._calls = calls
        self._began = time.monotonic()

    def run(self, run: NaiveRun, known: dict[str, Any]) -> str:
        done: list[tuple[Step, str]] = []  # mistake 1: only here, in memory
        for step in self._steps:
            result = self._act(run, step, known)
            if result is None:
                for finished, request_id in reversed(done):
                    self._undo(run, finished, request_id, known)
                return "ROLLED BACK"  # mistake 4: whatever became of it
            done.append((step, run.calls[-1].request_id))
            known.update(result)
        return "COMPLETED"

    def _act(self, run: NaiveRun, step: Step, known: Mapping[str, Any]) -> Mapping[str, Any] | None:
        for attempt in range(1, ATTEMPTS + 1):
            request_id = _request_id(run.id, step, attempt)  # mistake 2: the service cannot know it for a retry
            self._crash(f"before-{step.name}")
            answer = self._call(run, step, step.action, "action", attempt, request_id, known)
            self._crash(f"after-{step.name}")
            if answer is not None:
                return answer
            if run.calls[-1].status_code == 409:
                break
        return None  # mistakes 3 and 5

    def _undo(self, run: NaiveRun, step: Step, request_id: str, known: Mapping[str, Any]) -> None:
        if step.compensation:
            self._crash(f"before-undo-{step.name}")
            self._call(run, step, step.compensation, "compensation", 1, request_id, known)
            self._crash(f"after-undo-{step.name}")

    def _call(
        self,
        run: NaiveRun,
        step: Step,
        url: str,
        direction: str,
        attempt: int,
        request_id: str,
        known: Mapping[str, Any],
    ) -> Mapping[str, Any] | None:
        headers = {"Saga-Id": request_id, "Saga-Step": step.name, "Saga-Attempt": str(attempt)}
        at = time.monotonic() - self._began
        answer = self._calls.post(step, url, fields_for(step, known), headers)
        result, message = None, answer.message
        if answer.failure is None and answer.status is not None:
            try:
                body = parse_object(answer.body, strict=False)
                result = body if answer.status < 300 else None
                message = str(body.get("error", ""))
            except BadInput:
                message = "an answer that is no JSON object"
        run.calls.append(NaiveCall(step.name, direction, attempt, request_id, answer.status, message, at))
        return result

    def _crash(self, point: str) -> None:
        if point in self._crashes:
            raise _Gone


def found_of(
    run_id: str, definition: SagaDefinition, token: str | None, transport: Transport | None = None
) -> dict[tuple[str, int], Found]:
    """What the services themselves have of a run's requests, by step and attempt: also of a run that is forgotten."""
    asking = transport or new_transport()
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        attempts = list(_attempts(run_id, definition))
        urls = [records_url(step, request_id) for step, _, request_id in attempts]
        answers = pool.map(lambda url: ask(url, asking, token, RECORDS_WITHIN), urls)
        return {(step.name, attempt): found for (step, attempt, _), found in zip(attempts, answers, strict=True)}


def rows_by_step(found: Mapping[tuple[str, int], Found]) -> dict[str, list[dict[str, Any]] | None]:
    """The services' own rows of a run, by step; None where a service does not say."""
    rows: dict[str, list[dict[str, Any]] | None] = {}
    for (step, _), answer in found.items():
        before = rows.get(step, [])
        rows[step] = None if before is None or answer is None else [*before, *answer["records"]]
    return rows


def remembered_by_services(found: Mapping[tuple[str, int], Found], run_id: str) -> NaiveRun:
    """As much of a run as the services know, after a restart: nobody else does.

    The requests that reached a local transaction are in their barriers; how they were answered is not.
    """
    acted = sorted(
        (str(barrier.get("created_at")), step, attempt)
        for (step, attempt), answer in found.items()
        for barrier in (answer or {}).get("barrier") or []
        if barrier.get("state") != "sealed"  # by a sweep, before it had acted
    )
    run = NaiveRun(run_id, says="")
    for at, step, attempt in acted:
        since, request_id = seconds_between(acted[0][0], at), f"naive-{run_id}-{step}-{attempt}"
        run.calls.append(NaiveCall(step, "action", attempt, request_id, None, "", since))
    return run


def contradiction(run: NaiveRun, rows: Mapping[str, list[dict[str, Any]] | None]) -> str | None:
    """How what it says differs from the services' rows; None where it happens to be true, or says nothing any more."""
    if not run.says:
        return None
    expected = 1 if run.says == "COMPLETED" else 0
    wrong = [
        f"{step} has {len(found)} row{'s' if len(found) != 1 else ''} of it"
        for step, found in rows.items()
        if found is not None and len(found) != expected
    ]
    return f"It says {run.says}, but {listed(wrong)}." if wrong else None


def sweep(run_id: str, definition: SagaDefinition, token: str | None, transport: Transport | None = None) -> None:
    """Undo all its attempts, as somebody would have to by hand; a pivot's rows cannot be undone, and stay.

    The rows of one that does not answer are still shown.
    """
    calls = _Calls(transport or new_transport(), token)
    for step, _, request_id in _attempts(run_id, definition):
        if step.compensation:
            calls.post(step, step.compensation, {}, {"Saga-Id": request_id, "Saga-Step": step.name})


def _attempts(run_id: str, definition: SagaDefinition) -> Iterator[tuple[Step, int, str]]:
    for step in definition.steps:
        for attempt in range(1, ATTEMPTS + 1):
            yield step, attempt, _request_id(run_id, step, attempt)


def _request_id(run_id: str, step: Step, attempt: int) -> str:
    return f"naive-{run_id}-{step.name}-{attempt}"
