"""A participant's listener: hears the events that concern its steps, and does what they ask, once.

Every attempt is one delivery of the event, so that a crash in the middle of one is an attempt like any other. An
attempt that fails is delivered again after a back-off; an action whose attempts are used up is sealed, or undone, in
the transaction that says so; a compensation is tried for as long as it takes, and parked only after many rounds.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jsonschema import Draft202012Validator
from sqlalchemy.exc import SQLAlchemyError

from saga.barrier import TOO_LATE, AlsoWrite, BarrierState, Key, StepAnswer, Transaction
from saga.choreography import inbox, outbox
from saga.choreography.attempt_history import Attempt, AttemptHistories, AttemptHistory
from saga.choreography.broker import ACK, Delivery, Reaction
from saga.choreography.events import SagaEvent, StepSubscription, Task, parse_event
from saga.errors import BadInput, Forbidden, OutcomeUnknown
from saga.local_transaction import (
    KEPT,
    NO_HOOKS,
    AttemptHooks,
    LocalOutcome,
    LocalTransactions,
    failure_message,
    log_failure,
)
from saga.machine import Direction
from saga.payload import check_fields, digest
from saga.retry import backoff_delay, jittered, stall_delay
from saga.storage.statement_batch import Row, Statement

logger = logging.getLogger("saga")

ROUNDS = 10  # of a call that must succeed: then its event is parked
GIVEN_WITHIN = 1.0  # seconds that an action waits for its secrets, which were published before what asks for it
LOOK = 0.01  # seconds

News = Sequence[tuple[Statement, Sequence[Row]]]


@dataclass(frozen=True)
class ListenerDeps:
    """What a listener needs from outside. Times: seconds."""

    transactions: LocalTransactions
    schema: Draft202012Validator
    secret: Sequence[str]
    stall_base: float
    stall_max: float
    notify: Callable[[], None]  # there is news in the outbox
    publish_unconfirmed: Callable[[SagaEvent], None]  # of an event that may be lost
    closed: threading.Event
    clock: Callable[[], float] = time.time
    random: Callable[[], float] = random.random
    monotonic: Callable[[], float] = time.monotonic


class Listener:
    """Handles the events of one service; `heard` says which, and what each asks."""

    def __init__(self, heard: Mapping[str, tuple[StepSubscription, Task]], deps: ListenerDeps):
        self._heard = heard
        self._deps = deps
        self._engine = deps.transactions.engine
        self._histories = AttemptHistories()

    def timeout_for(self, subject: str) -> float:
        """The step's time-out."""
        heard = self._heard.get(subject)
        return heard[0].step.timeout if heard else 1.0

    def ordering_key(self, subject: str, payload: bytes) -> str | None:
        """Its events wait for no other: what they find is up to the barrier."""
        return None

    def handle(self, delivery: Delivery) -> Reaction:
        """One attempt at what the event asks."""
        heard = self._heard.get(delivery.subject)
        if heard is None:
            return Reaction(park="no saga that is known here listens to it")
        part, duty = heard
        try:
            event = parse_event(delivery.subject, delivery.payload)
        except BadInput as error:
            return Reaction(park=str(error))
        if duty is Task.STORE_SECRETS:
            return self._keep(part, event, delivery.number)
        attempt = self._attempt(part, event, duty, delivery)
        try:
            return self._abandon(attempt) if delivery.abandoned else self._do(attempt, duty)
        except inbox.Unreadable as error:
            return Reaction(park=str(error), attempts=attempt.number)

    def _do(self, attempt: Attempt, duty: Task) -> Reaction:
        part, event = attempt.part, attempt.event
        if not part.knows(event):
            return self._let_pass(attempt)
        if duty is Task.COMPENSATE:
            return self._undo(attempt)
        if not part.is_next(event):
            logger.warning("event_left_alone subject=%s: the saga has a step that is not known here", event.subject)
            return ACK
        if attempt.since > attempt.limit and part.may_refuse:
            past = self._histories.of(event, part)
            return self._give_up(attempt, past.kind(past.status), past.status, past.message)
        return self._act(attempt)

    def on_timeout(self, delivery: Delivery) -> Reaction:
        """The attempt has outlasted the step's time-out: whether it will take effect is not known."""
        part, duty = self._heard[delivery.subject]
        event = parse_event(delivery.subject, delivery.payload)
        if duty is Task.STORE_SECRETS:
            return Reaction(again=self._pause(part, delivery.number))
        began = self._deps.clock() - part.step.timeout
        attempt = replace(self._attempt(part, event, duty, delivery), began=began)
        message = f"no answer within {part.step.timeout:g} s"
        if duty is Task.ACT and (attempt.since <= attempt.limit or not part.may_refuse):
            return self._failed(attempt, "timeout", None, message, certain=False)
        past = self._histories.of(event, part)
        error = None if duty is Task.COMPENSATE else _error(past.kind(past.status), past.status, past.message)
        undoing = attempt if duty is Task.COMPENSATE else attempt.undoing(began)
        return self._not_undone(undoing, None, message, certain=False, error=error)

    def _attempt(self, part: StepSubscription, event: SagaEvent, duty: Task, delivery: Delivery) -> Attempt:
        direction = Direction.ACTION if duty is Task.ACT else Direction.COMPENSATION
        before, deliveries = delivery.before, delivery.number
        if before + deliveries > 1 and (event, part) not in self._histories:
            self._histories.remember(
                event, part, AttemptHistory(uncertain=True)
            )  # by another process, or before a crash
        number = before + max(1, deliveries - self._histories.of(event, part).waits)
        return Attempt(part, event, direction, number, self._deps.clock(), before)

    def _abandon(self, attempt: Attempt) -> Reaction:
        """An operator has ended the saga before this step was heard of: it never acts."""
        if not attempt.part.knows(attempt.event):
            return ACK
        return self._give_up(attempt, "cancelled", None, "abandoned by an operator")

    def _keep(self, part: StepSubscription, event: SagaEvent, deliveries: int) -> Reaction:
        giver, fields = event.body.get("by"), event.body.get("fields")
        if not isinstance(giver, int) or not isinstance(fields, dict):
            return Reaction(park="by and fields are required")
        try:
            outbox.put(self._engine, *inbox.remembered(self._engine, event.saga_id, part.step.name, giver, fields))
        except (SQLAlchemyError, OutcomeUnknown):
            return Reaction(again=self._pause(part, deliveries))
        return ACK

    def _let_pass(self, attempt: Attempt) -> Reaction:
        """The saga began before this step was added: who listens to it now is told what it was told."""
        part, event, news = attempt.part, attempt.event, {"at": self._deps.clock()}
        going_on = attempt.direction is Direction.ACTION
        passed = part.done(event, {}, news, {}) if going_on else part.undone(event, news)
        try:
            outbox.put(self._engine, *outbox.written(passed, self._engine))
        except (SQLAlchemyError, OutcomeUnknown):
            return Reaction(again=self._pause(part, attempt.since))
        return self._well(event, part)

    def _act(self, attempt: Attempt) -> Reaction:
        part, event = attempt.part, attempt.event
        try:
            given = self._given(part, event)
            if given is None:
                past = self._histories.of(event, part)
                self._histories.remember(event, part, replace(past, waits=past.waits + 1))
                return Reaction(again=self._pause(part, past.waits + 1))
            fields = part.fields(event, given)
            hooks = self._hooks(attempt)
            check_fields(self._deps.schema, fields, {*self._deps.secret, *part.definition.secret})
            key = Key(event.saga_id, part.step.name, digest(fields))
            outcome = self._deps.transactions.act(key, fields, hooks, self._news_of_action(attempt, fields))
            _log(outcome)
        except (BadInput, Forbidden) as error:
            status = 400 if isinstance(error, BadInput) else 403
            if part.may_refuse:
                self._report(attempt, "refused", status, str(error), stalls=False)
                kind = self._histories.of(event, part).kind(status)
                return self._give_up(attempt, kind, status, str(error))
            return self._failed(attempt, "refused", status, str(error), certain=True)
        except inbox.Unreadable:
            raise
        except Exception as error:
            return self._failed(attempt, "failed", 500, _said(error), certain=not isinstance(error, OutcomeUnknown))
        answer = outcome.answer
        if answer.status == 422:
            return Reaction(park=str(answer.body["error"]))
        ended = answer is TOO_LATE or (answer.status == 409 and part.may_refuse)
        if ended or (answer.status == 200 and outcome.garbled is None):
            return self._well(event, part)
        message = "an answer that is not a JSON object" if outcome.garbled is not None else str(answer.body["error"])
        message = part.shown(message, fields)
        return self._failed(attempt, "failed", answer.status, message, outcome.certain)

    def _news_of_action(self, attempt: Attempt, fields: Mapping[str, Any]) -> AlsoWrite:
        part, event = attempt.part, attempt.event

        def news(answer: StepAnswer) -> News:
            told = attempt.told("done" if answer.status == 200 else "refused", answer.status, self._deps.clock())
            if answer.status == 200:
                return self._acted(attempt, answer.body, fields, told)
            if answer is TOO_LATE or answer.status != 409 or not part.may_refuse:
                return ()
            # The barrier row is this service's own: it knows what became of an attempt that a crash has interrupted.
            past = self._histories.of(event, part)
            error = _error(
                replace(past, uncertain=past.timed_out).kind(409), 409, part.shown(str(answer.body["error"]), fields)
            )
            told["attempt"]["message"] = error["message"]
            return outbox.written(part.refused(event, {**told, "error": error, "uncertain": False}), self._engine)

        return news

    def _acted(
        self, attempt: Attempt, result: Mapping[str, Any], fields: Mapping[str, Any], told: Mapping[str, Any]
    ) -> News:
        """What is written once its action has taken effect: what it acted with, and the events."""
        part, event = attempt.part, attempt.event
        own = inbox.remembered(self._engine, event.saga_id, part.step.name, inbox.OWN, fields)
        return [*own, *outbox.written(part.done(event, result, told, fields), self._engine)]

    def _failed(self, attempt: Attempt, kind: str, status: int | None, message: str, certain: bool) -> Reaction:
        """An attempt of an action has failed."""
        part, event = attempt.part, attempt.event
        past = self._histories.of(event, part)
        uncertain, timed_out = past.uncertain or not certain, past.timed_out or kind == "timeout"
        past = AttemptHistory(past.waits, uncertain, timed_out, status, message)
        self._histories.remember(event, part, past)
        in_round = attempt.since % attempt.limit
        stalls = not in_round and not part.may_refuse
        self._report(attempt, "refused" if certain else "unknown", status, message, stalls)
        if in_round:
            return Reaction(again=self._pause(part, in_round))
        if part.may_refuse:
            return self._give_up(attempt, past.kind(status), status, message)
        return self._rest(attempt, message)

    def _give_up(self, attempt: Attempt, kind: str, status: int | None, message: str) -> Reaction:
        """See to it that the step has no effect, and say so, in one transaction; where it cannot be undone, go on."""
        part, event, step = attempt.part, attempt.event, attempt.part.step
        undoing, error = attempt.undoing(self._deps.clock()), _error(kind, status, message)
        past = self._histories.of(event, part)
        uncertain = kind != "refused" and past.uncertain

        def news(answer: StepAnswer) -> News:
            told = undoing.told("done", answer.status, self._deps.clock())
            body = {**told, "error": error, "uncertain": uncertain}
            return outbox.written(part.refused(event, body), self._engine)

        def has_acted(transaction: Transaction) -> bool:
            return inbox.has_acted(transaction.execute, event.saga_id, step.name)

        try:
            given = inbox.recall(self._engine, event.saga_id, step.name)
            if inbox.OWN in given:  # one of its attempts has succeeded and told so: others act on it
                return self._well(event, part)
            fields = part.fields(event, given.values())
            key = Key(event.saga_id, step.name, digest(fields))
            hooks = self._hooks(undoing) if uncertain else NO_HOOKS
            outcome = self._compensated(part, key, fields, hooks, news, has_acted)
            if outcome.answer is KEPT:
                return self._well(event, part)
            if outcome.answer.status == 409:  # it has committed, and cannot be undone
                return self._done_after_all(attempt, undoing, fields)
        except inbox.Unreadable:
            raise
        except Exception as failure:
            return self._not_undone(undoing, 500, _said(failure), not isinstance(failure, OutcomeUnknown), error)
        answer = outcome.answer
        if answer.status == 200:
            return self._well(event, part)
        message = part.shown(str(answer.body["error"]), fields)
        return self._not_undone(undoing, answer.status, message, outcome.certain, error)

    def _done_after_all(self, attempt: Attempt, undoing: Attempt, fields: Mapping[str, Any]) -> Reaction:
        part, event = attempt.part, attempt.event
        state, response = self._deps.transactions.saved(event.saga_id, part.step.name) or (None, {})
        if state is not BarrierState.APPLIED:
            return Reaction(park=f"its barrier row is {state}, and its compensation refused")
        told = {**undoing.told("refused", 409, self._deps.clock()), "in_doubt": True}
        outbox.put(self._engine, *self._acted(undoing, response, fields, told))
        return self._well(event, part)

    def _undo(self, attempt: Attempt) -> Reaction:
        """The step after it has no effect: neither may this one."""
        part, event, step = attempt.part, attempt.event, attempt.part.step
        try:
            if step.compensation is None and not step.unsaid:
                undone = part.undone(event, {"at": self._deps.clock()})
                outbox.put(self._engine, *outbox.written(undone, self._engine))
                return self._well(event, part)
            if step.compensation is None:
                return Reaction(park=f"nobody can undo {step.name}: its definition has no compensation")
            fields = inbox.recall(self._engine, event.saga_id, step.name).get(inbox.OWN)
            if fields is None:
                return Reaction(park="this step has not acted: there is nothing known that it could undo")
            key = Key(event.saga_id, step.name, digest(fields))

            def news(answer: StepAnswer) -> News:
                told = attempt.told("done", answer.status, self._deps.clock())
                return outbox.written(part.undone(event, told), self._engine) if answer.status == 200 else ()

            outcome = self._compensated(part, key, fields, self._hooks(attempt), news)
        except inbox.Unreadable:
            raise
        except Exception as error:
            return self._not_undone(attempt, 500, _said(error), certain=not isinstance(error, OutcomeUnknown))
        if outcome.answer.status == 200:
            return self._well(event, part)
        message = part.shown(str(outcome.answer.body["error"]), fields)
        return self._not_undone(attempt, outcome.answer.status, message, outcome.certain)

    def _compensated(
        self,
        part: StepSubscription,
        key: Key,
        fields: Mapping[str, Any],
        hooks: AttemptHooks,
        news: AlsoWrite,
        unless: Callable[[Transaction], bool] = lambda transaction: False,
    ) -> LocalOutcome:
        can_undo = part.step.compensation is not None
        outcome = self._deps.transactions.compensate(key, fields, hooks, news, can_undo, unless)
        _log(outcome)
        return outcome

    def _not_undone(
        self,
        attempt: Attempt,
        status: int | None,
        message: str,
        certain: bool,
        error: Mapping[str, Any] | None = None,
    ) -> Reaction:
        """An attempt of a compensation has failed: another, for as long as it takes. `error`: why it turned back."""
        in_round = attempt.since % attempt.limit
        self._report(attempt, "refused" if certain else "unknown", status, message, not in_round, error)
        return Reaction(again=self._pause(attempt.part, in_round)) if in_round else self._rest(attempt, message)

    def _rest(self, attempt: Attempt, message: str) -> Reaction:
        deps, round = self._deps, attempt.since // attempt.limit
        if round >= ROUNDS:
            self._histories.forget(attempt.event, attempt.part)  # what follows, once it is replayed, is counted anew
            why = f"{attempt.direction} of {attempt.part.step.name}: {message}"
            return Reaction(park=why, attempts=attempt.number)
        return Reaction(again=stall_delay(round, deps.stall_base, deps.stall_max, deps.random))

    def _well(self, event: SagaEvent, part: StepSubscription) -> Reaction:
        self._histories.forget(event, part)
        self._deps.notify()
        return ACK

    def _given(self, part: StepSubscription, event: SagaEvent) -> list[Mapping[str, Any]] | None:
        """The secrets that it was given, in the order of their senders; None where some are not here yet."""
        senders = part.senders(event)
        until = self._deps.monotonic() + GIVEN_WITHIN
        while senders:
            known = inbox.recall(self._engine, event.saga_id, part.step.name)
            if all(giver in known for giver in senders):
                return [known[giver] for giver in senders]
            if self._deps.monotonic() > until or self._deps.closed.wait(LOOK):
                return None
        return []

    def _hooks(self, attempt: Attempt) -> AttemptHooks:
        """The hooks around this attempt, once its injected delay is over. Raises BadInput or Forbidden for a flag."""
        hooks = self._deps.transactions.find_hooks(attempt.flags, attempt.number)
        hooks.before()
        return hooks

    def _report(
        self,
        attempt: Attempt,
        verdict: str,
        status: int | None,
        message: str,
        stalls: bool,
        error: Mapping[str, Any] | None = None,
    ) -> None:
        told = attempt.told(verdict, status, self._deps.clock())
        line = {**told["attempt"], "message": message}
        news = {"at": told["at"], **line, "stalls": stalls, "error": error}
        self._deps.publish_unconfirmed(attempt.part.attempt(attempt.event, news))

    def _pause(self, part: StepSubscription, number: int) -> float:
        return jittered(backoff_delay(part.step.backoff, number), self._deps.random)


def _error(kind: str, status: int | None, message: str) -> dict[str, Any]:
    return {"kind": kind, "status_code": status, "message": message}


def _said(error: Exception) -> str:
    """What is told of an unexpected error: as over HTTP."""
    if isinstance(error, OutcomeUnknown | BadInput | Forbidden):
        return str(error)
    log_failure("event_failed", error)
    return failure_message(error)


def _log(outcome: LocalOutcome) -> None:
    if outcome.error is not None:
        log_failure("event_failed", outcome.error)
