"""A saga as its workflow knows it: its row and its lines, of which the saga log holds a projection. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from saga import course
from saga.definition import TEMPORAL, SagaDefinition
from saga.log import Present, Record
from saga.machine import (
    ATTEMPT,
    CANCEL_REQUESTED,
    CLAIMED,
    ENDED,
    FAULT,
    STALLED,
    STARTED,
    Call,
    Event,
    Line,
    Saga,
    apply,
    attempted,
    begin,
    interrupted,
    next_call,
    nobody_undoes,
    passed_over,
    replay,
)
from saga.retry import stall_delay
from saga.temporal.messages import Begun, Carried, Made, Projection

STALLS_WHERE_NOBODY_UNDOES = "stalls where nobody undoes"  # histories of older versions have passed such a step over


class Journal:
    """Every change adds a line; `clock` and `random` are the workflow's own, so that a replay writes the same."""

    def __init__(
        self,
        saga_id: str,
        begun: Begun,
        clock: Callable[[], float],
        random: Callable[[], float],
        patched: Callable[[str], bool] = lambda change: True,
    ):
        self._begun = begun
        self._patched = patched  # whether the workflow's history knows a change of what it decides
        self._clock = clock
        self._random = random
        definition = SagaDefinition.from_json(begun.definition)
        self.saga = begin(definition, begun.input)
        self.record = _record(saga_id, begun, definition, self.saga.state)
        self.lines = [Line(1, begun.started_at, STARTED)]
        self.seq = 1
        self.projected = 1  # up to which line the saga log is known to be
        if begun.carried and begun.present:
            self._carry_on(begun.carried, begun.present)

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

    def tried(self, call: Call, made: Sequence[Made]) -> None:
        """After attempts of the call at the cursor."""
        for each in made:
            attempt = each.attempt
            self.saga = attempted(self.saga, attempt.number, uncertain=attempt.verdict == "unknown")
            line = Line(
                self.seq + 1, each.at, ATTEMPT, call.step.name, attempt.number, attempt.status_code,
                attempt.duration_ms, course.attempt_detail(call, attempt),
            )  # fmt: skip
            self._append(line)

    def interrupted(self, why: str | None = None) -> None:
        """The call at the cursor may have been under way when its worker was lost, or the saga was taken from it.

        `why`: what the log says where no crash has led to it.
        """
        self.saga = interrupted(self.saga)
        self.note(CLAIMED, {"by": TEMPORAL, "interrupted": True, **({"why": why} if why else {})})

    def note(self, event: str, detail: Mapping[str, Any] | None = None) -> None:
        """Something that changes nothing."""
        step = self.saga.step.name if self.saga.step else None
        self._append(Line(self.seq + 1, self._clock(), event, step, detail=detail))

    def move(
        self,
        event: Event,
        result: Mapping[str, Any] | None = None,
        cause: Mapping[str, Any] | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Apply an event."""
        before, now = self.saga, self._clock()
        after = apply(before, event, result)
        if nobody_undoes(after) and not self._patched(STALLS_WHERE_NOBODY_UNDOES):
            after = passed_over(after)
        self.saga = after
        step = before.step.name if before.step else None
        self._append(Line(self.seq + 1, now, event, step, detail=course.event_detail(after, cause, detail)))
        self.record = record = replace(self.record, **course.changes(self.record, before, event, after, cause))
        if after.state in ENDED:
            self.record = replace(record, owner=None, due_at=None, ended_at=now)
        elif after.state in STALLED:
            timing = self._begun.timing
            rest = stall_delay(record.rounds, timing.stall_base, timing.stall_max, self._random)
            self.record = replace(record, due_at=now + rest)
        else:
            self.record = replace(record, due_at=None)

    def projection(self) -> Projection:
        """What the saga log should show, and perhaps does not yet."""
        record = self.record
        present = Present(
            record.state, record.cursor, record.context, record.rounds,
            record.error, record.ended_at, record.owner, record.due_at,
        )  # fmt: skip
        return Projection(record.id, present, [line for line in self.lines if line.seq > self.projected])

    def _append(self, line: Line) -> None:
        self.lines.append(line)
        self.seq = line.seq

    def carried(self) -> Begun:
        """All of this, for a new history; of the rounds of a long stall, what is told of the last ones only."""
        lines = _without_old_rounds(self.lines, self.saga)
        carried = Carried(lines, self.seq, self.projected, self.saga.calls)
        return replace(self._begun, carried=carried, present=self.projection().present)

    def _carry_on(self, carried: Carried, present: Present) -> None:
        self.lines, self.seq, self.projected = list(carried.lines), carried.seq, carried.projected
        self.record = replace(self.record, **vars(present))
        self.saga = replay(self.record.definition, self.record.input, self.lines, present.context)
        self.saga = replace(self.saga, calls=carried.calls)


def _without_old_rounds(lines: Sequence[Line], saga: Saga) -> list[Line]:
    """The lines of a stalled saga without those of the rounds between the first and the last one of this stall.

    A round leads from a stalled state back into it, so that what is left tells the same story.
    """
    step = saga.step.name if saga.step else None
    stalls = [
        index
        for index, line in enumerate(lines)
        if line.step == step and (line.detail or {}).get("state") == saga.state
    ]
    if len(stalls) < 2:
        return list(lines)
    between = lines[stalls[0] + 1 : stalls[-2] + 1]
    remembered = [line for line in between if line.event in (CANCEL_REQUESTED, FAULT)]  # what must not happen again
    return [*lines[: stalls[0] + 1], *remembered, *lines[stalls[-2] + 1 :]]


def _record(saga_id: str, begun: Begun, definition: SagaDefinition, state: Any) -> Record:
    return Record(
        id=saga_id,
        definition=definition,
        input=begun.input,
        state=state,
        cursor=0,
        context={},
        epoch=1,
        owner=TEMPORAL,
        due_at=None,
        rounds=0,
        idempotency_key=None,
        request_hash=None,
        error=None,
        started_at=begun.started_at,
        ended_at=None,
        deadline_at=begun.deadline_at,
    )
