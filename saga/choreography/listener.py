"""The listener of a participant: it receives the events that concern its steps, and does what they ask.

Each delivery of an event is one attempt, so an attempt that a crash interrupts is counted like any other. `decision.py`
decides what to do about a delivery and after an attempt, `step_transactions.py` does it, and the listener returns to
the broker what becomes of the event.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from saga.call import Outcome, Verdict
from saga.choreography import inbox
from saga.choreography.attempt_history import AttemptHistories, AttemptHistory, StepAttempt
from saga.choreography.broker import ACK, Delivery, Reaction
from saga.choreography.decision import (
    Decision,
    after_action,
    after_compensation,
    after_failed_action,
    after_failed_compensation,
    after_giving_up,
    call_to_make,
    decide,
)
from saga.choreography.events import SagaEvent, StepSubscription, Task, parse_event
from saga.choreography.step_transactions import (
    DATABASE_ERRORS,
    CannotCompensate,
    SecretsMissing,
    StepTransactions,
    TransactionDeps,
    error_of,
)
from saga.errors import BadInput
from saga.machine import Direction
from saga.retry import backoff_delay, jittered, stall_delay

logger = logging.getLogger("saga")

# Why a step of an abandoned saga is given up, whatever its earlier attempts did.
ABANDONED = Outcome(Verdict.REFUSED, kind="cancelled", message="abandoned by an operator")


@dataclass(frozen=True, kw_only=True)
class ListenerDeps(TransactionDeps):
    """What a listener needs from outside. Times: seconds."""

    stall_base: float
    stall_max: float
    notify_relay: Callable[[], None]  # called once there are new events in the outbox
    publish_unconfirmed: Callable[[SagaEvent], None]  # publishes an event that may be lost
    random: Callable[[], float] = random.random


class Listener:
    """The handler of one service's events (see broker.Handler); `tasks` says what each subject asks of which step."""

    def __init__(self, tasks: Mapping[str, tuple[StepSubscription, Task]], deps: ListenerDeps):
        self._tasks = tasks
        self._deps = deps
        self._step = StepTransactions(deps)
        self._histories = AttemptHistories()

    def timeout_for(self, subject: str) -> float:
        """Return the time-out of the step that listens to this subject, in seconds."""
        known = self._tasks.get(subject)
        return known[0].step.timeout if known else 1.0

    def ordering_key(self, subject: str, payload: bytes) -> str | None:
        """Return None: events may be handled in any order, since the barrier makes a wrong order harmless."""
        return None

    def handle(self, delivery: Delivery) -> Reaction:
        """Make one attempt at what the event asks."""
        if delivery.subject not in self._tasks:
            return Reaction(park="no saga that is known here listens to it")
        subscription, task = self._tasks[delivery.subject]
        try:
            event = parse_event(delivery.subject, delivery.payload)
        except BadInput as error:
            return Reaction(park=str(error))
        attempt = self._attempt(subscription, event, task, delivery)
        try:
            return self._do(decide(task, attempt, delivery.abandoned), attempt, delivery)
        except inbox.InboxUnreadable as error:
            return Reaction(park=str(error), attempts=attempt.number)

    def on_timeout(self, delivery: Delivery) -> Reaction:
        """Count an attempt that takes longer than the step's time-out as failed; it may still take effect."""
        subscription, task = self._tasks[delivery.subject]
        event = parse_event(delivery.subject, delivery.payload)
        if task is Task.STORE_SECRETS:
            return self._retry(subscription, delivery.number)
        began = self._deps.clock() - subscription.step.timeout
        attempt = replace(self._attempt(subscription, event, task, delivery), began=began)
        message = f"no answer within {subscription.step.timeout:g} s"
        decision = call_to_make(task, attempt)
        if decision is Decision.COMPENSATE:
            return self._compensation_failed(attempt, None, message, certain=False)
        if decision is Decision.GIVE_UP:
            outcome = self._histories.of(event, subscription).outcome()
            error = error_of(outcome.kind, outcome.status_code, outcome.message)
            return self._compensation_failed(attempt.giving_up(began), None, message, certain=False, error=error)
        return self._action_failed(after_failed_action(attempt), attempt, None, message, certain=False, timed_out=True)

    def _attempt(self, subscription: StepSubscription, event: SagaEvent, task: Task, delivery: Delivery) -> StepAttempt:
        direction = Direction.ACTION if task is Task.ACT else Direction.COMPENSATION
        before, deliveries = delivery.before, delivery.number
        first = before + deliveries == 1 or task is Task.STORE_SECRETS
        if not first and not self._histories.knows(event, subscription):
            self._histories.remember(event, subscription, AttemptHistory(interrupted=True))
        number = before + max(1, deliveries - self._histories.of(event, subscription).waits)
        return StepAttempt(subscription, event, direction, number, self._deps.clock(), before)

    def _do(self, decision: Decision, attempt: StepAttempt, delivery: Delivery) -> Reaction:
        if decision is Decision.ACT:
            return self._act(attempt)
        if decision is Decision.COMPENSATE:
            return self._compensate(attempt)
        if decision is Decision.GIVE_UP:
            history = self._histories.of(attempt.event, attempt.subscription)
            return self._give_up(attempt, ABANDONED if delivery.abandoned else history.outcome())
        if decision is Decision.FORWARD:
            return self._pass_on(attempt)
        if decision is Decision.STORE_SECRETS:
            return self._store_secrets(attempt, delivery.number)
        if not delivery.abandoned:
            logger.warning(
                "event_left_alone subject=%s: the saga has a step that is not known here", attempt.event.subject
            )
        return ACK

    def _act(self, attempt: StepAttempt) -> Reaction:
        history = self._histories.of(attempt.event, attempt.subscription)
        try:
            tried = self._step.act(attempt, history)
        except SecretsMissing:  # this delivery is no attempt
            waits = history.waits + 1
            self._histories.remember(attempt.event, attempt.subscription, replace(history, waits=waits))
            return self._retry(attempt.subscription, waits)
        decision = after_action(tried.outcome, attempt)
        if decision is Decision.DONE:
            return self._done(attempt)
        answer = tried.outcome.answer
        if decision is Decision.PARK and answer.status == 422:
            return Reaction(park=str(answer.body["error"]))
        return self._action_failed(decision, attempt, answer.status, tried.message, tried.outcome.certain)

    def _action_failed(
        self,
        decision: Decision,
        attempt: StepAttempt,
        status: int | None,
        message: str,
        certain: bool,
        timed_out: bool = False,
    ) -> Reaction:
        """Report an attempt of an action that failed, and go on as was decided."""
        event, subscription = attempt.event, attempt.subscription
        failed = attempt.failed(status, message, certain, self._deps.clock(), timed_out)
        history = self._histories.of(event, subscription).after(failed)
        self._histories.remember(event, subscription, history)
        self._report(attempt, certain, status, message, stalls=decision in (Decision.STALL, Decision.PARK))
        if decision is Decision.GIVE_UP:
            return self._give_up(attempt, history.outcome())
        return self._again(decision, attempt, message)

    def _give_up(self, attempt: StepAttempt, outcome: Outcome) -> Reaction:
        """Make sure that the step has no effect, and publish `refused`; where it cannot be undone, publish `done`."""
        event, subscription = attempt.event, attempt.subscription
        giving_up = attempt.giving_up(self._deps.clock())
        error = error_of(outcome.kind, outcome.status_code, outcome.message)
        uncertain = self._histories.of(event, subscription).outcome().verdict is Verdict.UNKNOWN
        tried = self._step.give_up(giving_up, error, uncertain)
        decision = after_giving_up(tried.outcome, giving_up)
        if decision is Decision.CONFIRM_DONE:
            try:
                tried = self._step.confirm_done(giving_up, tried.fields)
            except CannotCompensate as reason:
                return Reaction(park=str(reason))
            decision = after_compensation(tried.outcome, giving_up)
        if decision is Decision.DONE:
            return self._done(attempt)
        status, certain = tried.outcome.answer.status, tried.outcome.certain
        return self._compensation_failed(giving_up, status, tried.message, certain, error)

    def _compensate(self, attempt: StepAttempt) -> Reaction:
        """Undo the step, because the step after it has no effect."""
        try:
            tried = self._step.compensate(attempt)
        except CannotCompensate as reason:
            return Reaction(park=str(reason))
        if after_compensation(tried.outcome, attempt) is Decision.DONE:
            return self._done(attempt)
        return self._compensation_failed(attempt, tried.outcome.answer.status, tried.message, tried.outcome.certain)

    def _compensation_failed(
        self,
        attempt: StepAttempt,
        status: int | None,
        message: str,
        certain: bool,
        error: Mapping[str, Any] | None = None,
    ) -> Reaction:
        """Report an attempt of a compensation that failed, and let it be tried again.

        `error`: why the step turns back, where it is its own action that is given up.
        """
        decision = after_failed_compensation(attempt)
        self._report(attempt, certain, status, message, stalls=decision is not Decision.RETRY, error=error)
        return self._again(decision, attempt, message)

    def _again(self, decision: Decision, attempt: StepAttempt, message: str) -> Reaction:
        deps, subscription = self._deps, attempt.subscription
        if decision is Decision.RETRY:
            return self._retry(subscription, attempt.in_round)
        if decision is Decision.STALL:
            return Reaction(again=stall_delay(attempt.rounds, deps.stall_base, deps.stall_max, deps.random))
        self._histories.forget(attempt.event, subscription)  # what follows, once it is replayed, is counted anew
        return Reaction(park=f"{attempt.direction} of {subscription.step.name}: {message}", attempts=attempt.number)

    def _store_secrets(self, attempt: StepAttempt, deliveries: int) -> Reaction:
        sender, fields = attempt.event.body.get("by"), attempt.event.body.get("fields")
        if not isinstance(sender, int) or not isinstance(fields, dict):
            return Reaction(park="by and fields are required")
        try:
            self._step.store_secrets(attempt, sender, fields)
        except DATABASE_ERRORS:
            return self._retry(attempt.subscription, deliveries)
        return ACK

    def _pass_on(self, attempt: StepAttempt) -> Reaction:
        try:
            self._step.pass_on(attempt)
        except DATABASE_ERRORS:
            return self._retry(attempt.subscription, attempt.since)
        return self._done(attempt)

    def _done(self, attempt: StepAttempt) -> Reaction:
        self._histories.forget(attempt.event, attempt.subscription)
        self._deps.notify_relay()
        return ACK

    def _retry(self, subscription: StepSubscription, number: int) -> Reaction:
        return Reaction(again=jittered(backoff_delay(subscription.step.backoff, number), self._deps.random))

    def _report(
        self,
        attempt: StepAttempt,
        certain: bool,
        status: int | None,
        message: str,
        stalls: bool,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell the observer of an attempt that failed; this event may be lost."""
        report = attempt.report("refused" if certain else "unknown", status, self._deps.clock())
        body = {"at": report["at"], **report["attempt"], "message": message, "stalls": stalls, "error": error}
        self._deps.publish_unconfirmed(attempt.subscription.attempt(attempt.event, body))
