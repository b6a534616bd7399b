"""The participant's barrier is one row per saga and step, written in the business's own local transaction.

It makes every action and every compensation take effect at most once, remembers refusals, and refuses an action that
arrives after its compensation. (dtm's sub-transaction barrier guards against the same three: duplicates, "empty
rollback" and "hanging".) What a call does depends on the row that it finds:

    call          no row             applied               refused              compensated, sealed
    action        run it: applied    the saved answer      the saved refusal    409, nothing done
                  or refused
    compensation  sealed             run it: compensated   sealed               the saved answer

`Barrier.act` is the first line of this table and `Barrier.compensate` the second; the comments there name the cells.

No cell is found by reading the row and writing it afterwards: between the two, another call of the same saga and step
could do the same. An INSERT, whose primary key only one transaction can have, and an UPDATE that names the state it
expects tell by what they found whether the cell is theirs. A duplicate waits in its INSERT until the first one has
ended; then it finds that one's row, or none where it was rolled back.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, Connection, Engine, MetaData, RowMapping, Table, bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from saga.errors import Refused
from saga.payload import compact, sayable
from saga.storage.column_types import EncodedJson, Json, Token, UtcTime
from saga.storage.database import transaction
from saga.storage.database_errors import is_duplicate, is_lock_conflict
from saga.storage.statement_batch import Row, Statement, execute_batch

metadata = MetaData()

saga_barrier = Table(
    "saga_barrier",
    metadata,
    Column("saga_id", Token(255), primary_key=True),
    Column("step", Token(64), primary_key=True),
    Column("state", Token(16), nullable=False),
    # Of the call that put the row into its state.
    Column("request_hash", Token(64), nullable=False),
    Column("response", Json),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)


class BarrierState(StrEnum):
    """The state of a barrier row."""

    APPLIED = "applied"
    REFUSED = "refused"
    COMPENSATED = "compensated"
    # The compensation came before any action did, or after a refused one: the action never takes effect.
    SEALED = "sealed"


class Handled(StrEnum):
    """How a call was dealt with; the metrics count calls by it."""

    DONE = "done"  # this call took effect
    REFUSED = "refused"  # the author's function said no
    REPLAYED = "replayed"  # the saved answer, or the saved refusal, was given again
    SEALED = "sealed"  # a compensation found nothing to undo
    CONFLICT = "conflict"  # an action came after its compensation
    MISMATCH = "mismatch"  # the saga and step are known, with another body
    FAILED = "failed"  # the call was rolled back, or its outcome is not known


@dataclass(frozen=True)
class Key:
    """A call's row in the barrier: the saga and the step, and the hash of the body that the call came with."""

    saga_id: str
    step: str
    request_hash: str


@dataclass(frozen=True)
class StepAnswer:
    """What a participant answers to a call: 200, 409 for a refusal, 422 for a known key with another body."""

    status: int
    body: Mapping[str, Any]
    handled: Handled = field(default=Handled.DONE, compare=False)


class Transaction:
    """What the author's two functions get: `execute` in the local transaction, and the id of the saga."""

    def __init__(self, connection: Connection, saga_id: str):
        self.saga_id = saga_id
        self.execute = connection.execute


Work = Callable[[Transaction], Mapping[str, Any] | None]
# The statements that are executed in the same transaction as the answer is saved in, such as those of an outbox.
AlsoWrite = Callable[[StepAnswer], Sequence[tuple[Statement, Sequence[Row]]]]


def nothing_else(answer: StepAnswer) -> Sequence[tuple[Statement, Sequence[Row]]]:
    """Return no statements: the AlsoWrite of a call that writes its business rows and its barrier row only."""
    return ()


_THIS_ROW = (saga_barrier.c.saga_id == bindparam("key_saga"), saga_barrier.c.step == bindparam("key_step"))
INSERT = Statement(insert(saga_barrier), *(column.name for column in saga_barrier.c))
SAVE_RESPONSE = Statement(update(saga_barrier).where(*_THIS_ROW).values(response=bindparam("new_response")))
READ = select(saga_barrier).where(*_THIS_ROW)
MOVE = Statement(
    update(saga_barrier)
    .where(*_THIS_ROW, saga_barrier.c.state == bindparam("old_state"))
    .values(
        state=bindparam("new_state"),
        request_hash=bindparam("new_hash"),
        response=bindparam("new_response"),
        updated_at=bindparam("now"),
    )
)

# A transaction that was the victim of a deadlock, or waited too long for a lock, was rolled back. It is run again until
# LOCK_TRIES_SECONDS have passed. Where one of many duplicates rolls back (refused, or failed), InnoDB gives all that
# waited for its row a shared lock and kills all but one for wanting an exclusive one. So the victims spread out before
# they try again: each pauses for a random part of LOCK_PAUSE_SECONDS, which doubles from try to try up to
# LOCK_PAUSE_SECONDS_AT_MOST.
LOCK_TRIES_SECONDS = 5
LOCK_PAUSE_SECONDS = 0.01
LOCK_PAUSE_SECONDS_AT_MOST = 0.2

OTHER_BODY = StepAnswer(422, {"error": "this saga and step were called before with another body"}, Handled.MISMATCH)
TOO_LATE = StepAnswer(
    409, {"error": "this step was compensated already: the action came too late, and did nothing"}, Handled.CONFLICT
)


class Barrier:
    """The barrier rows in the database of one service. Times are in seconds."""

    def __init__(
        self,
        engine: Engine,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        random: Callable[[], float] = random.random,
    ):
        self.engine = engine
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._random = random

    def act(self, key: Key, action: Work, also_write: AlsoWrite = nothing_else) -> StepAnswer:
        """Run the action once, or give the answer of the time when it ran.

        `also_write` is executed in the same transaction, in either case. Raises OutcomeUnknown where the COMMIT was
        not confirmed; anything else that it raises was raised before the COMMIT, so that nothing took effect.
        """
        try:
            return self._in_transaction(lambda connection: self._act(_BarrierRow(connection, key), action, also_write))
        except Refused as refusal:
            # The author's function may have written something before it said no: all of that was rolled back, the
            # barrier row with it. So the refusal is written in a transaction of its own.
            body = {"error": str(refusal)}
            return self._in_transaction(lambda connection: self._refuse(_BarrierRow(connection, key), body, also_write))

    def compensate(self, key: Key, compensation: Work, also_write: AlsoWrite = nothing_else) -> StepAnswer:
        """Undo the action once, or make sure that it never takes effect; `also_write` and errors as in `act`."""
        try:
            return self._in_transaction(
                lambda connection: self._compensate(_BarrierRow(connection, key), compensation, also_write)
            )
        except Refused as refusal:
            # The step is a pivot that has committed. Rolled back, its row is still applied, and nothing is to be saved.
            return StepAnswer(409, {"error": str(refusal)}, Handled.REFUSED)

    def saved(self, saga_id: str, step: str) -> tuple[BarrierState, Mapping[str, Any]] | None:
        """Return the state of a row and the answer that it holds; None where there is no row."""
        with transaction(self.engine) as connection:
            row = connection.execute(READ, {"key_saga": saga_id, "key_step": step}).mappings().one_or_none()
            return (BarrierState(row["state"]), row["response"]) if row else None

    def _act(self, row: _BarrierRow, action: Work, also_write: AlsoWrite) -> StepAnswer:
        # No row: run it.
        if row.insert(BarrierState.APPLIED, None, self._clock()):
            response, text = sayable(action(row.transaction()) or {}, "what the action returned")
            done = StepAnswer(200, response)
            row.save(done, text, also_write)
            return done
        return row.end(_known_action(row), also_write)

    def _refuse(self, row: _BarrierRow, body: Mapping[str, Any], also_write: AlsoWrite) -> StepAnswer:
        # No row: it was refused.
        if row.insert(BarrierState.REFUSED, body, self._clock()):
            return row.end(StepAnswer(409, body, Handled.REFUSED), also_write)
        # Another call of the saga and step came between the two transactions.
        return row.end(_known_action(row), also_write)

    def _compensate(self, row: _BarrierRow, compensation: Work, also_write: AlsoWrite) -> StepAnswer:
        # Applied: run it, and the row is compensated.
        if row.move(BarrierState.APPLIED, BarrierState.COMPENSATED, None, self._clock()):
            said, _ = sayable(compensation(row.transaction()) or {}, "what the compensation returned")
            undone = StepAnswer(200, {**said, "undone": True})
            row.save(undone, compact(undone.body), also_write)
            return undone
        # Refused, or no row: there is nothing to undo, and the row is sealed.
        nothing = StepAnswer(200, {"undone": False}, Handled.SEALED)
        if row.move(BarrierState.REFUSED, BarrierState.SEALED, nothing.body, self._clock()):
            return row.end(nothing, also_write)
        if row.insert(BarrierState.SEALED, nothing.body, self._clock()):
            return row.end(nothing, also_write)
        found = row.read()
        if found["state"] in (BarrierState.APPLIED, BarrierState.REFUSED):
            # An action has committed while the INSERT waited for its lock: the table is asked again.
            return self._compensate(row, compensation, also_write)
        # Compensated or sealed: the saved answer.
        if found["request_hash"] != row.key.request_hash:
            return OTHER_BODY
        return row.end(StepAnswer(200, found["response"], Handled.REPLAYED), also_write)

    def _in_transaction(self, work: Callable[[Connection], StepAnswer]) -> StepAnswer:
        """Run `work` in a transaction, commit it, and return its answer.

        A transaction that a lock conflict has rolled back is run again: see LOCK_TRIES_SECONDS.
        """
        give_up_at = self._monotonic() + LOCK_TRIES_SECONDS
        pause = LOCK_PAUSE_SECONDS
        while True:
            try:
                with transaction(self.engine) as connection:
                    return work(connection)
            except DBAPIError as error:
                if not is_lock_conflict(error) or self._monotonic() >= give_up_at:
                    raise
            self._sleep(pause * self._random())
            pause = min(2 * pause, LOCK_PAUSE_SECONDS_AT_MOST)


def _known_action(row: _BarrierRow) -> StepAnswer:
    """Return the answer to an action whose saga and step have a row already."""
    found = row.read()
    # Compensated or sealed: 409, nothing done. The bodies are not compared, since it does nothing with any of them.
    if found["state"] in (BarrierState.COMPENSATED, BarrierState.SEALED):
        return TOO_LATE
    if found["request_hash"] != row.key.request_hash:
        return OTHER_BODY
    # Applied: the saved answer. Refused: the saved refusal.
    return StepAnswer(200 if found["state"] == BarrierState.APPLIED else 409, found["response"], Handled.REPLAYED)


class _BarrierRow:
    """The row of one call's saga and step, in one transaction."""

    def __init__(self, connection: Connection, key: Key):
        self._connection = connection
        self.key = key
        self._where = {"key_saga": key.saga_id, "key_step": key.step}

    def transaction(self) -> Transaction:
        """Return the transaction that the author's function is given."""
        return Transaction(self._connection, self.key.saga_id)

    def insert(self, state: BarrierState, response: Mapping[str, Any] | None, now: float) -> bool:
        """Write the row; False where there is one already. Waits while another transaction is writing it."""
        values = {**vars(self.key), "state": state, "response": response, "created_at": now, "updated_at": now}
        try:
            # Where this fails, the database undoes the one statement and not the transaction.
            self._execute(INSERT, values)
        except IntegrityError as error:
            if is_duplicate(error):
                return False
            raise
        return True

    def move(self, old: BarrierState, new: BarrierState, response: Mapping[str, Any] | None, now: float) -> bool:
        """Take the row from `old` to `new` by one guarded statement; False where it is not in `old`."""
        values = {
            **self._where,
            "old_state": old,
            "new_state": new,
            "new_hash": self.key.request_hash,
            "new_response": response,
            "now": now,
        }
        return self._execute(MOVE, values) == 1

    def read(self) -> RowMapping:
        """Return the row as it is now. Raises NoResultFound where there is none."""
        return self._connection.execute(READ, self._where).mappings().one()

    def save(self, answer: StepAnswer, text: str, also_write: AlsoWrite) -> None:
        """Execute the transaction's last statements: save the answer, whose body is `text`, and also write."""
        values = SAVE_RESPONSE.bind(self._connection.dialect, {**self._where, "new_response": EncodedJson(text)})
        execute_batch(self._connection, *also_write(answer), (SAVE_RESPONSE, [values]), with_commit=True)

    def end(self, answer: StepAnswer, also_write: AlsoWrite) -> StepAnswer:
        """Execute the transaction's last statements where the answer is saved already, and give the answer."""
        if statements := also_write(answer):
            execute_batch(self._connection, *statements, with_commit=True)
        return answer

    def _execute(self, statement: Statement, values: Mapping[str, Any]) -> int:
        return execute_batch(self._connection, (statement, [statement.bind(self._connection.dialect, values)]))[0]
