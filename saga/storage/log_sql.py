"""Every statement by which the saga log is written, claimed and followed: each has a name, a comment, and is static.

The tables are in log_tables.py. What only lists, counts and searches need is in search_sql.py.

Two rules run through the statements. Who writes to a saga's row names the epoch that it holds; where another has raised
it meanwhile, no row is found, and the writer knows that the saga is another's. And `due_at` alone says when somebody
has to look at a saga: it is the end of a lease, the end of a stalled saga's rest, or NULL where nobody need look.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BindParameter,
    String,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    type_coerce,
    update,
)
from sqlalchemy.types import NullType

from saga.machine import ATTEMPT, ENDED, STALLED
from saga.saga_row import NOBODY, WORKFLOW
from saga.storage.log_tables import saga_log, saga_results, sagas
from saga.storage.statement_batch import Statement

_STALLED = [state.value for state in sorted(STALLED)]
THESE: BindParameter[Any] = bindparam("saga_ids", expanding=True)
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
IN_STATES = sagas.c.state.in_(bindparam("states", expanding=True))

# FIND and its kin read rows by what is unique in them. What actions answered is read by RESULTS_OF.
FIND = select(sagas).where(sagas.c.id == bindparam("saga_id"))
FIND_BY_KEY = select(sagas).where(sagas.c.idempotency_key == bindparam("key"))
FIND_MANY = select(sagas).where(sagas.c.id.in_(THESE))
FIND_MANY_BARE = select(*BARE).where(sagas.c.id.in_(THESE))
ID_BY_KEY = select(sagas.c.id).where(sagas.c.idempotency_key == bindparam("key"))
RESULTS_OF = select(saga_results).where(saga_results.c.saga_id.in_(THESE))
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
FORGET_LINES = delete(saga_log).where(saga_log.c.saga_id.in_(THESE))
FORGET_RESULTS = delete(saga_results).where(saga_results.c.saga_id.in_(THESE))
FORGET = delete(sagas).where(sagas.c.id.in_(THESE))

# PING reads at most one row: it tells that the tables are there and can be read.
PING = select(func.count()).select_from(select(sagas.c.id).limit(1).subquery())
