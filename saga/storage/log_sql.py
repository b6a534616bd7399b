"""The saga log's tables and statements: the storage's specification, each statement static and with a name.

On MySQL the tables are those of db/init.sql; a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Select,
    String,
    Table,
    and_,
    bindparam,
    case,
    cast,
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

from saga.definition import TEMPORAL
from saga.machine import ENDED, STALLED, UNENDED, State
from saga.storage.database import Float, Json, Token, UtcTime
from saga.storage.statement_batch import Statement

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

# The owner of a saga whose driver let it go in the middle of a call: anybody may claim it at once, though that call may
# still be under way.
NOBODY = ""
_STALLED = [state.value for state in sorted(STALLED)]

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
LET_GO = update(sagas).where(_OWNED, sagas.c.due_at.is_not(None)).values(due_at=bindparam("now"), owner=NOBODY)
_NEXT_OWNER = {"epoch": sagas.c.epoch + 1, "owner": bindparam("owner"), "due_at": bindparam("new_due_at")}
CLAIM = update(sagas).where(_OWNED, sagas.c.due_at <= bindparam("due_by")).values(_NEXT_OWNER)
CLAIM_AS_SEEN = update(sagas).where(_OWNED, sagas.c.due_at == bindparam("seen")).values(_NEXT_OWNER)
PREEMPT = update(sagas).where(_OWNED, sagas.c.state == bindparam("in_state")).values(_NEXT_OWNER)
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
_BUILT_IN = or_(sagas.c.owner.is_(None), sagas.c.owner != TEMPORAL)
DUE = (  # of no owner, and of this one (of any, where none is given): what another holds is watched first
    select(sagas.c.id, sagas.c.epoch)
    .where(
        sagas.c.due_at <= bindparam("now"),
        _BUILT_IN,
        or_(
            sagas.c.owner.is_(None),
            sagas.c.owner == NOBODY,
            sagas.c.owner == func.coalesce(bindparam("owner", type_=String), sagas.c.owner),
        ),
    )
    .order_by(sagas.c.due_at)
    .limit(bindparam("most"))
)
ENDING = (  # leases of others that have ended, or will soon: those that are still renewed do not stay here
    select(sagas.c.id, sagas.c.epoch, sagas.c.due_at)
    .where(
        sagas.c.due_at <= bindparam("soon"),
        sagas.c.owner.is_not(None),
        sagas.c.owner.not_in([NOBODY, TEMPORAL]),
        sagas.c.owner != bindparam("owner"),
    )
    .order_by(sagas.c.due_at)
    .limit(bindparam("most"))
)
AHEAD = (  # due later than any lease or rest that begins now; a choreographed saga's deadline is none
    select(sagas.c.id, sagas.c.epoch, sagas.c.due_at)
    .where(
        sagas.c.due_at > bindparam("beyond"),
        _BUILT_IN,
        or_(sagas.c.owner.is_not(None), sagas.c.deadline_at.is_(None), sagas.c.due_at != sagas.c.deadline_at),
        or_(
            and_(sagas.c.state.in_(_STALLED), sagas.c.due_at > bindparam("longest_rest")),
            and_(sagas.c.state.not_in(_STALLED), sagas.c.due_at > bindparam("longest_lease")),
        ),
    )
    .order_by(sagas.c.due_at)
    .limit(bindparam("most"))
)
UNSTARTED = (  # whose workflow has perhaps not been started: nothing of it has been written here
    select(sagas.c.id)
    .where(sagas.c.due_at <= bindparam("now"), sagas.c.owner == TEMPORAL, sagas.c.epoch == 1)
    .order_by(sagas.c.due_at)
    .limit(bindparam("most"))
)
AS_IT_IS = select(sagas.c.id, sagas.c.epoch, sagas.c.due_at).where(
    sagas.c.id.in_(bindparam("saga_ids", expanding=True)), sagas.c.due_at.is_not(None)
)
FREE_OWNER = (  # what a process of this name left behind: it is gone, or this one would not have its port
    update(sagas)
    .where(
        sagas.c.owner == bindparam("gone"),
        sagas.c.due_at > bindparam("now"),
        sagas.c.due_at < bindparam("before"),
    )
    .values(due_at=bindparam("now"), owner=NOBODY)
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
LAST_SEQ = select(func.max(saga_log.c.seq)).where(saga_log.c.saga_id == bindparam("saga_id"))
# While this is held, the driver's next write waits until the transaction has ended.
HOLD = FIND.where(sagas.c.state.in_(bindparam("states", expanding=True))).with_for_update()
NOTED = (
    select(saga_log.c.seq)
    .where(saga_log.c.saga_id == bindparam("saga_id"), saga_log.c.event == bindparam("event"))
    .limit(1)
)
NOTE = insert(saga_log)
NOTE_IN_ROW = update(sagas).where(sagas.c.id == bindparam("of")).values(context=bindparam("new_context"))
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
RAW_RESULTS = (
    select(*(type_coerce(column, NullType()).label(column.name) for column in saga_results.c))
    .where(saga_results.c.saga_id == bindparam("saga_id"))
    .order_by(saga_results.c.step)
)
# An unreadable saga that an operator has ended: its other columns stay as they are.
END_UNREADABLE = (
    update(sagas)
    .where(sagas.c.id == bindparam("saga_id"), sagas.c.state.not_in(sorted(ENDED)))
    .values(state=bindparam("new_state"), ended_at=bindparam("now"), owner=None, due_at=None, epoch=sagas.c.epoch + 1)
)


def _count_unended(states: Collection[State]) -> Select[Any]:
    """How many there are in these states, looked for up to `most`, and of these, how many have such a trouble."""
    columns = (sagas.c.rounds, sagas.c.owner, sagas.c.due_at, sagas.c.deadline_at)
    found = select(*columns).where(sagas.c.state.in_(sorted(states))).limit(bindparam("most")).subquery()
    # Choreographed, and its deadline has passed: nobody drives it, and nobody looks at it again.
    overdue = and_(found.c.owner.is_(None), found.c.due_at.is_(None), found.c.deadline_at.is_not(None))
    attention = or_(found.c.rounds >= bindparam("attention"), overdue)
    return select(
        func.count().label("number"),
        func.coalesce(func.sum(case((overdue, 1), else_=0)), 0).label("overdue"),
        func.coalesce(func.sum(case((attention, 1), else_=0)), 0).label("attention"),
    ).select_from(found)


# By the index of the states: those that have ended, which are most of the table, are not looked at.
COUNT_STALLED, COUNT_MOVING = _count_unended(STALLED), _count_unended(UNENDED - STALLED)
OLDEST_DUE = select(func.min(sagas.c.due_at).label("due_at")).where(sagas.c.due_at <= bindparam("now"))
PING = select(func.count()).select_from(select(sagas.c.id).limit(1).subquery())
