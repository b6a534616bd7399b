"""The statements behind lists, searches and counts of sagas, which the views in saga/views use. None of them writes.

Each has a name, a comment, and is static, as those in log_sql.py are.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Any

from sqlalchemy import (
    ColumnElement,
    LargeBinary,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    union_all,
)

from saga.machine import STALLED, UNENDED, State
from saga.storage.log_sql import BARE, THESE
from saga.storage.log_tables import saga_results, sagas

# Lists of sagas: SEARCH, narrowed by any of the conditions below

# SEARCH finds the newest sagas first: an id is a UUIDv7, so ids are in the order of the starts.
SEARCH = select(*BARE).order_by(sagas.c.id.desc()).limit(bindparam("most"))

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

# A choreographed saga whose deadline has passed: nobody drives it, and nobody looks at it again. (Of a saga that a
# workflow drives the workflow minds the deadline, and it has an owner.)
_OVERDUE = and_(sagas.c.due_at.is_(None), sagas.c.owner.is_(None), sagas.c.deadline_at.is_not(None))

_TROUBLED = or_(sagas.c.rounds >= bindparam("attention"), _OVERDUE, sagas.c.id.in_(bindparam("aside", expanding=True)))


def _newest_in(state: State) -> Select[Any]:
    """Return a statement that tells the ids below `upper` of the newest troubled sagas in a state."""
    found = select(sagas.c.id).where(sagas.c.state == state.value, _TROUBLED, sagas.c.id < bindparam("upper"))
    newest = found.order_by(sagas.c.id.desc()).limit(bindparam("most")).subquery()
    return select(newest.c.id)


def _ids_in(gap: ColumnElement[bool]) -> Select[Any]:
    """Return a statement that tells the ids of sagas in a gap between the states, in any order."""
    found = select(sagas.c.id).where(gap).limit(bindparam("most")).subquery()
    return select(found.c.id)


# UNKNOWN_STATE_IDS finds sagas in states that this version does not know, and ATTENTION_IDS also those that have not
# ended, and have stalled too often, are overdue, or cannot be read. Each state is a SELECT of its own, and a range of
# states has no order: so all go by the index of the states, and the many that have ended are not looked at. AMONG
# narrows a search to such ids.
UNKNOWN_STATE_IDS = union_all(*map(_ids_in, _GAPS))
ATTENTION_IDS = union_all(*map(_newest_in, sorted(UNENDED)), *map(_ids_in, _GAPS))
AMONG = sagas.c.id.in_(bindparam("among", expanding=True))


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
    """Return a statement that counts sagas in these states: all, the overdue, and those that need attention.

    It looks at no more than `most` sagas.
    """
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


# The inputs and the results of sagas that were found

INPUTS_OF = select(sagas.c.id, sagas.c.input).where(sagas.c.id.in_(THESE))

# SIZES_OF tells how many bytes INPUTS_OF and RESULTS_OF would give of each saga, without sending them.
_BYTES = func.coalesce(func.sum(func.length(cast(saga_results.c.result, LargeBinary))), 0)
SIZES_OF = select(
    sagas.c.id,
    (
        func.length(cast(sagas.c.input, LargeBinary))
        + select(_BYTES).where(saga_results.c.saga_id == sagas.c.id).scalar_subquery()
    ).label("bytes"),
).where(sagas.c.id.in_(THESE))
