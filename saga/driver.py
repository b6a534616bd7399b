"""A driver drives one saga: it asks the machine for the next call, makes it, writes the answer down, and goes on.

The pool of drivers (saga/runtime/driver_pool.py) calls `Driver.next_call` and `Driver.make` in turn, until there is no
next call. What must be durable before what is said at `Driver`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import partial
from typing import Any

from saga import progress
from saga.call import Attempt, CallRequest, DeadlinePassed, Exchange, Outcome, Stopping, Verdict, make_call
from saga.errors import LeaseLost, Overtaken, WriteRefused
from saga.http_client.transport import HttpAnswer, Transport
from saga.lease import Lease
from saga.machine import ATTEMPT, CLAIMED, RELEASED, STALLED, Call, Event, Line, State, next_call
from saga.retry import stall_delay
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.storage.log_writes import Also


def _do_nothing(driver: Driver, call: Call) -> None:
    """Do nothing: the hook of a driver into which no failure is injected."""


@dataclass(frozen=True)
class DriverDeps:
    """What a driver needs from outside. All of it is passed in, so that a test can provide all of it. Times: seconds.

    `clock` tells the time that other processes read, and somebody may set it; what only this process waits for is
    measured by `monotonic`. `observe` is called with every line once it is durable. `before_attempt` and `after_call`
    are hooks for injected failures: the first runs just before each attempt, the second once the answer is there and
    before anything of it is written. `keep(row, exchanges)` returns what is to be written of the bodies that were
    exchanged, in the transaction of the attempts' lines.
    """

    log: SagaLog
    transport: Transport
    owner: str
    clock: Callable[[], float]
    sleep: Callable[[float], Any]
    random: Callable[[], float]
    stopping: Callable[[], bool]
    observe: Callable[[SagaRow, Line], None]
    lease: float = 10.0
    stall_base: float = 1.0
    stall_max: float = 300.0
    token: str | None = None
    monotonic: Callable[[], float] = time.monotonic
    before_attempt: Callable[[Driver, Call], None] = _do_nothing
    after_call: Callable[[Driver, Call], None] = _do_nothing
    keep: Callable[[SagaRow, Sequence[Exchange]], Also] = lambda row, exchanges: ()


@dataclass(frozen=True)
class Claim:
    """How a driver came to a saga that it did not start.

    `interrupted` says that a call may have been under way when its last owner lost it, so that this call counts as
    one more attempt. `why` is the reason in the log of a claim that no crash has led to.
    """

    interrupted: bool
    why: str | None = None


class Phase(Enum):
    """What a driver is doing with its saga."""

    CLAIMED = auto()  # it has claimed the saga, and the log does not say so yet
    READY = auto()  # it is between two calls
    QUEUED = auto()  # its next call waits for a place at the service, and no thread works on it
    CALLING = auto()  # an attempt of its call has begun, and the log does not have the call's event yet
    PREEMPTED = auto()  # another driver of this process has taken the saga away
    GIVEN_UP = auto()  # it has let others claim the saga, though a call may be under way, because the process exits
    RELEASED = auto()  # it holds no lease: the saga has ended, or is stalled, or was handed over between two calls


_HOLDING = frozenset({Phase.CLAIMED, Phase.READY, Phase.QUEUED, Phase.CALLING})


class Driver:
    """One saga in the hands of this process, from its start or a claim until it ends, stalls, or is lost.

    What is durable before what (a write-ahead rule):

    - Before an action is called, the log says that the saga has reached its step. The write that says so is the one
      that holds the answer of the call before; so no line is written before a call unless the cursor has moved, and the
      first call is made right after `SagaLog.begin`.
    - Before the first compensation is called, the log says that the saga has turned back.
    - Before anybody is told of the end, the log says that the saga has ended.

    So the log never shows whether the call at the cursor has been sent. Whoever claims a saga from a driver that has
    vanished counts one more attempt of that call, with an unknown outcome (the line CLAIMED), and makes the call again.

    A driver makes no call once its lease may have ended (saga/lease.py). Another driver may take the saga away at any
    time, by raising its epoch: then this one's next write raises LeaseLost, and it stops.

    One thread at a time works on a driver, with `next_call` and `make`. Other threads may call `renew_when_old`,
    `give_up` and `preempt` meanwhile.
    """

    def __init__(self, row: SagaRow, deps: DriverDeps, claim: Claim | None = None, since: float | None = None):
        """Take the saga in `row` into hand; `claim` says how it came here, None where this process has just started it.

        `since` is when the lease began, or a moment before, by the monotonic clock; by default it is now.
        """
        self.row = row  # the row as it was written last
        self.claim = claim
        self.phase = Phase.CLAIMED if claim else Phase.READY
        self.moved_at = deps.monotonic()  # when it was claimed, or written last
        self.finished = threading.Event()  # is set once nobody need wait for this driver any more
        self._deps = deps
        self._next = row  # the row as the next write makes it,
        self._pending: list[Line] = []  # and the lines that the next write adds,
        self._exchanges: list[Exchange] = []  # with what was exchanged in the attempts among them
        self._lock = threading.Lock()  # a write, a renewal and a preemption must not cross
        began = self.moved_at if since is None else since
        self._lease = Lease(deps.lease, deps.clock, deps.monotonic, row.due_at or 0.0, began)

    # What the pool of drivers does with it

    def next_call(self) -> Call | None:
        """Return the call to make next; None where the saga has ended, is stalled, or was handed over.

        Where the saga was claimed, the claim is first made durable, with the call that it may have interrupted; a
        stalled saga is resumed. An event that could not be written earlier is made durable as well, since no call may
        be made that the log does not lead to. Raises LeaseLost, LogUnavailable, WriteRefused, as `SagaLog.advance`.
        """
        if self.phase is Phase.CLAIMED:
            if self._next.state in STALLED:
                self.record_event(Event.RESUMED)
            else:
                self._log_claim()
                self._write()
        elif self._pending:
            self._write()
        if self.phase in (Phase.GIVEN_UP, Phase.RELEASED):
            return None
        return next_call(self._next.saga)

    def queue(self) -> None:
        """Say that its next call waits for a place at the service, and that no thread works on it meanwhile."""
        with self._lock:
            if self.phase is Phase.READY:
                self.phase = Phase.QUEUED

    def make(self, call: Call) -> None:
        """Make the call, in all its attempts, and write down what came of it.

        Raises LeaseLost where the saga is no longer this driver's, and LogUnavailable where nothing could be written.
        """
        deps, request = self._deps, self._request(call)
        answers: list[HttpAnswer] = []
        try:
            outcome = make_call(
                request,
                deps.transport,
                sleep=deps.sleep,
                random=deps.random,
                clock=deps.clock,
                before_attempt=partial(self._before_attempt, call),
                on_answer=answers.append,
                after_attempt=partial(self._after_attempt, call, request, answers),
            )
        except Stopping:
            self.release()
            return
        except DeadlinePassed:
            event, cause = progress.overdue(call)
            self.record_event(event, cause)
            return
        deps.after_call(self, call)
        late = self._deadline_passed()
        event, cause = progress.answered(self._next.saga, call, outcome, late)
        try:
            self.record_event(event, cause, result=outcome.result)
        except WriteRefused as error:
            outcome = self._without_result(outcome, error)
            event, cause = progress.answered(self._next.saga, call, outcome, late)
            self.record_event(event, cause)

    def _request(self, call: Call) -> CallRequest:
        calls, sealing = self._next.context.calls, self._next.state is State.SEALING
        span = f"{1 + int(self._deps.random() * (2**64 - 2)):016x}"
        return progress.request(self.row.id, call, calls, sealing, span, self._deps.token)

    def _before_attempt(self, call: Call, number: int) -> None:
        """Check that the attempt may still be made, and note that it is under way.

        Raises Stopping, DeadlinePassed or LeaseLost where it may not be made; each of them ends the call.
        """
        deps = self._deps
        if deps.stopping():
            raise Stopping
        if self._lease.ended:
            raise LeaseLost(self.row.id)  # another driver may have claimed the saga
        if self._lease.looks_ended:
            self.renew_when_old()  # raises LeaseLost where another driver has claimed the saga by its clock
        if self._next.state is State.EXECUTING and self._deadline_passed():
            raise DeadlinePassed
        with self._lock:  # whoever preempts is told, for certain, whether this attempt has begun
            if self.phase in (Phase.PREEMPTED, Phase.GIVEN_UP):
                raise LeaseLost(self.row.id)
            self.phase = Phase.CALLING
        deps.before_attempt(self, call)

    def _after_attempt(
        self, call: Call, request: CallRequest, answers: list[HttpAnswer], attempt: Attempt, will_retry: bool
    ) -> None:
        self._exchanges.append(Exchange(self._number, request, attempt, answers.pop()))
        self._add(progress.attempt_line(self._number, self._now(), call, attempt))
        if will_retry:
            self._write()  # so that a restart goes on counting; the wait before the next attempt hides what it costs

    def _deadline_passed(self) -> bool:
        deadline = self.row.deadline_at
        return deadline is not None and self._deps.clock() >= deadline

    def _without_result(self, outcome: Outcome, error: WriteRefused) -> Outcome:
        """Return what is known of a call whose answer the log cannot store: that it may have had its effect.

        So the saga turns back, or stalls, with this as its cause, and does not make the call over and over.
        """
        message = f"the result cannot be stored: {error}"
        last = self._pending[-1] if self._pending else None
        if last and last.event == ATTEMPT:
            detail = {**last.facts, "verdict": Verdict.UNKNOWN, "message": message}
            self._pending[-1] = replace(last, detail=detail)
            self._fold_again()
        return Outcome(Verdict.UNKNOWN, None, outcome.status_code, "failed", message)

    # What is made durable

    def record_event(
        self,
        event: Event,
        cause: progress.Cause | None = None,
        detail: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> None:
        """Apply an event and make it durable, together with the lines that led to it.

        Raises WriteRefused where the log cannot store what the event says. Then the event has not happened, and the
        caller may say it otherwise.
        """
        self._log_claim()
        row, pending = self._next, list(self._pending)
        self._next, line = progress.after_event(row, event, self._now(), result, cause, detail)
        self._pending.append(line)
        try:
            self._write()
        except WriteRefused:
            self._next, self._pending, self._exchanges = row, pending, []
            raise
        with self._lock:
            if self.phase is Phase.CALLING:
                self.phase = Phase.READY

    def add_line(self, event: str, detail: Mapping[str, Any] | None = None) -> None:
        """Make a line durable that moves nothing; it names the step at the cursor."""
        self._log_claim()
        step = self._next.saga.step
        self._add(Line(self._number, self._now(), event, step.name if step else None, detail=detail))
        self._write()

    def discard_unwritten(self) -> None:
        """Forget the lines that are not written yet, as a crash at this moment would."""
        self._next, self._pending, self._exchanges = self.row, [], []

    def release(self) -> None:
        """Hand the saga over between two calls: whoever claims it finds no call under way."""
        self._add(Line(self._number, self._now(), RELEASED))
        with self._lock:
            self.phase = Phase.RELEASED
            self._next = replace(self._next, owner=None, due_at=self._deps.clock())
            self._write_row()

    def _log_claim(self) -> None:
        """Add a line that says who has the saga now, once.

        A stalled saga needs none, because no call of it was under way.
        """
        with self._lock:  # whoever preempts finds the claim in the phase, or among the pending lines
            claim = self.claim if self.phase is Phase.CLAIMED else None
            if claim is None:
                return
            self.phase = Phase.READY
            if self._next.state in STALLED:
                return
            row = self.row
            why = {"why": claim.why} if claim.why else {}
            detail = {"by": row.owner, "epoch": row.epoch, "interrupted": claim.interrupted, **why}
            self._add(Line(self._number, self._now(), CLAIMED, detail=detail))

    @property
    def _number(self) -> int:
        return self._next.context.lines + 1  # of the next line

    def _now(self) -> float:
        return round(self._deps.clock(), 6)  # as the log keeps it

    def _add(self, line: Line) -> None:
        self._next = self._next.after(line)
        self._pending.append(line)

    def _write(self) -> None:
        """Write the row and the pending lines, which prolongs the lease, or ends it where the saga moves no more."""
        deps, now, since = self._deps, self._deps.clock(), self._deps.monotonic()

        def rest(rounds: int) -> tuple[str | None, float | None]:
            return None, now + stall_delay(rounds, deps.stall_base, deps.stall_max, deps.random)

        with self._lock:
            self._next = progress.with_due_time(
                self._next, now, owner=deps.owner, due_at=now + deps.lease, stalled=rest
            )
            self._write_row()
            self._lease.prolong(self.row.due_at or 0.0, since)
            if self.row.owner is None:
                self.phase = Phase.RELEASED
            elif self.phase is Phase.GIVEN_UP:  # nobody has claimed it yet
                self.phase = Phase.CALLING

    def _write_row(self) -> None:
        """Write the row as it is to be, with the pending lines and the results that they speak of.

        Where a line was added beside this driver (`SagaLog.add_line`), the pending lines are numbered after it.
        """
        try:
            self._advance()
        except Overtaken:  # at most once a saga, since it can be cancelled once
            added = self._deps.log.lines(self.row.id, after=self.row.context.lines)
            self._pending = [replace(line, seq=line.seq + len(added)) for line in self._pending]
            self._exchanges = [replace(each, line=each.line + len(added)) for each in self._exchanges]
            self._fold_again(added)
            self._advance()
        self.row, self.moved_at = self._next, self._deps.monotonic()
        written, self._pending, self._exchanges = self._pending, [], []
        for line in written:
            self._deps.observe(self.row, line)

    def _advance(self) -> None:
        row, done = self._next, self._next.results.keys() - self.row.results.keys()
        answers = {step: row.results[step] for step in done}
        also = self._deps.keep(row, self._exchanges) if self._exchanges else ()
        self._deps.log.advance(row.id, row.epoch, row.present, self._pending, answers, also=also)

    def _fold_again(self, added: Sequence[Line] = ()) -> None:
        """Fold what others have added, and the pending lines after it, into the row as it was written last."""
        row = self.row
        for line in (*added, *self._pending):
            row = row.after(line, self._next.results.get(line.step or ""))
        self._next = replace(self._next, context=row.context)

    # The lease

    @property
    def holds(self) -> bool:
        """Whether nobody else may drive the saga now, whatever the clock says."""
        return self.phase in _HOLDING and not self._lease.ended

    def renew_when_old(self) -> None:
        """Prolong the lease once a third of it is gone, or the clock was set by as much.

        The thread that keeps the leases calls this while calls are under way. Raises LeaseLost, LogUnavailable.
        """
        deps = self._deps
        with self._lock:
            if self.phase in _HOLDING and self._lease.is_old:
                due_at, since = deps.clock() + deps.lease, deps.monotonic()
                deps.log.renew(self.row.id, self.row.epoch, due_at)
                self._lease.prolong(due_at, since)

    def give_up(self) -> None:
        """End the lease in the middle of a call, because the process exits: another may claim the saga at once."""
        with self._lock:
            if self.phase in _HOLDING:
                self.phase = Phase.GIVEN_UP
                self._deps.log.let_go(self.row.id, self.row.epoch, self._deps.clock())

    def preempt(self) -> bool:
        """Stop for another driver of this process, which has taken the saga away: make no further attempt.

        Returns whether a call may be under way. That is certain of this driver's own; it is also so where the claim of
        this driver may have interrupted one, and the log does not say so yet.
        """
        with self._lock:
            interrupted = self.claim is not None and self.claim.interrupted
            unlogged = self.phase is Phase.CLAIMED or any(line.event == CLAIMED for line in self._pending)
            calling = self.phase in (Phase.CALLING, Phase.GIVEN_UP) or (interrupted and unlogged)
            self.phase = Phase.PREEMPTED
            return calling
