"""The three tables of the saga log: `sagas`, `saga_log` and `saga_results`. The statements on them are in log_sql.py.

On MySQL the tables are those of db/init.sql; tests/contract/test_schemas_agree.py holds the two against each other.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table

from saga.storage.column_types import Float, Json, Token, UtcTime

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
