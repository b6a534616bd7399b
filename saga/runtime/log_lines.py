"""`LogLines` reads lines of the log by their ids, of all sagas or of one, for the tail and for lists of lines."""

from __future__ import annotations

from sqlalchemy import RowMapping

from saga.machine import Line
from saga.saga_log import ALL_LINES, SagaLog
from saga.storage import log_sql as sql
from saga.unreadable import line_of


class LogLines:
    """Reads lines across sagas, or backwards. Every method may raise LogUnavailable."""

    def __init__(self, log: SagaLog):
        self._database = log.database

    def latest(self, most: int) -> list[tuple[str, Line]]:
        """Return the newest lines of all sagas, newest first, each with its saga's id."""
        return [(_saga_id(row), line_of(row)) for row in self._database.select(sql.LATEST_LINES, {"most": most})]

    def of_saga(self, saga_id: str, before: int | None, most: int, step: str | None = None) -> list[Line]:
        """Return the newest lines of a saga below the number `before`, newest first; with `step`, only its lines."""
        values = {"saga_id": saga_id, "before": ALL_LINES if before is None else before, "most": most}
        if step is None:
            return [line_of(row) for row in self._database.select(sql.LINES_BEFORE, values)]
        return [line_of(row) for row in self._database.select(sql.LINES_OF_STEP_BEFORE, {**values, "step": step})]

    def count_in_call(self, saga_id: str, step: str, event: str, before: int) -> int:
        """Return how many lines of this event the last call of `step` that has lines below `before` has, below it."""
        values = {"saga_id": saga_id, "step": step, "event": event, "before": before}
        return int(self._database.select(sql.COUNT_IN_CALL, values)[0]["number"])

    def last_id(self) -> int:
        """Return the highest id of a line; 0 where there is none."""
        return int(self._database.select(sql.LAST_LINE_ID, {})[0]["id"])

    def ids(self, after: int, most: int) -> list[int]:
        """Return the ids above `after` whose lines are committed, lowest first."""
        return [row["id"] for row in self._database.select(sql.LINE_IDS, {"after": after, "most": most})]

    def any_between(self, first: int, last: int) -> bool:
        """Return whether there is a line with an id from `first` to `last`, committed or not."""
        seeing_all = self._database.engine.execution_options(isolation_level="READ UNCOMMITTED")
        return bool(self._database.select(sql.ANY_ID_BETWEEN, {"first": first, "last": last}, seeing_all))

    def between(self, after: int, upto: int, most: int) -> list[tuple[int, str, Line]]:
        """Return the lines with ids above `after` and up to `upto`, lowest first, as (id, the saga's id, line)."""
        rows = self._database.select(sql.LINES_BETWEEN, {"after": after, "upto": upto, "most": most})
        return [(row["id"], _saga_id(row), line_of(row)) for row in rows]


def _saga_id(row: RowMapping) -> str:
    """Return the id of a line's saga in ASCII, even where the column holds no text, which SQLite allows."""
    return str(row["saga_id"]).encode("ascii", "backslashreplace").decode()
