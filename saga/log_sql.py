"""The saga log's tables and statements: the storage's specification, each statement static and with a name.

On MySQL the tables are those of db/init.sql; a test holds the two against each other.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    type_coerce,
    union_all,
    update,
)
from sqlalchemy.types import NullType

from saga.database import Float, Json, Token, UtcTime
from saga.definition import TEMPORAL
from saga.exchange import Statement
from saga.machine import ENDED, State

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
    Column("context", Json, nullable=False),  # {step: what its action answered}
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

_OWNED = and_(sagas.c.id == bindparam("saga_id"), sagas.c.epoch == bindparam("held"))

_MOVED = ("epoch", "state", "cursor", "context", "rounds", "error", "ended_at", "owner", "due_at")
BEGIN = Statement(insert(sagas), *(column.name for column in sagas.c))
WRITE_LINES = Statement(insert(saga_log), *(column.name for column in saga_log.c if column.name != "id"))
ADVANCE = Statement(update(sagas).where(_OWNED).values({name: bindparam(name) for name in _MOVED}))
RENEW = update(sagas).where(_OWNED, sagas.c.due_at.is_not(None)).values(due_at=bindparam("new_due_at"))
_NEXT_OWNER = {"epoch": sagas.c.epoch + 1, "owner": bindparam("owner"), "due_at": bindparam("new_due_at")}
CLAIM = update(sagas).where(_OWNED, sagas.c.due_at <= bindparam("due_by")).values(_NEXT_OWNER)
TAKE = update(sagas).where(_OWNED, sagas.c.state == bindparam("in_state")).values(_NEXT_OWNER)
POSTPONE = update(sagas).where(_OWNED, sagas.c.owner.is_(None)).values(due_at=bindparam("new_due_at"))
FIND = select(sagas).where(sagas.c.id == bindparam("saga_id"))
FIND_MANY = select(sagas).where(sagas.c.id.in_(bindparam("saga_ids", expanding=True)))
FIND_BY_KEY = select(sagas).where(sagas.c.idempotency_key == bindparam("key"))
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
LINES = select(saga_log).where(saga_log.c.saga_id == bindparam("saga_id")).order_by(saga_log.c.seq)
LINES_OF = (
    select(saga_log)
    .where(saga_log.c.saga_id.in_(bindparam("saga_ids", expanding=True)))
    .order_by(saga_log.c.saga_id, saga_log.c.seq)
)
LAST_SEQ = select(func.max(saga_log.c.seq)).where(saga_log.c.saga_id == bindparam("saga_id"))
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
_OF_THESE: BindParameter[Any] = bindparam("saga_ids", expanding=True)
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
FORGET = delete(sagas).where(sagas.c.id.in_(_OF_THESE))
COUNT_STATES = union_all(  # each at most `most`: nobody waits for the whole of a large table
    *(
        select(literal(state.value).label("state"), func.count().label("number")).select_from(
            select(sagas.c.id).where(sagas.c.state == state.value).limit(bindparam("most")).subquery()
        )
        for state in State
    )
)
# The gaps between the states that are known, as ranges of the states' index: quick, however many sagas there are.
_KNOWN = sorted(state.value for state in State)
_GAPS = [
    sagas.c.state < _KNOWN[0],
    *(and_(sagas.c.state > lower, sagas.c.state < upper) for lower, upper in pairwise(_KNOWN)),
    sagas.c.state > _KNOWN[-1],
]
STATE_UNKNOWN = or_(*_GAPS)
COUNT_UNKNOWN_STATES = union_all(
    *(
        select(func.count().label("number")).select_from(
            select(sagas.c.id).where(gap).limit(bindparam("most")).subquery()
        )
        for gap in _GAPS
    )
)
RAW_SAGA = select(*(type_coerce(column, NullType()).label(column.name) for column in sagas.c)).where(
    sagas.c.id == bindparam("saga_id")
)
RAW_LINES = (
    select(*(type_coerce(column, NullType()).label(column.name) for column in saga_log.c))
    .where(saga_log.c.saga_id == bindparam("saga_id"))
    .order_by(saga_log.c.id)
)
# An unreadable saga that an operator has ended: its other columns stay as they are.
END_UNREADABLE = (
    update(sagas)
    .where(sagas.c.id == bindparam("saga_id"), sagas.c.state.not_in(sorted(ENDED)))
    .values(state=bindparam("new_state"), ended_at=bindparam("now"), owner=None, due_at=None, epoch=sagas.c.epoch + 1)
)
LAST_SEQ_OF = select(func.max(saga_log.c.seq).label("seq")).where(saga_log.c.saga_id == bindparam("saga_id"))
PING = select(func.count()).select_from(select(sagas.c.id).limit(1).subquery())
