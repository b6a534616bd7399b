"""The participant's barrier: one row per saga and step, written in the business's own local transaction.

It makes every action and every compensation take effect at most once, remembers refusals, and refuses an action
that arrives after its compensation (dtm's sub-transaction barrier guards against the same three: duplicates,
"empty rollback" and "hanging").

    call          no row             applied               refused              compensated, sealed
    action        run it: applied    the saved answer      the saved refusal    409, nothing done
                  or refused
    compensation  sealed             run it: compensated   sealed               the saved answer
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sqlalchemy import Column, Connection, Engine, MetaData, Table, bindparam, insert, select, update
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
    Column("request_hash", Token(64), nullable=False),  # of the call that put the row in its state
    Column("response", Json),
    Column("created_at", UtcTime, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)


class Barrier(StrEnum):
    """The state of a barrier row."""

    APPLIED = "applied"
    REFUSED = "refused"
    COMPENSATED = "compensated"
    SEALED = "sealed"  # compensated before any action came


class Handled(StrEnum):
    """How a call was dealt with, for those who count."""

    DONE = "done"  # it took effect, by this call
    REFUSED = "refused"  # by the author's function
    REPLAYED = "replayed"  # the saved answer, or the saved refusal, was given again
    SEALED = "sealed"  # a compensation that had nothing to undo
    CONFLICT = "conflict"  # an action that came after its compensation
    MISMATCH = "mismatch"  # known, with another body
    FAILED = "failed"  # it was rolled back, or its outcome is not known


@dataclass(frozen=True)
class Key:
    """Which row: a saga's step, asked for with a body of this hash."""

    saga_id: str
    step: str
    request_hash: str


@dataclass(frozen=True)
class Answer:
    """What the participant says: 200, 409 for a refusal, 422 for a known key with another body."""

    status: int
    body: Mapping[str, Any]
    handled: Handled = field(default=Handled.DONE, compare=False)


class Transaction:
    """What the author's two functions get: the local transaction, and whose saga it is."""

    def __init__(self, connection: Connection, saga_id: str):
        self.saga_id = saga_id
        self.execute = connection.execute


Work = Callable[[Transaction], Mapping[str, Any] | None]
News = Callable[[Answer], Sequence[tuple[Statement, Sequence[Row]]]]  # what is written together with an answer

_ROW = (saga_barrier.c.saga_id == bindparam("key_saga"), saga_barrier.c.step == bindparam("key_step"))
CLAIM = Statement(insert(saga_barrier), *(column.name for column in saga_barrier.c))
ANSWER = Statement(update(saga_barrier).where(*_ROW).values(response=bindparam("new_response")))
READ = select(saga_barrier).where(*_ROW)
MOVE = Statement(
    update(saga_barrier)
    .where(*_ROW, saga_barrier.c.state == bindparam("old_state"))
    .values(
        state=bindparam("new_state"),
        request_hash=bindparam("new_hash"),
        response=bindparam("new_response"),
        updated_at=bindparam("now"),
    )
)


# A deadlock or a lock's time-out: the transaction was rolled back, so it is run again, for as long as its caller waits.
# Where one of many duplicates rolls back (refused, or failed), InnoDB gives all that waited for its row a shared lock
# and kills all but one for wanting an exclusive one: so its victims spread out before they come back.
LOCK_SECONDS = 5
LOCK_PAUSE = 0.01  # seconds, doubling from try to try, each drawn between none and all of it
LOCK_PAUSE_AT_MOST = 0.2

OTHER_BODY = Answer(422, {"error": "this saga and step were called before with another body"}, Handled.MISMATCH)
TOO_LATE = Answer(
    409, {"error": "this step was compensated already: the action came too late, and did nothing"}, Handled.CONFLICT
)


def _none(answer: Answer) -> Sequence[tuple[Statement, Sequence[Row]]]:
    return ()


def act(
    engine: Engine, key: Key, action: Work, before_commit: Callable[[], None] = lambda: None, news: News = _none
) -> Answer:
    """Run the action once, or give the answer of the time it ran.

    `news` are written in the same transaction, in either case. OutcomeUnknown where the COMMIT was not confirmed;
    anything else raised means that nothing took effect.
    """
    try:
        return _in_transaction(engine, lambda connection: _act(connection, key, action, before_commit, news))
    except Refused as refusal:
        said = {"error": str(refusal)}
        return _in_transaction(engine, lambda connection: _remember_refusal(connection, key, said, news))


def compensate(engine: Engine, key: Key, compensation: Work, news: News = _none) -> Answer:
    """Undo the action once, or see to it that it never takes effect; `news` and errors as in `act`."""
    try:
        return _in_transaction(engine, lambda connection: _compensate(connection, key, compensation, news))
    except Refused as refusal:  # a pivot that has committed: the row stays applied
        return Answer(409, {"error": str(refusal)}, Handled.REFUSED)


def saved(engine: Engine, saga_id: str, step: str) -> tuple[Barrier, Mapping[str, Any]] | None:
    """The state of a row and its answer; None where there is no row."""
    with transaction(engine) as connection:
        row = connection.execute(READ, {"key_saga": saga_id, "key_step": step}).mappings().one_or_none()
        return (Barrier(row["state"]), row["response"]) if row else None


def _act(connection: Connection, key: Key, action: Work, before_commit: Callable[[], None], news: News) -> Answer:
    if not _claim(connection, key, Barrier.APPLIED):
        return _told(connection, _saved_for_action(connection, key), news)
    response, text = sayable(action(Transaction(connection, key.saga_id)) or {}, "what the action returned")
    done = Answer(200, response)
    _answer(connection, key, done, text, news)
    before_commit()
    return done


def _remember_refusal(connection: Connection, key: Key, said: Mapping[str, Any], news: News) -> Answer:
    if _claim(connection, key, Barrier.REFUSED, said):
        return _told(connection, Answer(409, said, Handled.REFUSED), news)
    return _told(connection, _saved_for_action(connection, key), news)  # somebody came between the two transactions


def _saved_for_action(connection: Connection, key: Key) -> Answer:
    row = connection.execute(READ, _row(key)).mappings().one()
    if row["state"] in (Barrier.COMPENSATED, Barrier.SEALED):
        return TOO_LATE
    if row["request_hash"] != key.request_hash:
        return OTHER_BODY
    return Answer(200 if row["state"] == Barrier.APPLIED else 409, row["response"], Handled.REPLAYED)


def _compensate(connection: Connection, key: Key, compensation: Work, news: News) -> Answer:
    if _move(connection, key, Barrier.APPLIED, Barrier.COMPENSATED):
        said, _ = sayable(compensation(Transaction(connection, key.saga_id)) or {}, "what the compensation returned")
        undone = Answer(200, {**said, "undone": True})
        _answer(connection, key, undone, compact(undone.body), news)
        return undone
    nothing = Answer(200, {"undone": False}, Handled.SEALED)
    if _move(connection, key, Barrier.REFUSED, Barrier.SEALED, nothing.body):
        return _told(connection, nothing, news)
    if _claim(connection, key, Barrier.SEALED, nothing.body):
        return _told(connection, nothing, news)
    row = connection.execute(READ, _row(key)).mappings().one()
    if row["state"] in (Barrier.APPLIED, Barrier.REFUSED):  # an action committed while _claim waited for its lock
        return _compensate(connection, key, compensation, news)
    if row["request_hash"] != key.request_hash:
        return OTHER_BODY
    return _told(connection, Answer(200, row["response"], Handled.REPLAYED), news)


def _told(connection: Connection, answer: Answer, news: News) -> Answer:
    """Write the news of an answer that is saved already."""
    if told := news(answer):
        execute_batch(connection, *told, with_commit=True)
    return answer


def _claim(connection: Connection, key: Key, state: Barrier, response: Mapping[str, Any] | None = None) -> bool:
    """Write the row; False where there is one already. Waits while another transaction is writing it."""
    now = time.time()
    row = {**vars(key), "state": state, "response": response, "created_at": now, "updated_at": now}
    try:
        _execute(connection, CLAIM, row)  # where it fails, only the statement is undone, not the transaction
    except IntegrityError as error:
        if is_duplicate(error):
            return False
        raise
    return True


def _move(
    connection: Connection, key: Key, old: Barrier, new: Barrier, response: Mapping[str, Any] | None = None
) -> bool:
    """From one state to the next, by one guarded statement; False where the row is not in `old`."""
    values = {
        **_row(key),
        "old_state": old,
        "new_state": new,
        "new_hash": key.request_hash,
        "new_response": response,
        "now": time.time(),
    }
    return _execute(connection, MOVE, values) == 1


def _answer(connection: Connection, key: Key, answer: Answer, text: str, news: News) -> None:
    """Save what the last statements of the transaction are: the answer, whose body is `text`, and its news."""
    row = ANSWER.bind(connection.dialect, {**_row(key), "new_response": EncodedJson(text)})
    execute_batch(connection, *news(answer), (ANSWER, [row]), with_commit=True)


def _execute(connection: Connection, statement: Statement, values: Mapping[str, Any]) -> int:
    return execute_batch(connection, (statement, [statement.bind(connection.dialect, values)]))[0]


def _row(key: Key) -> dict[str, str]:
    return {"key_saga": key.saga_id, "key_step": key.step}


def _in_transaction(engine: Engine, work: Callable[[Connection], Answer]) -> Answer:
    give_up_at = time.monotonic() + LOCK_SECONDS
    pause = LOCK_PAUSE
    while True:
        try:
            with transaction(engine) as connection:
                return work(connection)
        except DBAPIError as error:
            if not is_lock_conflict(error) or time.monotonic() >= give_up_at:
                raise
        time.sleep(random.uniform(0, pause))
        pause = min(2 * pause, LOCK_PAUSE_AT_MOST)
