"""The saga log's tables and statements: the storage's specification, each statement static and with a name.

On MySQL the tables are those of db/init.sql; a test holds the two against each other.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    union_all,
    update,
)

from saga.database import Float, Json, Token, UtcTime
from saga.definition import TEMPORAL
from saga.exchange import Statement
from saga.machine import State

metadata = MetaData()

sagas = Table(
    "sagas",
    metadata,
    Column("id", Token(36), primary_key=True),  # UUIDv7: in the order of their start
    Column("name", String(64), nullable=False),
    Column("definition", Json, nullable=False),  # a snapshot: an edited YAML file changes no running saga
    Column("input", Json, nullable=False),
    Column("state", Token(24), nullable=False),
    Column("cursor", Integer, nullable=False),
    Column("context", Json, nullable=False),  # what its lines come to: saga/context.py
    Column("epoch", Integer, nullable=False),
    Column("owner", String(255)),  # NULL: nobody drives it; "temporal": a workflow does
    Column("due_at", UtcTime),  # the lease's end, the next try of a stalled saga, or NULL: it has ended
    Column("rounds", Integer, nullable=False),
    Column("idempotency_key", Token(255), unique=True),
    Column("request_hash", Token(64)),
    Column("error", Json),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("deadline_at", UtcTime),
    Index("sagas_due", "due_at"),  # finds all work, however many sagas have ended
    Index("sagas_state", "state", "id"),
)

saga_log = Table(
    "saga_log",
    metadata,
    Column("id", Integer().with_variant(BigInteger(), "mysql", "mariadb"), primary_key=True),  # never given twice
    Column("saga_id", Token(36), nullable=False),
    Column("seq", Integer, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("event", Token(32), nullable=False),
    Column("step", String(64)),
    Column("attempt", Integer),
    Column("status_code", Integer),
    Column("duration_ms", Float),
    Column("detail", Json),
    Index("saga_log_saga", "saga_id", "seq", unique=True),
    sqlite_autoincrement=True,
)

saga_results = Table(  # what each action answered, written once: with the line that says that it is done
    "saga_results",
    metadata,
    Column("saga_id", Token(36), primary_key=True),
    Column("step", Token(64), primary_key=True),
    Column("result", Json, nullable=False),
    sqlite_with_rowid=False,
)

_OWNED = and_(sagas.c.id == bindparam("saga_id"), sagas.c.epoch == bindparam("held"))

_MOVED = ("epoch", "state", "cursor", "context", "rounds", "error", "ended_at", "owner", "due_at")
BEGIN = Statement(insert(sagas), *(column.name for column in sagas.c))
WRITE_LINES = Statement(insert(saga_log), *(column.name for column in saga_log.c if column.name != "id"))
WRITE_RESULTS = Statement(insert(saga_results), *(column.name for column in saga_results.c))
ADVANCE = Statement(update(sagas).where(_OWNED).values({name: bindparam(name) for name in _MOVED}))
RENEW = update(sagas).where(_OWNED, sagas.c.due_at.is_not(None)).values(due_at=bindparam("new_due_at"))
_NEXT_OWNER = {"epoch": sagas.c.epoch + 1, "owner": bindparam("owner"), "due_at": bindparam("new_due_at")}
CLAIM = update(sagas).where(_OWNED, sagas.c.due_at <= bindparam("due_by")).values(_NEXT_OWNER)
TAKE = update(sagas).where(_OWNED, sagas.c.state == bindparam("in_state")).values(_NEXT_OWNER)
POSTPONE = update(sagas).where(_OWNED, sagas.c.owner.is_(None)).values(due_at=bindparam("new_due_at"))
_OF_THESE: BindParameter[Any] = bindparam("saga_ids", expanding=True)
BARE = [column for column in sagas.c if column.name != "input"]  # without what a caller or a step gave
SEARCH = select(*BARE).order_by(sagas.c.id.desc()).limit(bindparam("most"))
FIND = select(sagas).where(sagas.c.id == bindparam("saga_id"))
FIND_MANY = select(sagas).where(sagas.c.id.in_(_OF_THESE))
FIND_MANY_BARE = select(*BARE).where(sagas.c.id.in_(_OF_THESE))
FIND_BY_KEY = select(sagas).where(sagas.c.idempotency_key == bindparam("key"))
ID_BY_KEY = select(sagas.c.id).where(sagas.c.idempotency_key == bindparam("key"))
RESULTS_OF = select(saga_results).where(saga_results.c.saga_id.in_(_OF_THESE))
INPUTS_OF = select(sagas.c.id, sagas.c.input).where(sagas.c.id.in_(_OF_THESE))
_BYTES = func.coalesce(func.sum(func.length(cast(saga_results.c.result, LargeBinary))), 0)
SIZES_OF = select(  # of what INPUTS_OF and RESULTS_OF give, in bytes, without sending it
    sagas.c.id,
    (
        func.length(cast(sagas.c.input, LargeBinary))
        + select(_BYTES).where(saga_results.c.saga_id == sagas.c.id).scalar_subquery()
    ).label("bytes"),
).where(sagas.c.id.in_(_OF_THESE))
DUE = (
    select(sagas.c.id, sagas.c.epoch)
    .where(sagas.c.due_at <= bindparam("now"), or_(sagas.c.owner.is_(None), sagas.c.owner != TEMPORAL))
    .order_by(sagas.c.due_at)
    .limit(bindparam("most"))
)
UNSTARTED = (  # whose workflow has perhaps not been started: nothing of it has been written here
    select(sagas.c.id)
    .where(sagas.c.due_at <= bindparam("now"), sagas.c.owner == TEMPORAL, sagas.c.epoch == 1)
    .order_by(sagas.c.due_at)
    .limit(bindparam("most"))
)
FREE_OWNER = (  # what a process of this name left behind: it is gone, or this one would not have its port
    update(sagas)
    .where(sagas.c.owner == bindparam("gone"), sagas.c.due_at > bindparam("now"))
    .values(due_at=bindparam("now"))
)
LINES = (
    select(saga_log)
    .where(saga_log.c.saga_id == bindparam("saga_id"), saga_log.c.seq > bindparam("after"))
    .order_by(saga_log.c.seq)
    .limit(bindparam("most"))
)
LINES_AT = (
    select(saga_log)
    .where(saga_log.c.saga_id == bindparam("saga_id"), saga_log.c.seq.in_(bindparam("numbers", expanding=True)))
    .order_by(saga_log.c.seq)
)
LATEST_LINES = select(saga_log).order_by(saga_log.c.id.desc()).limit(bindparam("most"))
LAST_LINE_ID = select(func.coalesce(func.max(saga_log.c.id), 0).label("id"))
LINE_IDS = (
    select(saga_log.c.id).where(saga_log.c.id > bindparam("after")).order_by(saga_log.c.id).limit(bindparam("most"))
)
LINES_BETWEEN = (
    select(saga_log)
    .where(saga_log.c.id > bindparam("after"), saga_log.c.id <= bindparam("upto"))
    .order_by(saga_log.c.id)
    .limit(bindparam("most"))
)
ANY_ID_BETWEEN = select(saga_log.c.id).where(saga_log.c.id.between(bindparam("first"), bindparam("last"))).limit(1)
ENDED_BEFORE = (
    select(sagas.c.id)
    .where(
        sagas.c.id < bindparam("started_before"),
        sagas.c.state.in_(bindparam("states", expanding=True)),
        sagas.c.ended_at < bindparam("ended_before"),
    )
    .order_by(sagas.c.id)
    .limit(bindparam("most"))
)
FORGET_LINES = delete(saga_log).where(saga_log.c.saga_id.in_(_OF_THESE))
FORGET_RESULTS = delete(saga_results).where(saga_results.c.saga_id.in_(_OF_THESE))
FORGET = delete(sagas).where(sagas.c.id.in_(_OF_THESE))
COUNT_STATES = union_all(  # each at most `most`: nobody waits for the whole of a large table
    *(
        select(literal(state.value).label("state"), func.count().label("number")).select_from(
            select(sagas.c.id).where(sagas.c.state == state.value).limit(bindparam("most")).subquery()
        )
        for state in State
    )
)
PING = select(func.count()).select_from(select(sagas.c.id).limit(1).subquery())
