"""Drives one saga: ask the machine, make the call, write the answer to the log, go on.

What must be durable before what (the log's write-ahead rule): before an action is called, that the saga has
reached it; before the first compensation, that it turned back; before anybody is told, that it ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from saga import progress
from saga.call import Attempt, CallRequest, Outcome, Verdict, make_call
from saga.errors import LeaseLost, Overtaken, WriteRefused
from saga.http_client.transport import Transport
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
    fold,
    next_call,
)
from saga.retry import stall_delay
from saga.saga_log import Record, SagaLog


@dataclass(frozen=True)
class DriverDeps:
    """What a driver needs from outside: passed in, so that a test can hold all of it in its hand. Times: seconds.

    `clock` tells what others read, and may be set; what only this process waits for is measured by `monotonic`.
    """

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
    monotonic: Callable[[], float] = time.monotonic


class _DeadlinePassed(Exception):
    """Seen before an attempt: the saga turns back instead."""


class _Stopping(Exception):
    """Seen before an attempt: the process shuts down, and hands the saga over."""


class Driver:
    """One saga in the hands of this process, from its start or a claim until it ends, stalls, or is lost."""

    def __init__(self, record: Record, deps: DriverDeps, since: float | None = None):
        """`since`: when, by the monotonic clock, its lease began at the latest; now where it is not said."""
        self.record = record  # as it was written last
        self.recovered = False  # it was claimed, not started here
        self.trying: str | None = None  # the service that its next call tries again, after it has stalled there
        self.moved_at = deps.monotonic()  # its claim's or its last write's time
        self.held_back = False  # it stands in line for a service, and has no thread
        self.news = threading.Event()  # nobody need wait for it any more
        self._deps = deps
        self._pending: list[Line] = []  # lines that the next write takes along
        self._writing = threading.Lock()  # a renewal and a write must not cross
        self._held = True
        self._lease_until = record.due_at or 0.0  # by the clock that others read,
        self._lease_ends = (self.moved_at if since is None else since) + deps.lease  # and by one that nobody sets
        self._saga = progress.saga_of(record)  # these two with the pending lines
        self._context = record.context
        self._claimed: bool | None = None  # by a claim that is not in the log yet: did it interrupt a call?
        self._why: str | None = None  # the claim was made, where that was no crash
        self._sent = False  # the present call is under way, or was
        self._taken = False  # away from this driver, by another in this process

    def taken_over(self, interrupted: bool, why: str | None = None) -> None:
        """After a claim; a call that a crash, or the claim itself, may have interrupted counts as an attempt.

        `why`: what the log says of a claim that no crash has led to.
        """
        self.recovered = True
        self._claimed, self._why = interrupted, why

    def let_go(self) -> bool:
        """The saga has been taken away: send nothing more. Gives whether its present call has been sent."""
        with self._writing:
            self._taken = True
            return self._sent

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
        self,
        event: Event,
        cause: Mapping[str, Any] | None = None,
        detail: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """Make an event durable that is not an answer: a resumption, or what an operator decided."""
        self._note_claim()
        self._record(event, result, cause, detail)

    def note(self, event: str, detail: Mapping[str, Any] | None = None) -> None:
        """Make a line durable that changes nothing."""
        self._note_claim()
        self._add(event, self._saga.step.name if self._saga.step else None, detail=detail)
        self._write()

    def _note_claim(self) -> None:
        """Say in the log who has it now; a stalled one has no call in flight, so its next line says enough."""
        lost, self._claimed = self._claimed, None
        if lost is None or self._saga.state in STALLED:
            return
        why = {"why": self._why} if self._why else {}
        self._add(CLAIMED, detail={"by": self.record.owner, "epoch": self.record.epoch, "interrupted": lost, **why})

    def renew_when_old(self) -> None:
        """Prolong the lease once a third of it is gone, or the clock was set by as much.

        Called from the engine's renewer while calls are in flight.
        """
        deps = self._deps
        with self._writing:
            until, ends = deps.clock() + deps.lease, deps.monotonic() + deps.lease
            gone = max(abs(until - self._lease_until), ends - self._lease_ends)
            if self._held and gone >= deps.lease / 3:
                deps.log.renew(self.record.id, self.record.epoch, until)
                self._lease_until, self._lease_ends = until, ends

    @property
    def holds(self) -> bool:
        """Whether nobody else may drive the saga now, whatever the clock says."""
        return self._held and self._deps.monotonic() < self._lease_ends

    def give_up(self) -> None:
        """The process exits in the middle of a call: let another claim the saga at once."""
        with self._writing:
            if self._held:
                self._held = False
                self._deps.log.let_go(self.record.id, self.record.epoch, self._deps.clock())

    def make(self, call: Call) -> None:
        """Make the call and write down what came of it. LeaseLost where the saga is no longer this driver's."""
        deps = self._deps
        try:
            outcome = make_call(
                self._request(call),
                deps.transport,
                sleep=deps.sleep,
                random=deps.random,
                clock=deps.clock,
                before_attempt=lambda number: self._before_attempt(call),
                after_attempt=lambda attempt, will_retry: self._after_attempt(call, attempt, will_retry),
            )
        except _Stopping:
            self.release()
            return
        except _DeadlinePassed:
            event, cause = progress.overdue(call)
            self._record(event, cause=cause)
            return
        self._inject("after", call)
        late = self._deadline_passed()
        event, cause = progress.answered(self._saga, call, outcome, late)
        try:
            self._record(event, result=outcome.result, cause=cause)
        except WriteRefused as error:
            outcome = self._not_stored(outcome, error)
            event, cause = progress.answered(self._saga, call, outcome, late)
            self._record(event, cause=cause)

    def _not_stored(self, outcome: Outcome, error: WriteRefused) -> Outcome:
        """An answer that the log cannot take: of what the call did, no more is known than that it may have done it.

        So the saga turns back, or stalls, with this as its cause, and does not make the call over and over.
        """
        message = f"the result cannot be stored: {error}"
        last = self._pending[-1] if self._pending else None
        if last and last.event == ATTEMPT:
            detail = {**last.facts, "verdict": Verdict.UNKNOWN, "message": message}
            self._pending[-1] = replace(last, detail=detail)
            self._fold_anew()
        return Outcome(Verdict.UNKNOWN, None, outcome.status_code, "failed", message)

    def _request(self, call: Call) -> CallRequest:
        sealing = self._saga.state is State.SEALING
        return progress.request(self.record.id, call, self._saga.calls, sealing, self._span(), self._deps.token)

    def _span(self) -> str:
        return f"{1 + int(self._deps.random() * (2**64 - 2)):016x}"

    def _before_attempt(self, call: Call) -> None:
        if self._deps.stopping():
            raise _Stopping
        if self._deps.monotonic() >= self._lease_ends:
            raise LeaseLost(self.record.id)  # perhaps; somebody may have claimed it, so make no call
        if self._deps.clock() >= self._lease_until:
            self.renew_when_old()  # the clock was set: LeaseLost where somebody has gone by it
        if self._saga.state is State.EXECUTING and self._deadline_passed():
            raise _DeadlinePassed
        with self._writing:  # whoever takes the saga away is told, for certain, whether this attempt was begun
            if self._taken:
                raise LeaseLost(self.record.id)
            self._sent = True
        self._inject("before", call)

    def _after_attempt(self, call: Call, attempt: Attempt, will_retry: bool) -> None:
        detail = progress.attempt_detail(call, attempt)
        self._add(ATTEMPT, call.step.name, attempt.number, attempt.status_code, round(attempt.duration_ms, 3), detail)
        if will_retry:
            self._write()  # so that a restart does not begin to count anew; the back-off hides its cost

    def _deadline_passed(self) -> bool:
        deadline = self.record.deadline_at
        return deadline is not None and self._deps.clock() >= deadline

    def _record(
        self,
        event: Event,
        result: Mapping[str, Any] | None = None,
        cause: Mapping[str, Any] | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Apply `event` and make it durable, with the lines that led to it."""
        before, pending, context = self._saga, list(self._pending), self._context
        saga = apply(before, event, result)
        step = before.step.name if before.step else None
        self._add(event, step, detail=progress.event_detail(saga, cause, detail), result=result)
        try:
            self._write(**progress.changes(self.record, before, event, saga, cause))
        except WriteRefused:  # as if it had not happened: whoever asked for it may say it otherwise
            self._saga, self._pending, self._context = before, pending, context
            raise
        self._sent = False

    def _write(self, **changes: Any) -> None:
        deps, now, since = self._deps, self._deps.clock(), self._deps.monotonic()
        with self._writing:
            state = changes.get("state", self.record.state)
            if state in ENDED:
                changes |= {"owner": None, "due_at": None, "ended_at": now}
            elif state in STALLED:
                rounds = changes.get("rounds", self.record.rounds)
                wait = stall_delay(rounds, deps.stall_base, deps.stall_max, deps.random)
                changes |= {"owner": None, "due_at": now + wait}
            else:
                changes |= {"owner": deps.owner, "due_at": now + deps.lease}
            self._advance(changes)
            self._lease_until, self._lease_ends = self.record.due_at or 0.0, since + deps.lease
            self._held = self.record.owner is not None

    def release(self) -> None:
        """Hand the saga over between two calls: whoever claims it finds no call in flight."""
        self._add(RELEASED)
        with self._writing:
            self._held = False
            self._advance({"owner": None, "due_at": self._deps.clock()})

    def _advance(self, changes: Mapping[str, Any]) -> None:
        """Write the row with these changes and the pending lines; what they say is done is written with them, once."""
        try:
            record = self._write_row(changes)
        except Overtaken:  # at most once a saga: an operator's wish to cancel it has been noted meanwhile
            self._number_anew()
            record = self._write_row(changes)
        self.record, self.moved_at = record, self._deps.monotonic()
        written, self._pending = self._pending, []
        for line in written:
            self._deps.observe(record, line)

    def _write_row(self, changes: Mapping[str, Any]) -> Record:
        record = Record(**{**vars(self.record), **changes, "context": self._context})
        answered = {step: record.results[step] for step in record.results.keys() - self.record.results.keys()}
        self._deps.log.advance(record.id, record.epoch, record.present, self._pending, answered)
        return record

    def _number_anew(self) -> None:
        """Read what others have noted in the log, and let the lines to be written follow it."""
        noted = self._deps.log.lines(self.record.id, after=self.record.context.lines)
        self._pending = [replace(line, seq=line.seq + len(noted)) for line in self._pending]
        self._fold_anew(noted)

    def _fold_anew(self, noted: Sequence[Line] = ()) -> None:
        """Fold what others have noted, and the lines to be written, into the row as it was written last."""
        saga, context = progress.saga_of(self.record), self.record.context
        for line in (*noted, *self._pending):
            before, saga = saga, fold(saga, line, self._saga.results)
            context = context.after(line, before, saga)
        self._saga, self._context = saga, context

    def _add(
        self,
        event: str,
        step: str | None = None,
        attempt: int | None = None,
        status_code: int | None = None,
        duration_ms: float | None = None,
        detail: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """A line more for the next write, folded into what the row will say."""
        number, now = self._context.lines + 1, round(self._deps.clock(), 6)
        line = Line(number, now, str(event), step, attempt, status_code, duration_ms, detail)
        before = self._saga
        self._saga = fold(before, line, {} if result is None or step is None else {step: result})
        self._context = self._context.after(line, before, self._saga)
        self._pending.append(line)

    def _inject(self, when: str, call: Call) -> None:
        """The injected crash of the orchestrator, once per saga: the log remembers that it happened."""
        name = progress.fault(when, call, self.record.definition.faults, self._context.faults)
        if name is None:
            return
        self._pending = []  # an answer that is not yet logged is what the crash must lose
        self._saga, self._context = progress.saga_of(self.record), self.record.context
        self._add(FAULT, call.step.name, detail={"fault": name})
        self._write()
        self._deps.exit(17)
