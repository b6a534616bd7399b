"""The local transactions of a choreographed step: each writes its change and the events about it, or nothing.

Every attempt ends in a Tried. What cannot be tried yet, or never, raises SecretsMissing or CannotCompensate.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jsonschema import Draft202012Validator
from sqlalchemy.exc import SQLAlchemyError

from saga.barrier import TOO_LATE, AlsoWrite, BarrierState, Handled, Key, StepAnswer, Transaction
from saga.choreography import inbox, outbox
from saga.choreography.attempt_history import AttemptHistory, StepAttempt
from saga.choreography.events import SagaEvent, StepSubscription
from saga.errors import BadInput, Forbidden, OutcomeUnknown
from saga.local_transaction import (
    ACTION_STAYS,
    NO_HOOKS,
    AttemptHooks,
    LocalOutcome,
    LocalTransactions,
    failure_message,
    log_failure,
)
from saga.machine import Direction
from saga.payload import check_fields, digest
from saga.storage.statement_batch import Row, Statement

SECRETS_WITHIN = 1.0  # seconds that an action waits for its secrets, which were published before what asks for it
WAIT_LOOK_EVERY = 0.01  # seconds between two looks for them

# What has no effect where the database raises it, and may be tried again.
DATABASE_ERRORS = (SQLAlchemyError, OutcomeUnknown)

Writes = Sequence[tuple[Statement, Sequence[Row]]]


class SecretsMissing(Exception):
    """The secrets of a step have not been delivered yet; its event is to be delivered again."""


class CannotCompensate(Exception):
    """Nobody can undo the step before somebody has mended something: its event is parked, for this reason."""


@dataclass(frozen=True, kw_only=True)
class TransactionDeps:
    """What the transactions need from outside. Times: seconds."""

    transactions: LocalTransactions
    schema: Draft202012Validator
    secret: Sequence[str]  # the names of fields whose values no message may show
    closed: threading.Event  # set when the service stops
    clock: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


@dataclass(frozen=True)
class Tried:
    """How one attempt ended; `message` says why it failed, with its secrets masked."""

    outcome: LocalOutcome
    message: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)  # that the call got


class StepTransactions:
    """Tries the actions and compensations of one service.

    All raise inbox.InboxUnreadable where what the step remembers of the saga is broken.
    """

    def __init__(self, deps: TransactionDeps):
        self._deps = deps
        self._transactions = deps.transactions
        self._engine = deps.transactions.engine

    def act(self, attempt: StepAttempt, history: AttemptHistory) -> Tried:
        """Try the action; a `done` or `refused` is written in its transaction. Raises SecretsMissing."""
        subscription, event = attempt.subscription, attempt.event
        secret = {*self._deps.secret, *subscription.definition.secret}
        try:
            fields = subscription.fields(event, self._secrets(subscription, event))
            hooks = self._hooks(attempt)
            check_fields(self._deps.schema, fields, secret)
        except (BadInput, Forbidden) as error:
            status = 400 if isinstance(error, BadInput) else 403
            return _failed(status, str(error))
        except DATABASE_ERRORS as error:
            return _database_failed(error)
        also_write = self._after_action(attempt, history, fields)
        outcome = _logged(self._transactions.act(_key(attempt, fields), fields, hooks, also_write))
        if outcome.garbled is not None:
            return Tried(outcome, "an answer that is not a JSON object")
        return _tried(outcome, attempt, fields)

    def give_up(self, giving_up: StepAttempt, error: Mapping[str, Any], uncertain: bool) -> Tried:
        """Seal the step, or undo an action that may have taken effect, and write `refused` in the same transaction.

        `error` says why; `uncertain`: an attempt may have taken effect. The outcome is ACTION_STAYS where `done` is
        written already, and a 409 where the action has taken effect and has no compensation.
        """
        subscription, event = giving_up.subscription, giving_up.event

        def also_write(answer: StepAnswer) -> Writes:
            report = giving_up.report("done", answer.status, self._deps.clock())
            body = {**report, "error": error, "uncertain": uncertain}
            return outbox.written(subscription.refused(event, body), self._engine)

        def is_done(transaction: Transaction) -> bool:
            return inbox.has_acted(transaction.execute, event.saga_id, subscription.step.name)

        try:
            known = inbox.recall(self._engine, event.saga_id, subscription.step.name)
            if inbox.OWN in known:
                return Tried(LocalOutcome(ACTION_STAYS, certain=True))
            fields = subscription.fields(event, known.values())
            hooks = self._hooks(giving_up) if uncertain else NO_HOOKS
        except (BadInput, Forbidden) as failure:
            return _failed(500, str(failure))
        except DATABASE_ERRORS as failure:
            return _database_failed(failure)
        return self._compensated(giving_up, fields, hooks, also_write, is_done)

    def confirm_done(self, giving_up: StepAttempt, fields: Mapping[str, Any]) -> Tried:
        """Write `done` for an action that had taken effect and cannot be undone, with the answer it gave.

        Raises CannotCompensate where the barrier row does not say so.
        """
        subscription, event = giving_up.subscription, giving_up.event
        try:
            state, response = self._transactions.saved(event.saga_id, subscription.step.name) or (None, {})
            if state is not BarrierState.APPLIED:
                raise CannotCompensate(f"its barrier row is {state}, and its compensation refused")
            report = {**giving_up.report("refused", 409, self._deps.clock()), "in_doubt": True}
            outbox.put(self._engine, *self._done(giving_up, response, fields, report))
        except DATABASE_ERRORS as failure:
            return _database_failed(failure)
        return _DONE

    def compensate(self, attempt: StepAttempt) -> Tried:
        """Try the compensation, and write `undone` in its transaction. Raises CannotCompensate."""
        subscription, event, step = attempt.subscription, attempt.event, attempt.subscription.step
        try:
            if step.compensation is None and not step.unsaid:
                undone = subscription.undone(event, {"at": self._deps.clock()})
                outbox.put(self._engine, *outbox.written(undone, self._engine))
                return _DONE
            if step.compensation is None:
                raise CannotCompensate(f"nobody can undo {step.name}: its definition has no compensation")
            fields = inbox.recall(self._engine, event.saga_id, step.name).get(inbox.OWN)
            if fields is None:
                raise CannotCompensate("this step has not acted: there is nothing known that it could undo")
            hooks = self._hooks(attempt)
        except (BadInput, Forbidden) as error:
            return _failed(500, str(error))
        except DATABASE_ERRORS as error:
            return _database_failed(error)

        def also_write(answer: StepAnswer) -> Writes:
            report = attempt.report("done", answer.status, self._deps.clock())
            return outbox.written(subscription.undone(event, report), self._engine) if answer.status == 200 else ()

        return self._compensated(attempt, fields, hooks, also_write)

    def pass_on(self, attempt: StepAttempt) -> None:
        """Write what this step's neighbour listens to, for a saga that began before this step was added to it.

        Raises DATABASE_ERRORS.
        """
        subscription, event, body = attempt.subscription, attempt.event, {"at": self._deps.clock()}
        forward = attempt.direction is Direction.ACTION
        events = subscription.done(event, {}, body, {}) if forward else subscription.undone(event, body)
        outbox.put(self._engine, *outbox.written(events, self._engine))

    def store_secrets(self, attempt: StepAttempt, sender: int, fields: Mapping[str, Any]) -> None:
        """Remember the secrets that `sender` has given to this step. Raises DATABASE_ERRORS."""
        step = attempt.subscription.step.name
        outbox.put(self._engine, *inbox.remembered(self._engine, attempt.event.saga_id, step, sender, fields))

    def _after_action(self, attempt: StepAttempt, history: AttemptHistory, fields: Mapping[str, Any]) -> AlsoWrite:
        """Return what writes `done` in the action's transaction; or `refused`, where the saga can still turn back."""
        subscription, event = attempt.subscription, attempt.event

        def also_write(answer: StepAnswer) -> Writes:
            report = attempt.report("done" if answer.status == 200 else "refused", answer.status, self._deps.clock())
            if answer.status == 200:
                return self._done(attempt, answer.body, fields, report)
            if answer is TOO_LATE or answer.status != 409 or not subscription.may_refuse:
                return ()
            message = subscription.shown(str(answer.body["error"]), fields)
            report["attempt"]["message"] = message
            error = error_of(history.refusal_kind(409), 409, message)
            refused = subscription.refused(event, {**report, "error": error, "uncertain": False})
            return outbox.written(refused, self._engine)

        return also_write

    def _done(
        self, attempt: StepAttempt, result: Mapping[str, Any], fields: Mapping[str, Any], report: Mapping[str, Any]
    ) -> Writes:
        """Return what is written once an action has taken effect: the fields that it acted with, and the events."""
        subscription, event = attempt.subscription, attempt.event
        own = inbox.remembered(self._engine, event.saga_id, subscription.step.name, inbox.OWN, fields)
        return [*own, *outbox.written(subscription.done(event, result, report, fields), self._engine)]

    def _compensated(
        self,
        attempt: StepAttempt,
        fields: Mapping[str, Any],
        hooks: AttemptHooks,
        also_write: AlsoWrite,
        unless: Callable[[Transaction], bool] = lambda transaction: False,
    ) -> Tried:
        can_undo = attempt.subscription.step.compensation is not None
        key = _key(attempt, fields)
        outcome = self._transactions.compensate(key, fields, hooks, also_write, can_undo, unless)
        return _tried(_logged(outcome), attempt, fields)

    def _secrets(self, subscription: StepSubscription, event: SagaEvent) -> list[Mapping[str, Any]]:
        """Return the secrets that were given to the step, in the order of their senders."""
        senders = subscription.senders(event)
        until = self._deps.monotonic() + SECRETS_WITHIN
        while senders:
            known = inbox.recall(self._engine, event.saga_id, subscription.step.name)
            if all(sender in known for sender in senders):
                return [known[sender] for sender in senders]
            if self._deps.monotonic() > until or self._deps.closed.wait(WAIT_LOOK_EVERY):
                raise SecretsMissing
        return []

    def _hooks(self, attempt: StepAttempt) -> AttemptHooks:
        """Wait for the injected delay, and return the attempt's hooks. Raises BadInput or Forbidden for a flag."""
        hooks = self._transactions.find_hooks(attempt.fault_flags, attempt.number)
        hooks.before()
        return hooks


_DONE = Tried(LocalOutcome(StepAnswer(200, {})))


def error_of(kind: str | None, status: int | None, message: str | None) -> dict[str, Any]:
    """Return the object that an event has as its `error`."""
    return {"kind": kind, "status_code": status, "message": message}


def _key(attempt: StepAttempt, fields: Mapping[str, Any]) -> Key:
    return Key(attempt.event.saga_id, attempt.subscription.step.name, digest(fields))


def _tried(outcome: LocalOutcome, attempt: StepAttempt, fields: Mapping[str, Any]) -> Tried:
    if outcome.answer.status == 200:
        return Tried(outcome)
    return Tried(outcome, attempt.subscription.shown(str(outcome.answer.body["error"]), fields), fields)


def _failed(status: int, message: str) -> Tried:
    """Return an attempt that certainly changed nothing."""
    return Tried(LocalOutcome(StepAnswer(status, {"error": message}, Handled.FAILED), certain=True), message)


def _database_failed(error: Exception) -> Tried:
    """Return an attempt that the database kept from being made, or whose COMMIT was not confirmed."""
    if isinstance(error, OutcomeUnknown):
        return Tried(LocalOutcome(StepAnswer(500, {"error": str(error)}, Handled.FAILED)), str(error))
    log_failure("event_failed", error)
    return _failed(500, failure_message(error))


def _logged(outcome: LocalOutcome) -> LocalOutcome:
    if outcome.error:
        log_failure("event_failed", outcome.error)
    return outcome
