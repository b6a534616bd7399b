"""`raw_rows` reads a saga's row, results and lines as the database has them, for the raw export."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saga.saga_log import SagaLog
from saga.storage import log_sql as sql

RawRow = Mapping[str, Any]


def raw_rows(log: SagaLog, saga_id: str) -> tuple[RawRow, list[RawRow], list[RawRow]] | None:
    """Return the saga's row, its results and its lines; None where there is no such saga. Raises LogUnavailable."""
    found = log.database.select(sql.RAW_SAGA, {"saga_id": saga_id}) if saga_id.isascii() else ()
    if not found:
        return None
    results: list[RawRow] = [{**each} for each in log.database.select(sql.RAW_RESULTS, {"saga_id": saga_id})]
    return {**found[0]}, results, [{**line} for line in log.database.select(sql.RAW_LINES, {"saga_id": saga_id})]
