"""The saga log's tables and statements: the storage's specification. Each statement has a name, and is static.

On MySQL the tables are those of db/init.sql; a test holds the two against each other.

Two rules run through the statements. Who writes to a saga's row names the epoch that it holds; where another has raised
it meanwhile, no row is found, and the writer knows that the saga is another's. And `due_at` alone says whether a saga
wants somebody: it is the end of a lease, the end of a stalled saga's rest, or NULL where nobody need come.
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

from saga.machine import ATTEMPT, ENDED, STALLED, UNENDED, State
from saga.saga_row import NOBODY, WORKFLOW
from saga.storage.column_types import Float, Json, Token, UtcTime
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
    Column("owner", String(255)),  # NULL: nobody drives it; else a process, or NOBODY or WORKFLOW of saga/saga_row.py
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

_STALLED = [state.value for state in sorted(STALLED)]
_THESE: BindParameter[Any] = bindparam("saga_ids", expanding=True)
_HELD = and_(sagas.c.id == bindparam("saga_id"), sagas.c.epoch == bindparam("held"))  # nobody else has it since


# Starting a saga and moving it on

# BEGIN adds a saga's row. A second one with its id or its idempotency key is refused, as a duplicate.
BEGIN = Statement(insert(sagas), *(column.name for column in sagas.c))

# ADVANCE writes what a driver has moved, all of it each time. It finds no row where the driver's epoch has passed.
_MOVED = ("epoch", "state", "cursor", "context", "rounds", "error", "ended_at", "owner", "due_at")
ADVANCE = Statement(update(sagas).where(_HELD).values({name: bindparam(name) for name in _MOVED}))

# WRITE_LINES adds lines, always in the transaction of the row that they led to. A saga has no two with one number.
WRITE_LINES = Statement(insert(saga_log), *(column.name for column in saga_log.c if column.name != "id"))

# WRITE_RESULTS adds what actions answered. A step has one answer; a second one is refused, as a duplicate.
WRITE_RESULTS = Statement(insert(saga_results), *(column.name for column in saga_results.c))


# Leases and claims

_NEXT_OWNER = {"epoch": sagas.c.epoch + 1, "owner": bindparam("owner"), "due_at": bindparam("new_due_at")}

# RENEW prolongs a lease that is still held; a saga that has ended or rests has none.
RENEW = update(sagas).where(_HELD, sagas.c.due_at.is_not(None)).values(due_at=bindparam("new_due_at"))

# LET_GO makes a saga due at once whose call is under way, so that another may claim it and make the call again.
LET_GO = update(sagas).where(_HELD, sagas.c.due_at.is_not(None)).values(due_at=bindparam("now"), owner=NOBODY)

# CLAIM takes over a saga that is due, and raises its epoch: of several who try, one finds the row.
CLAIM = update(sagas).where(_HELD, sagas.c.due_at <= bindparam("due_by")).values(_NEXT_OWNER)

# CLAIM_AS_SEEN takes over a saga whose lease was watched until it ended, unless it has been renewed since.
CLAIM_AS_SEEN = update(sagas).where(_HELD, sagas.c.due_at == bindparam("seen")).values(_NEXT_OWNER)

# PREEMPT takes a saga over for an operator, whoever holds it, as long as it is in the state that the operator saw.
PREEMPT = update(sagas).where(_HELD, sagas.c.state == bindparam("in_state")).values(_NEXT_OWNER)

# POSTPONE lets a saga that nobody drives rest longer.
POSTPONE = update(sagas).where(_HELD, sagas.c.owner.is_(None)).values(due_at=bindparam("new_due_at"))

# FREE_OWNER makes due what a process of this name left behind: it is gone, or its successor would not have its port.
FREE_OWNER = (
    update(sagas)
    .where(
        sagas.c.owner == bindparam("gone"),
        sagas.c.due_at > bindparam("now"),
        sagas.c.due_at < bindparam("before"),
    )
    .values(due_at=bindparam("now"), owner=NOBODY)
)


# What wants somebody

_BUILT_IN = or_(sagas.c.owner.is_(None), sagas.c.owner != WORKFLOW)

# DUE finds what may be claimed now: sagas that are due and nobody's, or this owner's (anybody's where none is given).
# A lease of another's that seems to have ended is watched first: ENDING.
DUE = (
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

# ENDING finds leases of others that have ended, or will soon. Those that are renewed do not stay among them.
ENDING = (
    select(sagas.c.id, sagas.c.epoch, sagas.c.due_at)
    .where(
        sagas.c.due_at <= bindparam("soon"),
        sagas.c.owner.is_not(None),
        sagas.c.owner.not_in([NOBODY, WORKFLOW]),
        sagas.c.owner != bindparam("owner"),
    )
    .order_by(sagas.c.due_at)
    .limit(bindparam("most"))
)

# AHEAD finds sagas that are due later than any lease or rest that begins now, as a clock that was set has left them.
# The deadline of a choreographed saga is neither a lease nor a rest.
AHEAD = (
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

# AS_IT_IS tells when these sagas are due now, and under which epoch; of those that are never due it tells nothing.
AS_IT_IS = select(sagas.c.id, sagas.c.epoch, sagas.c.due_at).where(
    sagas.c.id.in_(bindparam("saga_ids", expanding=True)), sagas.c.due_at.is_not(None)
)

# UNSTARTED finds sagas whose workflow has perhaps not been started: no workflow has written anything of them here.
UNSTARTED = (
    select(sagas.c.id)
    .where(sagas.c.due_at <= bindparam("now"), sagas.c.owner == WORKFLOW, sagas.c.epoch == 1)
    .order_by(sagas.c.due_at)
    .limit(bindparam("most"))
)


# One saga, or several by their ids

BARE = [column for column in sagas.c if column.name != "input"]  # without what a caller or a step gave

# FIND and its kin read rows by what is unique in them. What actions answered is read by RESULTS_OF.
FIND = select(sagas).where(sagas.c.id == bindparam("saga_id"))
FIND_BY_KEY = select(sagas).where(sagas.c.idempotency_key == bindparam("key"))
FIND_MANY = select(sagas).where(sagas.c.id.in_(_THESE))
FIND_MANY_BARE = select(*BARE).where(sagas.c.id.in_(_THESE))
ID_BY_KEY = select(sagas.c.id).where(sagas.c.idempotency_key == bindparam("key"))
RESULTS_OF = select(saga_results).where(saga_results.c.saga_id.in_(_THESE))
INPUTS_OF = select(sagas.c.id, sagas.c.input).where(sagas.c.id.in_(_THESE))

# SIZES_OF tells how many bytes INPUTS_OF and RESULTS_OF would give of each saga, without sending them.
_BYTES = func.coalesce(func.sum(func.length(cast(saga_results.c.result, LargeBinary))), 0)
SIZES_OF = select(
    sagas.c.id,
    (
        func.length(cast(sagas.c.input, LargeBinary))
        + select(_BYTES).where(saga_results.c.saga_id == sagas.c.id).scalar_subquery()
    ).label("bytes"),
).where(sagas.c.id.in_(_THESE))


# Lists of sagas: SEARCH, narrowed by any of the conditions below

# SEARCH finds the newest sagas first: an id is a UUIDv7, so ids are in the order of the starts.
SEARCH = select(*BARE).order_by(sagas.c.id.desc()).limit(bindparam("most"))

IN_STATES = sagas.c.state.in_(bindparam("states", expanding=True))
NAMED = sagas.c.name == bindparam("name")
BEFORE = sagas.c.id < bindparam("before")  # the next page
ENDED_SINCE = sagas.c.ended_at >= bindparam("ended_since")
# Ranges of the primary key, not LIKE: quick, however many sagas there are.
BEGINS = sagas.c.id.between(bindparam("beginning"), bindparam("beginning_ends"))
BEGINS_OR_HAS_KEY = or_(BEGINS, sagas.c.id == bindparam("of_key"))

# The gaps between the states that are known, as ranges of the states' index.
_KNOWN = sorted(state.value for state in State)
_GAPS = [
    sagas.c.state < _KNOWN[0],
    *(and_(sagas.c.state > lower, sagas.c.state < upper) for lower, upper in pairwise(_KNOWN)),
    sagas.c.state > _KNOWN[-1],
]
_STATE_UNKNOWN = or_(*_GAPS)
_SET_ASIDE = sagas.c.id.in_(bindparam("aside", expanding=True))

# KNOWN_TO_BE_UNREADABLE holds for what this process has set aside, and for every state of a newer version.
KNOWN_TO_BE_UNREADABLE = or_(_SET_ASIDE, _STATE_UNKNOWN)

# A choreographed saga whose deadline has passed: nobody drives it, and nobody looks at it again. (Of a saga that a
# workflow drives the workflow minds the deadline, and it has an owner.)
_OVERDUE = and_(sagas.c.due_at.is_(None), sagas.c.owner.is_(None), sagas.c.deadline_at.is_not(None))

# NEEDS_ATTENTION holds for what has not ended, and has stalled too often, is overdue, or cannot be read. It looks only
# at the few that have not ended, by the index of the states.
_TROUBLED = or_(sagas.c.rounds >= bindparam("attention"), _OVERDUE, _SET_ASIDE)
NEEDS_ATTENTION = or_(and_(sagas.c.state.in_(UNENDED), _TROUBLED), _STATE_UNKNOWN)


# How many there are

# COUNT_STATES counts the sagas in each state, each up to `most`: nobody waits for the whole of a large table.
COUNT_STATES = union_all(
    *(
        select(literal(state.value).label("state"), func.count().label("number")).select_from(
            select(sagas.c.id).where(sagas.c.state == state.value).limit(bindparam("most")).subquery()
        )
        for state in State
    )
)

# COUNT_UNKNOWN_STATES counts the sagas in states that this version does not know; the sum of its rows.
COUNT_UNKNOWN_STATES = union_all(
    *(
        select(func.count().label("number")).select_from(
            select(sagas.c.id).where(gap).limit(bindparam("most")).subquery()
        )
        for gap in _GAPS
    )
)


def _count_unended(states: Collection[State]) -> Select[Any]:
    """Counts sagas in these states, up to `most`; and of those, how many are overdue, and how many need attention."""
    columns = (sagas.c.rounds, sagas.c.owner, sagas.c.due_at, sagas.c.deadline_at)
    found = select(*columns).where(sagas.c.state.in_(sorted(states))).limit(bindparam("most")).subquery()
    overdue = and_(found.c.owner.is_(None), found.c.due_at.is_(None), found.c.deadline_at.is_not(None))
    attention = or_(found.c.rounds >= bindparam("attention"), overdue)
    return select(
        func.count().label("number"),
        func.coalesce(func.sum(case((overdue, 1), else_=0)), 0).label("overdue"),
        func.coalesce(func.sum(case((attention, 1), else_=0)), 0).label("attention"),
    ).select_from(found)


# COUNT_STALLED and COUNT_MOVING count what has not ended, by the index of the states: what has, which is most of the
# table, is not looked at.
COUNT_STALLED, COUNT_MOVING = _count_unended(STALLED), _count_unended(UNENDED - STALLED)

# OLDEST_DUE tells since when the saga is due that has been so for the longest time; NULL where none is.
OLDEST_DUE = select(func.min(sagas.c.due_at).label("due_at")).where(sagas.c.due_at <= bindparam("now"))


# Lines

# LINES reads a saga's lines in their order, from a number on; LINES_AT those with certain numbers.
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

# LINES_BEFORE reads a saga's latest lines below a number, newest first; LINES_OF_STEP_BEFORE those of one step.
LINES_BEFORE = (
    select(saga_log)
    .where(saga_log.c.saga_id == bindparam("saga_id"), saga_log.c.seq < bindparam("before"))
    .order_by(saga_log.c.seq.desc())
    .limit(bindparam("most"))
)
LINES_OF_STEP_BEFORE = LINES_BEFORE.where(saga_log.c.step == bindparam("step"))

# COUNT_IN_CALL counts the lines of an event that a call of a step has below a number: since its attempt number 1.
_OF_STEP = and_(
    saga_log.c.saga_id == bindparam("saga_id"),
    saga_log.c.step == bindparam("step"),
    saga_log.c.seq < bindparam("before"),
)
_CALL_BEGAN = select(func.max(saga_log.c.seq)).where(_OF_STEP, saga_log.c.event == ATTEMPT, saga_log.c.attempt == 1)
COUNT_IN_CALL = select(func.count().label("number")).where(
    _OF_STEP,
    saga_log.c.event == bindparam("event"),
    saga_log.c.seq > func.coalesce(_CALL_BEGAN.scalar_subquery(), 0),
)

# LAST_SEQ tells the number of a saga's last line; NULL where it has none.
LAST_SEQ = select(func.max(saga_log.c.seq)).where(saga_log.c.saga_id == bindparam("saga_id"))

# LATEST_LINES reads the newest lines of all sagas, newest first.
LATEST_LINES = select(saga_log).order_by(saga_log.c.id.desc()).limit(bindparam("most"))

# LAST_LINE_ID tells the highest id that is committed; 0 where there is none.
LAST_LINE_ID = select(func.coalesce(func.max(saga_log.c.id), 0).label("id"))

# LINE_IDS tells the ids that are committed after one, in their order: what is missing between them is a hole.
LINE_IDS = (
    select(saga_log.c.id).where(saga_log.c.id > bindparam("after")).order_by(saga_log.c.id).limit(bindparam("most"))
)

# ANY_ID_BETWEEN tells whether there is a line in a hole; read uncommitted, also whether one is about to be.
ANY_ID_BETWEEN = select(saga_log.c.id).where(saga_log.c.id.between(bindparam("first"), bindparam("last"))).limit(1)

# LINES_BETWEEN reads the lines of all sagas in the order of their ids.
LINES_BETWEEN = (
    select(saga_log)
    .where(saga_log.c.id > bindparam("after"), saga_log.c.id <= bindparam("upto"))
    .order_by(saga_log.c.id)
    .limit(bindparam("most"))
)


# A note beside the driver's own lines: all four in one transaction

# HOLD locks a saga's row where it is in one of these states: its driver's next write waits for this transaction.
HOLD = FIND.where(IN_STATES).with_for_update()

# NOTED tells the number of a line of this event, where the saga has one.
NOTED = (
    select(saga_log.c.seq)
    .where(saga_log.c.saga_id == bindparam("saga_id"), saga_log.c.event == bindparam("event"))
    .limit(1)
)

# NOTE adds the line, and NOTE_IN_ROW what the row must say after it; neither touches epoch, owner, or due_at.
NOTE = insert(saga_log)
NOTE_IN_ROW = update(sagas).where(sagas.c.id == bindparam("of")).values(context=bindparam("new_context"))


# What an operator does to a saga that cannot be read, and to old ones

# RAW_SAGA, RAW_LINES and RAW_RESULTS read every column as the driver gives it, so that nothing in it is an error.
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

# END_UNREADABLE ends a saga that has not ended; its other columns stay as they are. Whoever drives it loses it.
END_UNREADABLE = (
    update(sagas)
    .where(sagas.c.id == bindparam("saga_id"), sagas.c.state.not_in(sorted(ENDED)))
    .values(state=bindparam("new_state"), ended_at=bindparam("now"), owner=None, due_at=None, epoch=sagas.c.epoch + 1)
)

# ENDED_BEFORE finds the oldest sagas that ended before a time. An id tells when its saga began, so `started_before`
# keeps it from looking through all that are younger.
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

# FORGET_LINES, FORGET_RESULTS and FORGET delete all that there is of these sagas, in this order.
FORGET_LINES = delete(saga_log).where(saga_log.c.saga_id.in_(_THESE))
FORGET_RESULTS = delete(saga_results).where(saga_results.c.saga_id.in_(_THESE))
FORGET = delete(sagas).where(sagas.c.id.in_(_THESE))

# PING reads at most one row: it tells that the tables are there and can be read.
PING = select(func.count()).select_from(select(sagas.c.id).limit(1).subquery())
