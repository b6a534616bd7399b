"""This module runs a participant's two local transactions behind its barrier, whether a call or an event asks for them.

Every attempt ends in a LocalOutcome, also one in which something was raised. What may be put around an attempt, such
as failure injection, is a subclass of AttemptHooks; this module knows none of them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from saga.barrier import AlsoWrite, Barrier, BarrierState, Handled, Key, StepAnswer, Transaction, nothing_else
from saga.errors import NotJson, OutcomeUnknown, Refused
from saga.machine import Direction
from saga.payload import sayable
from saga.storage.database_errors import STATEMENT_REFUSED
from saga.storage.statement_batch import Row, Statement

logger = logging.getLogger("saga")

StepFunction = Callable[[Transaction, Mapping[str, Any]], Mapping[str, Any] | None]
# Called after each attempt, with the step, how the attempt was dealt with, and the seconds it took.
Count = Callable[[str, Direction, Handled, float], None]

# The answer to a compensation that found, in its own transaction, that the action is to stay (see `unless`).
ACTION_STAYS = StepAnswer(409, {"error": "the action took effect, and stays"}, Handled.FAILED)


@dataclass(frozen=True)
class LocalOutcome:
    """How one attempt at a local transaction ended."""

    answer: StepAnswer
    # It is known that this attempt changed nothing: over HTTP, `Saga-Effect: none`.
    certain: bool = False
    # What was raised, where the answer is a 500 for that reason.
    error: Exception | None = None
    # A text that is sent instead of the answer, and that is no JSON.
    garbled: str | None = None


class ActionAttempt:
    """One attempt at an action: `run` runs its local transaction, and may be called more than once."""

    def __init__(self, barrier: Barrier, key: Key, action: StepFunction, fields: Mapping[str, Any], also: AlsoWrite):
        self._barrier = barrier
        self._key = key
        self._action = action
        self._fields = fields
        self._also_write = also
        # Whether something besides the business rows and the barrier row is written, which tells others of the outcome.
        self.tells_others = also is not nothing_else

    def run(
        self, wrap: Callable[[StepFunction], StepFunction] = lambda action: action, tell_success: bool = True
    ) -> LocalOutcome:
        """Run the transaction, with `wrap(action)` in the action's place.

        Without `tell_success`, nobody else is told of an action that took effect. A refusal is told in any case.
        """
        action = wrap(self._action)
        also_write = self._also_write if tell_success else self._refusals_only
        return _outcome(
            lambda: self._barrier.act(self._key, lambda transaction: action(transaction, self._fields), also_write)
        )

    def _refusals_only(self, answer: StepAnswer) -> Sequence[tuple[Statement, Sequence[Row]]]:
        return () if answer.status == 200 else self._also_write(answer)


class AttemptHooks:
    """What is done around one attempt besides its local transaction: here, nothing. (As dramatiq's middleware does.)

    What a subclass does before it runs the attempt happens before the transaction; what it does afterwards happens
    after the COMMIT, which it cannot change any more.
    """

    def before(self) -> None:
        """Act before the attempt: its number is known, its fields are not looked at yet. It may take its time."""

    def around_action(self, attempt: ActionAttempt) -> LocalOutcome:
        """Give the outcome of an action: that of `attempt.run()`, unless the subclass knows a reason for another."""
        return attempt.run()

    def around_compensation(self, run: Callable[[], LocalOutcome]) -> LocalOutcome:
        """Give the outcome of a compensation: that of `run()`, unless the subclass knows a reason for another."""
        return run()


# Finds the hooks of an attempt by the flags that came with it (over HTTP, its query) and its number, from 1 on. Raises
# BadInput or Forbidden where a flag is wrong or not allowed.
FindHooks = Callable[[Sequence[tuple[str, str]], int], AttemptHooks]

NO_HOOKS = AttemptHooks()


class _ActionStays(Exception):
    """The compensation's transaction is to be rolled back, since the action stays."""


class LocalTransactions:
    """The action and the compensation of one service, each in one local transaction with its barrier row."""

    def __init__(
        self,
        barrier: Barrier,
        action: StepFunction,
        compensation: StepFunction,
        find_hooks: FindHooks = lambda flags, attempt: NO_HOOKS,
        count: Count = lambda step, call, handled, seconds: None,
    ):
        self._barrier = barrier
        self._action = action
        self._compensation = compensation
        self.find_hooks = find_hooks
        self._count = count

    @property
    def engine(self) -> Engine:
        """The engine of the service's database."""
        return self._barrier.engine

    def saved(self, saga_id: str, step: str) -> tuple[BarrierState, Mapping[str, Any]] | None:
        """Return the state of a step's barrier row and the answer that it holds; None where there is no row."""
        return self._barrier.saved(saga_id, step)

    def act(
        self,
        key: Key,
        fields: Mapping[str, Any],
        hooks: AttemptHooks = NO_HOOKS,
        also_write: AlsoWrite = nothing_else,
    ) -> LocalOutcome:
        """Make one attempt at the action; `also_write` goes into its transaction."""
        attempt = ActionAttempt(self._barrier, key, self._action, fields, also_write)
        return self._counted(key, Direction.ACTION, lambda: hooks.around_action(attempt))

    def compensate(
        self,
        key: Key,
        fields: Mapping[str, Any],
        hooks: AttemptHooks = NO_HOOKS,
        also_write: AlsoWrite = nothing_else,
        can_undo: bool = True,
        unless: Callable[[Transaction], bool] = lambda transaction: False,
    ) -> LocalOutcome:
        """Make one attempt at the compensation; `also_write` goes into its transaction.

        Without `can_undo`, an action that has taken effect stays, which is a refusal. `unless` is asked where there is
        something to undo, in the same transaction: if so, nothing is changed and the answer is ACTION_STAYS.
        """
        compensation = self._compensation if can_undo else _refuse_to_undo

        def undo(transaction: Transaction) -> Mapping[str, Any] | None:
            if unless(transaction):
                raise _ActionStays
            return compensation(transaction, fields)

        def run() -> LocalOutcome:
            return _outcome(lambda: self._barrier.compensate(key, undo, also_write))

        return self._counted(key, Direction.COMPENSATION, lambda: hooks.around_compensation(run))

    def dry_run(self, saga_id: str, fields: Mapping[str, Any]) -> LocalOutcome:
        """Return what the action would answer now: its transaction is rolled back, and the barrier is not asked."""

        def run() -> StepAnswer:
            with self.engine.connect() as connection, connection.begin() as begun:
                try:
                    result = self._action(Transaction(connection, saga_id), fields) or {}
                    return StepAnswer(200, sayable(result, "what the action returned")[0])
                except Refused as refusal:
                    return StepAnswer(409, {"error": str(refusal)})
                finally:
                    begun.rollback()

        return _outcome(run)

    def _counted(self, key: Key, call: Direction, attempt: Callable[[], LocalOutcome]) -> LocalOutcome:
        began, handled = time.perf_counter(), Handled.FAILED
        try:
            outcome = attempt()
            handled = Handled.FAILED if outcome.answer.status >= 500 else outcome.answer.handled
            return outcome
        finally:
            self._count(key.step, call, handled, time.perf_counter() - began)


def failure_message(error: Exception) -> str:
    """Return what others are told of an error that was not expected: as little as helps them."""
    if isinstance(error, NotJson):
        return f"the service failed, and rolled back: {error}"
    # A database that refuses a statement has answered.
    away = isinstance(error, SQLAlchemyError) and not isinstance(error, STATEMENT_REFUSED)
    return "the database does not answer" if away else "the service failed, and rolled back"


def log_failure(event: str, error: Exception) -> None:
    """Log an error that was not expected, under the name `event`; its traceback, unless the database raised it.

    A database that is away has no news in its traceback, and SQLAlchemy's message holds the values of the statement.
    """
    if isinstance(error, NotJson):
        logger.error("%s: %s", event, error)
    else:
        logger.error("%s: %s", event, type(error).__name__, exc_info=not isinstance(error, SQLAlchemyError) and error)


def _outcome(work: Callable[[], StepAnswer]) -> LocalOutcome:
    """Return the outcome of a local transaction: what is known of its effect, whatever was raised in it.

    To catch every Exception is right here, and only here. The barrier promises that whatever it raises, but
    OutcomeUnknown, was raised before the COMMIT: then the transaction was rolled back and certainly changed nothing,
    whoever is at fault, the caller, the database, the author's function or this library. A bug is no refusal either:
    it answers 500, which is tried again. What goes wrong after the COMMIT does not come by here.
    """
    try:
        return LocalOutcome(work())
    except OutcomeUnknown as error:
        return LocalOutcome(StepAnswer(500, {"error": str(error)}, Handled.FAILED))
    except _ActionStays:
        return LocalOutcome(ACTION_STAYS, certain=True)
    except Exception as error:
        answer = StepAnswer(500, {"error": failure_message(error)}, Handled.FAILED)
        return LocalOutcome(answer, certain=True, error=error)


def _refuse_to_undo(transaction: Transaction, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    raise Refused("this step has no compensation")
