"""The inbox: a table that keeps the secrets that a choreographed step was sent, and the fields that it acted with.

Its compensation gets the same fields as its action, and the event that asks for the compensation does not carry them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    Column,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    bindparam,
    cast,
    delete,
    insert,
    select,
)

from saga.storage.column_types import Json, Token, UtcTime
from saga.storage.database import transaction
from saga.storage.statement_batch import Row, Statement

# The `giver` of the fields that the step itself acted with. It is not the step's position, which changes when a step is
# added to the saga.
OWN = -2
ROWS_KEPT_SECONDS = (
    90 * 86_400.0
)  # seconds that a row is kept: a parked saga may be turned back so long after its action

metadata = MetaData()

saga_inbox = Table(
    "saga_inbox",
    metadata,
    Column("saga_id", Token(255), primary_key=True),
    Column("step", Token(64), primary_key=True),
    # The position of the step that sent the fields; -1: whoever started the saga; or OWN.
    Column("giver", Integer, primary_key=True),
    Column("fields", Json, nullable=False),
    Column("created_at", UtcTime, nullable=False, index=True),
)

_ANEW = insert(saga_inbox).prefix_with("OR IGNORE", dialect="sqlite").prefix_with("IGNORE", dialect="mysql")
WRITE = Statement(_ANEW, *(column.name for column in saga_inbox.c))
READ = (
    select(saga_inbox.c.giver, cast(saga_inbox.c.fields, LargeBinary).label("fields"))
    .where(saga_inbox.c.saga_id == bindparam("saga_id"), saga_inbox.c.step == bindparam("step"))
    .order_by(saga_inbox.c.giver)
)
HAS_ACTED = select(saga_inbox.c.giver).where(
    saga_inbox.c.saga_id == bindparam("saga_id"),
    saga_inbox.c.step == bindparam("step"),
    saga_inbox.c.giver == bindparam("giver"),
)
FORGET = delete(saga_inbox).where(saga_inbox.c.created_at < bindparam("before"))


class InboxUnreadable(Exception):
    """A row of the inbox holds no JSON object: the step cannot know what it acted with, until somebody mends it."""


def remembered(
    engine: Engine, saga_id: str, step: str, sender: int, fields: Mapping[str, Any]
) -> list[tuple[Statement, Sequence[Row]]]:
    """Return the statement that writes the fields, and its row, for `execute_batch`.

    A row that is there already stays as it is.
    """
    row = {"saga_id": saga_id, "step": step, "giver": sender, "fields": fields, "created_at": time.time()}
    return [(WRITE, [WRITE.bind(engine.dialect, row)])]


def recall(engine: Engine, saga_id: str, step: str) -> dict[int, dict[str, Any]]:
    """Return the fields by `giver`, in that order.

    Raises InboxUnreadable where a row is broken, and OutcomeUnknown or SQLAlchemyError.
    """
    with transaction(engine) as connection:
        rows = connection.execute(READ, {"saga_id": saga_id, "step": step}).mappings().all()
    return {row["giver"]: _object(row["fields"], step, row["giver"]) for row in rows}


def _object(text: bytes, step: str, giver: int) -> dict[str, Any]:
    try:
        found = json.loads(bytes(text))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        row = f"its row in the saga_inbox of {step}, giver {giver}"
        raise InboxUnreadable(f"what {step} remembers of this saga is not a JSON object: mend {row}, then replay this")
    return found


def has_acted(execute: Callable[..., Any], saga_id: str, step: str) -> bool:
    """Return whether the step has published that its action took effect: the row of OWN is written in that transaction.

    `execute` is that of the transaction in which the row is looked for.
    """
    return execute(HAS_ACTED, {"saga_id": saga_id, "step": step, "giver": OWN}).first() is not None


def forget(engine: Engine, now: float) -> None:
    """Delete the rows that are older than 90 days. Raises OutcomeUnknown or SQLAlchemyError."""
    with transaction(engine) as connection:
        connection.execute(FORGET, {"before": now - ROWS_KEPT_SECONDS})
