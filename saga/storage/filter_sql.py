"""The statements by which sagas are looked through for what no index finds; they narrow SEARCH of search_sql.py.

What an index serves (the states, and the time of the start, with which an id begins) bounds what is looked at. The
rest (the mode, the failed step, a text in the input) is in columns of JSON: the database passes over those rows whose
text cannot be meant, and what is left is decoded and judged in Python. Who looks bounds how many rows are looked at.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Select, String, bindparam, func, or_, select, tuple_, type_coerce

from saga.payload import compact
from saga.storage.log_tables import saga_log, sagas
from saga.storage.search_sql import INPUTS_OF

# OLDEST_FIRST is the other order of a SEARCH; AFTER gives the next page of it.
OLDEST_FIRST = sagas.c.id.asc()
AFTER = sagas.c.id > bindparam("before")

# Ranges of the primary key, since an id begins with the millisecond of its start. `started_at` makes them exact.
STARTED_SINCE = (sagas.c.id >= bindparam("lowest_id")) & (sagas.c.started_at >= bindparam("since"))
STARTED_UNTIL = (sagas.c.id <= bindparam("highest_id")) & (sagas.c.started_at <= bindparam("until"))
WITHIN = sagas.c.id.between(bindparam("from_id"), bindparam("to_id"))


def ids_of(search: Select[Any]) -> Select[Any]:
    """Return the statement that tells only the ids of what a search finds."""
    return search.with_only_columns(sagas.c.id)


def spans_of(search: Select[Any]) -> Select[Any]:
    """Return the statement that tells the ids of what a search finds, each with its start and its end."""
    return search.with_only_columns(sagas.c.id, sagas.c.started_at, sagas.c.ended_at)


def says(column: Column[Any], word: str) -> ColumnElement[bool]:
    """Return a condition that holds where a JSON column has this word as a text, and perhaps where it has not."""
    return type_coerce(column, String).contains(compact(word), autoescape=True)


def ends_or_has(text: str) -> ColumnElement[bool]:
    """Return a condition that holds where the id ends with this text, or the input has it, in either case of A to Z."""
    inside = compact(text)[1:-1].lower()
    has = func.lower(type_coerce(sagas.c.input, String)).contains(inside, autoescape=True)
    return or_(sagas.c.id.endswith(text.lower(), autoescape=True), has) if text.isascii() else has


# SMALL_INPUTS_OF reads the inputs of these sagas that are no longer than `longest` characters.
SMALL_INPUTS_OF = INPUTS_OF.where(func.length(type_coerce(sagas.c.input, String)) <= bindparam("longest"))

# CODES_AT tells the status codes in these lines, each given by its saga and its number, in the order of their numbers.
CODES_AT = (
    select(saga_log.c.saga_id, saga_log.c.status_code)
    .where(
        tuple_(saga_log.c.saga_id, saga_log.c.seq).in_(bindparam("places", expanding=True)),
        saga_log.c.status_code.is_not(None),
    )
    .order_by(saga_log.c.seq)
)

# LATEST_SPANS reads how the sagas went that started last, newest first.
LATEST_SPANS = (
    select(sagas.c.id, sagas.c.state, sagas.c.started_at, sagas.c.ended_at)
    .where(sagas.c.id >= bindparam("lowest_id"))
    .order_by(sagas.c.id.desc())
    .limit(bindparam("most"))
)
