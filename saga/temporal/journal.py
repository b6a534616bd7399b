"""What a workflow knows of its saga: the row, and the lines and results that the saga log may not have yet. Pure.

The rules are those of `saga.progress`, as for every coordinator. What is added here is the memory of what is still to
be written to the saga log, and how all of it moves into a new history when the old one has grown too long.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from saga import progress
from saga.context import Context
from saga.definition import SagaDefinition
from saga.machine import (
    CLAIMED,
    ENDED,
    STALLED,
    Call,
    Event,
    Line,
    Saga,
    next_call,
)
from saga.payload import compact
from saga.retry import stall_delay
from saga.saga_row import WORKFLOW, Present, new_saga_row
from saga.temporal.messages import AttemptRecord, ContinuedState, Projection, Result, WorkflowInput

# A patch of the workflow: it stalls at a step that nobody can undo. Histories of older versions have gone on past one.
STALLS_WHERE_NOBODY_UNDOES = "stalls where nobody undoes"


class Journal:
    """A saga's row and its new lines; every change adds a line.

    `clock` and `random` are the workflow's own, so that a replay writes the same lines. `patched` says whether the
    workflow's history knows a change of what the code decides.
    """

    def __init__(
        self,
        saga_id: str,
        workflow_input: WorkflowInput,
        clock: Callable[[], float],
        random: Callable[[], float],
        patched: Callable[[str], bool] = lambda change: True,
    ):
        self._input = workflow_input
        self._patched = patched
        self._clock = clock
        self._random = random
        definition = SagaDefinition.from_json(workflow_input.definition)
        row, _ = new_saga_row(saga_id, definition, workflow_input.input, workflow_input.started_at)
        self.row = replace(row, owner=WORKFLOW, deadline_at=workflow_input.deadline_at)
        self.lines: list[Line] = []  # those that the saga log may not have
        self.projected = 1  # the number of the last line that the saga log is known to have
        self._answered: dict[str, int] = {}  # the results that it may not have: {step: number of its line}
        self.results_bytes = 0
        if workflow_input.carried and workflow_input.present:
            self._continue_from(workflow_input.carried, workflow_input.present)

    @property
    def saga(self) -> Saga:
        """The saga as the state machine knows it, from its row."""
        return self.row.saga

    @property
    def seq(self) -> int:
        """The number of the last line."""
        return self.row.context.lines

    @property
    def ended(self) -> bool:
        """Whether the saga has completed or was compensated."""
        return self.row.state in ENDED

    @property
    def stalled(self) -> bool:
        """Whether the saga rests until it is due."""
        return self.row.state in STALLED

    def next_call(self) -> Call | None:
        """Return the call to make now; None where the saga is stalled or has ended."""
        return next_call(self.saga)

    def record_attempts(self, call: Call, made: Sequence[AttemptRecord]) -> None:
        """Add a line for each of these attempts of the call at the cursor."""
        for each in made:
            line = progress.attempt_line(self.seq + 1, round(each.at, 6), call, each.attempt)
            self._append(line)

    def record_interruption(self, why: str | None = None) -> None:
        """Add the line which says that the call at the cursor was cut short, and may have had its effect.

        `why` is what took the saga away from its worker, where that was no crash.
        """
        self.add_line(CLAIMED, {"by": WORKFLOW, "interrupted": True, **({"why": why} if why else {})})

    def add_line(self, event: str, detail: Mapping[str, Any] | None = None) -> None:
        """Add a line that tells of no event of the state machine."""
        step = self.saga.step
        self._append(Line(self.seq + 1, self._now(), event, step.name if step else None, detail=detail))

    def record_event(
        self,
        event: Event,
        result: Mapping[str, Any] | None = None,
        cause: Mapping[str, Any] | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Apply an event of the state machine, and add the line that tells of it; see `progress.after_event`."""
        before, now = self.row, self._now()
        moved, line = progress.after_event(
            before, event, now, result, cause, detail, passes_over=lambda: not self._patched(STALLS_WHERE_NOBODY_UNDOES)
        )
        self.row = progress.with_due_time(moved, now, owner=WORKFLOW, due_at=None, stalled=partial(self._rest, now))
        self.lines.append(line)
        if line.step and line.step in moved.results.keys() - before.results.keys():
            self._answered[line.step] = line.seq
            self.results_bytes += len(compact(result or {}).encode())

    def _rest(self, now: float, rounds: int) -> tuple[str | None, float | None]:
        """Return who has the saga while it is stalled, and when it is due again."""
        timing = self._input.timing
        return WORKFLOW, now + stall_delay(rounds, timing.stall_base, timing.stall_max, self._random)

    def projection(self) -> Projection:
        """Return what the saga log should hold, with the lines and results that it may not have yet."""
        row = self.row
        results = [Result(step, line, row.results[step]) for step, line in self._answered.items()]
        return Projection(row.id, row.present, list(self.lines), results)

    def mark_projected(self, line: int) -> None:
        """Forget the lines up to this one, and their results, because the saga log is known to have them."""
        self.projected = max(self.projected, line)
        self.lines = [each for each in self.lines if each.seq > self.projected]
        self._answered = {step: number for step, number in self._answered.items() if number > self.projected}

    def _now(self) -> float:
        return round(self._clock(), 6)  # the saga log keeps microseconds

    def _append(self, line: Line) -> None:
        self.row = self.row.after(line)
        self.lines.append(line)

    def continued_input(self) -> WorkflowInput:
        """Return the input with which a new history continues from here."""
        carried = ContinuedState(self.lines, self.projected, self.row.results, self._answered)
        return replace(self._input, carried=carried, present=self.row.present)

    def _continue_from(self, carried: ContinuedState, present: Present) -> None:
        self.lines, self.projected, self._answered = list(carried.lines), carried.projected, dict(carried.answered)
        context = Context.from_json(present.context)
        self.row = replace(self.row, **{**vars(present), "context": context}, results=carried.results)
        self.results_bytes = sum(len(compact(result).encode()) for result in carried.results.values())
