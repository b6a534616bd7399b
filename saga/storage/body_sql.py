"""The table of kept bodies, and its statements: what was sent in an attempt of a call, and what came back.

A row belongs to one line of `saga_log`, is written with it, and is deleted with its saga. What is in it was masked and
cut before (`saga/views/masked_exchange.py`). The orchestrator works without this table, and then keeps no bodies.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BindParameter, Column, Integer, MetaData, Table, bindparam, delete, func, insert, select

from saga.storage.column_types import Json, Token
from saga.storage.statement_batch import Statement

metadata = MetaData()

saga_bodies = Table(
    "saga_bodies",
    metadata,
    Column("saga_id", Token(36), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),  # of the attempt's line
    Column("request", Json, nullable=False),
    Column("response", Json, nullable=False),
    sqlite_with_rowid=False,
)

_THESE: BindParameter[Any] = bindparam("saga_ids", expanding=True)

# WRITE_BODIES adds what was exchanged in attempts, always in the transaction of their lines.
WRITE_BODIES = Statement(insert(saga_bodies), *(column.name for column in saga_bodies.c))

# BODIES_AT reads what was exchanged in those attempts of a saga whose lines have these numbers.
BODIES_AT = select(saga_bodies).where(
    saga_bodies.c.saga_id == bindparam("saga_id"), saga_bodies.c.seq.in_(bindparam("numbers", expanding=True))
)

# FORGET_BODIES deletes all that was kept of these sagas.
FORGET_BODIES = delete(saga_bodies).where(saga_bodies.c.saga_id.in_(_THESE))

# BODIES_THERE finds nothing, and fails where there is no such table, or it may not be read.
_NO_ROW = select(saga_bodies.c.seq).where(saga_bodies.c.saga_id == "").limit(1).subquery()
BODIES_THERE = select(func.count()).select_from(_NO_ROW)
