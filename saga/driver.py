"""Drives one saga: ask the machine, make the call, write the answer to the log, go on.

What must be durable before what (the log's write-ahead rule): before an action is called, that the saga has
reached it; before the first compensation, that it turned back; before anybody is told, that it ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saga import course, http
from saga.errors import LeaseLost, WriteRefused
from saga.log import Present, Record, SagaLog
from saga.machine import (
    ATTEMPT,
    CLAIMED,
    ENDED,
    FAULT,
    RELEASED,
    STALLED,
    Call,
    Event,
    Line,
    State,
    apply,
    attempted,
    interrupted,
    next_call,
    replay,
)
from saga.retry import stall_delay
from saga.transport import Transport


@dataclass(frozen=True)
class Surroundings:
    """What a driver needs from outside: passed in, so that a test can hold all of it in its hand. Times: seconds."""

    log: SagaLog
    transport: Transport
    owner: str
    clock: Callable[[], float]
    sleep: Callable[[float], Any]
    random: Callable[[], float]
    stopping: Callable[[], bool]
    exit: Callable[[int], None]
    observe: Callable[[Record, Line], None]  # told of every line, once it is durable
    lease: float = 10.0
    stall_base: float = 1.0
    stall_max: float = 300.0
    token: str | None = None


class _DeadlinePassed(Exception):
    """Seen before an attempt: the saga turns back instead."""


class _Stopping(Exception):
    """Seen before an attempt: the process shuts down, and hands the saga over."""


class Driver:
    """One saga in the hands of this process, from its start or a claim until it ends, stalls, or is lost."""

    def __init__(self, record: Record, lines: Sequence[Line], around: Surroundings):
        self.record = record
        self.lines = list(lines)
        self.recovered = False  # it was claimed, not started here
        self.trying: str | None = None  # the service that its next call tries again, after it has stalled there
        self.moved_at = around.clock()  # its claim's or its last write's time
        self.parked = False  # it stands in line for a service, and has no thread
        self.news = threading.Event()  # nobody need wait for it any more
        self._around = around
        self._pending: list[Line] = []  # lines that the next write takes along
        self._writing = threading.Lock()  # a renewal and a write must not cross
        self._held = True
        self._lease_until = record.due_at or 0.0
        self._saga = replay(record.definition, record.input, lines, record.context)
        self._claimed: bool | None = None  # by a claim that is not in the log yet: was it held by another?

    def taken_over(self, was_held: bool) -> None:
        """After a claim; a call that a crash, or the claim itself, may have interrupted counts as an attempt."""
        self.recovered = True
        self._claimed = was_held

    def next_call(self) -> Call | None:
        """The call to make next; None where the saga has ended, stalled, or was handed over."""
        if self._claimed is not None:
            if self._saga.state in STALLED:
                self.record_event(Event.RESUMED)
            else:
                self._note_claim()
                self._write()
        if not self._held:
            return None
        return next_call(self._saga)

    def record_event(
        self, event: Event, cause: Mapping[str, Any] | None = None, detail: Mapping[str, Any] | None = None
    ) -> None:
        """Make an event durable that is not an answer: a resumption, or what an operator decided."""
        self._note_claim()
        self._record(event, cause=cause, detail=detail)

    def note(self, event: str, detail: Mapping[str, Any] | None = None) -> None:
        """Make a line durable that changes nothing."""
        self._note_claim()
        self._add(event, self._saga.step.name if self._saga.step else None, detail=detail)
        self._write()

    def _note_claim(self) -> None:
        """Say in the log who has it now; a stalled one has no call in flight, so its next line says enough."""
        was_held, self._claimed = self._claimed, None
        if was_held is None or self._saga.state in STALLED:
            return
        if was_held:
            self._saga = interrupted(self._saga)
        self._add(CLAIMED, detail={"by": self.record.owner, "epoch": self.record.epoch, "interrupted": was_held})

    def renew_when_old(self) -> None:
        """Prolong the lease once a third of it is gone; called from the engine's renewer while calls are in flight."""
        around = self._around
        with self._writing:
            until = around.clock() + around.lease
            if self._held and until - self._lease_until >= around.lease / 3:
                around.log.renew(self.record.id, self.record.epoch, until)
                self._lease_until = until

    def give_up(self) -> None:
        """The process exits in the middle of a call: let another claim the saga at once."""
        with self._writing:
            if self._held:
                self._held = False
                self._around.log.renew(self.record.id, self.record.epoch, self._around.clock())

    def make(self, call: Call) -> None:
        """Make the call and write down what came of it. LeaseLost where the saga is no longer this driver's."""
        around = self._around
        try:
            outcome = http.call(
                self._request(call),
                around.transport,
                sleep=around.sleep,
                random=around.random,
                before_attempt=lambda number: self._before_attempt(call),
                after_attempt=lambda attempt, will_retry: self._after_attempt(call, attempt, will_retry),
            )
        except _Stopping:
            self.release()
            return
        except _DeadlinePassed:
            event, cause = course.overdue(call)
            self._record(event, cause=cause)
            return
        self._inject("after", call)
        late = self._deadline_passed()
        event, cause = course.answered(self._saga, call, outcome, late)
        try:
            self._record(event, result=outcome.result, cause=cause)
        except WriteRefused as error:
            outcome = self._not_stored(outcome, error)
            event, cause = course.answered(self._saga, call, outcome, late)
            self._record(event, cause=cause)

    def _not_stored(self, outcome: http.Outcome, error: WriteRefused) -> http.Outcome:
        """An answer that the log cannot take: of what the call did, no more is known than that it may have done it.

        So the saga turns back, or stalls, with this as its cause, and does not make the call over and over.
        """
        message = f"the result cannot be stored: {error}"
        last = self._pending[-1] if self._pending else None
        if last and last.event == ATTEMPT:
            detail = {**(last.detail or {}), "verdict": http.Verdict.UNKNOWN, "message": message}
            self._pending[-1] = replace(last, detail=detail)
        calls = replace(self._saga.calls, uncertain=True)
        self._saga = replace(self._saga, calls=calls)
        return http.Outcome(http.Verdict.UNKNOWN, None, outcome.status_code, "failed", message)

    def _request(self, call: Call) -> http.Request:
        sealing = self._saga.state is State.SEALING
        return course.request(self.record.id, call, self._saga.calls, sealing, self._span(), self._around.token)

    def _span(self) -> str:
        return f"{1 + int(self._around.random() * (2**64 - 2)):016x}"

    def _before_attempt(self, call: Call) -> None:
        if self._around.stopping():
            raise _Stopping
        if self._around.clock() >= self._lease_until:
            raise LeaseLost(self.record.id)  # perhaps; somebody may have claimed it, so make no call
        if self._saga.state is State.EXECUTING and self._deadline_passed():
            raise _DeadlinePassed
        self._inject("before", call)

    def _after_attempt(self, call: Call, attempt: http.Attempt, will_retry: bool) -> None:
        self._saga = attempted(self._saga, attempt.number, uncertain=attempt.verdict == "unknown")
        detail = course.attempt_detail(call, attempt)
        self._add(ATTEMPT, call.step.name, attempt.number, attempt.status_code, attempt.duration_ms, detail)
        if will_retry:
            self._write()  # so that a restart does not begin to count anew; the back-off hides its cost

    def _deadline_passed(self) -> bool:
        deadline = self.record.deadline_at
        return deadline is not None and self._around.clock() >= deadline

    def _record(
        self,
        event: Event,
        result: Mapping[str, Any] | None = None,
        cause: Mapping[str, Any] | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Apply `event` and make it durable, with the lines that led to it."""
        before, pending = self._saga, list(self._pending)
        self._saga = saga = apply(before, event, result)
        step = before.step.name if before.step else None
        self._add(event, step, detail=course.event_detail(saga, cause, detail))
        try:
            self._write(**course.changes(self.record, before, event, saga, cause))
        except WriteRefused:  # as if it had not happened: whoever asked for it may say it otherwise
            self._saga, self._pending = before, pending
            raise

    def _write(self, **changes: Any) -> None:
        around, now = self._around, self._around.clock()
        with self._writing:
            state = changes.get("state", self.record.state)
            if state in ENDED:
                changes |= {"owner": None, "due_at": None, "ended_at": now}
            elif state in STALLED:
                rounds = changes.get("rounds", self.record.rounds)
                wait = stall_delay(rounds, around.stall_base, around.stall_max, around.random)
                changes |= {"owner": None, "due_at": now + wait}
            else:
                changes |= {"owner": around.owner, "due_at": now + around.lease}
            self._advance(Record(**{**vars(self.record), **changes}))
            self._lease_until = self.record.due_at or 0.0
            self._held = self.record.owner is not None

    def release(self) -> None:
        """Hand the saga over between two calls: whoever claims it finds no call in flight."""
        self._add(RELEASED)
        with self._writing:
            self._held = False
            self._advance(replace(self.record, owner=None, due_at=self._around.clock()))

    def _advance(self, record: Record) -> None:
        present = Present(
            record.state, record.cursor, record.context, record.rounds,
            record.error, record.ended_at, record.owner, record.due_at,
        )  # fmt: skip
        self._around.log.advance(record.id, record.epoch, present, self._pending)
        self.record, self.moved_at = record, self._around.clock()
        written, self._pending = self._pending, []
        self.lines += written
        for line in written:
            self._around.observe(record, line)

    def _add(
        self,
        event: str,
        step: str | None = None,
        attempt: int | None = None,
        status_code: int | None = None,
        duration_ms: float | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        seq = len(self.lines) + len(self._pending) + 1
        now = self._around.clock()
        self._pending.append(Line(seq, now, str(event), step, attempt, status_code, duration_ms, detail))

    def _inject(self, when: str, call: Call) -> None:
        """The injected crash of the orchestrator, once per saga: the log remembers that it happened."""
        name = course.fault(when, call, self.record.definition.faults, self.lines)
        if name is None:
            return
        held, self._pending = self._pending, []  # an answer that is not yet logged is what the crash must lose
        self._add(FAULT, call.step.name, detail={"fault": name})
        self._write()
        self._pending = held
        self._around.exit(17)
