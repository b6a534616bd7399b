"""A saga as its workflow knows it: its row, and the lines that the saga log may not have yet. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from saga import progress
from saga.context import Context
from saga.definition import TEMPORAL, SagaDefinition
from saga.machine import (
    ATTEMPT,
    CLAIMED,
    ENDED,
    STALLED,
    STARTED,
    Call,
    Event,
    Line,
    State,
    apply,
    begin,
    cannot_undo,
    fold,
    next_call,
    passed_over,
)
from saga.payload import compact
from saga.retry import stall_delay
from saga.saga_log import Present, Record
from saga.temporal.messages import AttemptRecord, ContinuedState, Projection, Result, WorkflowInput

STALLS_WHERE_NOBODY_UNDOES = "stalls where nobody undoes"  # histories of older versions have passed such a step over


class Journal:
    """Every change adds a line; `clock` and `random` are the workflow's own, so that a replay writes the same."""

    def __init__(
        self,
        saga_id: str,
        workflow_input: WorkflowInput,
        clock: Callable[[], float],
        random: Callable[[], float],
        patched: Callable[[str], bool] = lambda change: True,
    ):
        self._input = workflow_input
        self._patched = patched  # whether the workflow's history knows a change of what it decides
        self._clock = clock
        self._random = random
        definition = SagaDefinition.from_json(workflow_input.definition)
        self.saga = begin(definition, workflow_input.input)
        first = Line(1, workflow_input.started_at, STARTED)
        context = Context().after(first, self.saga, self.saga)
        self.record = _record(saga_id, workflow_input, definition, self.saga.state, context)
        self.lines: list[Line] = []  # those that the saga log may not have
        self.projected = 1  # up to which line the saga log is known to be
        self._answered: dict[str, int] = {}  # results that the saga log may not have: the numbers of their lines
        self.results_bytes = 0
        if workflow_input.carried and workflow_input.present:
            self._continue_from(workflow_input.carried, workflow_input.present)

    @property
    def seq(self) -> int:
        """The number of the last line."""
        return self.record.context.lines

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.saga.state in ENDED

    @property
    def stalled(self) -> bool:
        """Whether it rests until it is due."""
        return self.saga.state in STALLED

    def next_call(self) -> Call | None:
        """The call to make now."""
        return next_call(self.saga)

    def tried(self, call: Call, made: Sequence[AttemptRecord]) -> None:
        """After attempts of the call at the cursor."""
        for each in made:
            attempt = each.attempt
            line = Line(
                self.seq + 1, round(each.at, 6), ATTEMPT, call.step.name, attempt.number, attempt.status_code,
                round(attempt.duration_ms, 3), progress.attempt_detail(call, attempt),
            )  # fmt: skip
            self._append(line)

    def interrupted(self, why: str | None = None) -> None:
        """The call at the cursor may have been under way when its worker was lost, or the saga was taken from it.

        `why`: what the log says where no crash has led to it.
        """
        self.note(CLAIMED, {"by": TEMPORAL, "interrupted": True, **({"why": why} if why else {})})

    def note(self, event: str, detail: Mapping[str, Any] | None = None) -> None:
        """Something that is no event of the state machine."""
        step = self.saga.step.name if self.saga.step else None
        self._append(Line(self.seq + 1, self._now(), event, step, detail=detail))

    def move(
        self,
        event: Event,
        result: Mapping[str, Any] | None = None,
        cause: Mapping[str, Any] | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Apply an event."""
        before, now = self.saga, self._now()
        after = apply(before, event, result)
        if cannot_undo(after) and not self._patched(STALLS_WHERE_NOBODY_UNDOES):
            after = passed_over(after)
        step = before.step.name if before.step else None
        self._append(Line(self.seq + 1, now, event, step, detail=progress.event_detail(after, cause, detail)), result)
        self.record = record = replace(self.record, **progress.changes(self.record, before, event, after, cause))
        if step and step in after.results.keys() - before.results.keys():
            self._answered[step] = self.seq
            self.results_bytes += len(compact(result or {}).encode())
        if after.state in ENDED:
            self.record = replace(record, owner=None, due_at=None, ended_at=now)
        elif after.state in STALLED:
            timing = self._input.timing
            rest = stall_delay(record.rounds, timing.stall_base, timing.stall_max, self._random)
            self.record = replace(record, due_at=now + rest)
        else:
            self.record = replace(record, due_at=None)

    def projection(self) -> Projection:
        """What the saga log should show, and perhaps does not yet."""
        record = self.record
        results = [Result(step, line, record.results[step]) for step, line in self._answered.items()]
        return Projection(record.id, record.present, list(self.lines), results)

    def is_projected(self, line: int) -> None:
        """The saga log has all lines up to this one, perhaps more: they are not kept."""
        self.projected = max(self.projected, line)
        self.lines = [each for each in self.lines if each.seq > self.projected]
        self._answered = {step: number for step, number in self._answered.items() if number > self.projected}

    def _now(self) -> float:
        return round(self._clock(), 6)  # as the log keeps it

    def _append(self, line: Line, result: Mapping[str, Any] | None = None) -> None:
        before = self.saga
        self.saga = fold(before, line, {} if result is None else {line.step or "": result})
        self.record = replace(self.record, context=self.record.context.after(line, before, self.saga))
        self.lines.append(line)

    def continued(self) -> WorkflowInput:
        """All of this, for a new history."""
        carried = ContinuedState(self.lines, self.projected, self.record.results, self._answered)
        return replace(self._input, carried=carried, present=self.record.present)

    def _continue_from(self, carried: ContinuedState, present: Present) -> None:
        self.lines, self.projected, self._answered = list(carried.lines), carried.projected, dict(carried.answered)
        context = Context.from_json(present.context)
        self.record = replace(self.record, **{**vars(present), "context": context}, results=carried.results)
        self.saga = progress.saga_of(self.record)
        self.results_bytes = sum(len(compact(result).encode()) for result in carried.results.values())


def _record(
    saga_id: str, workflow_input: WorkflowInput, definition: SagaDefinition, state: State, context: Context
) -> Record:
    return Record(
        id=saga_id,
        definition=definition,
        input=workflow_input.input,
        state=state,
        cursor=0,
        context=context,
        epoch=1,
        owner=TEMPORAL,
        due_at=None,
        rounds=0,
        idempotency_key=None,
        request_hash=None,
        error=None,
        started_at=workflow_input.started_at,
        ended_at=None,
        deadline_at=workflow_input.deadline_at,
    )
