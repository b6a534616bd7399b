"""`end_unreadable` lets `Operator` end a saga that this version cannot read, in a state that a person names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from saga.errors import LeaseLost
from saga.machine import Event, Line, State
from saga.saga_log import SagaLog
from saga.storage import log_sql as sql
from saga.storage.statement_batch import execute_batch

NUMBER_IF_UNKNOWN = 1_000_000_000  # the number of a line where the number of the last one cannot be read


def end_unreadable(log: SagaLog, saga_id: str, state: State, now: float, detail: Mapping[str, Any]) -> None:
    """Set a saga's state to one in which it has ended, and add a line with this detail; all else stays as it is.

    Raises LeaseLost where it has ended already, and LogUnavailable.
    """

    def work(connection: Connection) -> None:
        values = {"saga_id": saga_id, "new_state": state, "now": now}
        if connection.execute(sql.END_UNREADABLE, values).rowcount != 1:
            raise LeaseLost(saga_id)
        last = connection.execute(sql.LAST_SEQ, {"saga_id": saga_id}).scalar_one()
        line = Line(last + 1 if isinstance(last, int) else NUMBER_IF_UNKNOWN, now, Event.RESOLVED, detail=detail)
        row = log.database.bind(sql.WRITE_LINES, {**vars(line), "saga_id": saga_id})
        execute_batch(connection, (sql.WRITE_LINES, [row]), with_commit=True)

    log.database.run(work)
    log.aside.drop(saga_id)
