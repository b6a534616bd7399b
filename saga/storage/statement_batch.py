"""A `Statement` is compiled once and executed often; `execute_batch` sends several of them to the database together.

`Statement` and `execute_batch()` are all that others use. The package's docstring says what they save, and what the
plain version is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Dialect, Engine
from sqlalchemy.sql import ClauseElement

Row = tuple[Any, ...]
PLAIN = "saga_plain"  # the execution option of an engine whose statements SQLAlchemy executes, one by one


class Statement:
    """An INSERT of one row, or an UPDATE, of SQLAlchemy Core; `names` are those of its values."""

    def __init__(self, core: ClauseElement, *names: str):
        self._core = core
        self._names = names
        self._texts: dict[str, _Text] = {}

    def bind(self, dialect: Dialect, values: Mapping[str, Any]) -> Row:
        """Return the values in the order and the form in which the driver takes them."""
        parameters = self.text(dialect).parameters
        return tuple([convert(values[name]) if convert else values[name] for name, convert in parameters])

    def text(self, dialect: Dialect) -> _Text:
        """Return the statement's SQL in this dialect."""
        known = self._texts.get(dialect.name)
        return known or self._texts.setdefault(dialect.name, self._compiled(dialect))

    def _compiled(self, dialect: Dialect) -> _Text:
        compiled: Any = self._core.compile(dialect=dialect, column_keys=list(self._names))
        types = {name: bind.type.dialect_impl(dialect) for name, bind in compiled.binds.items()}
        return _Text(str(compiled), [(name, types[name].bind_processor(dialect)) for name in compiled.positiontup])


@dataclass(frozen=True)
class _Text:
    sql: str
    parameters: Sequence[tuple[str, Callable[[Any], Any] | None]]

    def of(self, rows: int) -> str:
        """Return the SQL for so many rows of an INSERT; an UPDATE takes one."""
        if rows == 1:
            return self.sql
        head, values, row = self.sql.partition(" VALUES ")
        return head + values + ", ".join([row] * rows)


Sent = tuple[Statement, Sequence[Row]]  # a statement with its rows of bound values


def execute_batch(connection: Connection, *sent: Sent, with_commit: bool = False) -> list[int]:
    """Execute statements, each with its rows of bound values, and return how many rows each one found.

    `with_commit` says that nothing follows but the COMMIT. On MySQL the statements then travel with it: nothing is
    returned, and the COMMIT raises what goes wrong. Errors are SQLAlchemy's.
    """
    if is_plain(connection):
        return _one_by_one(connection, sent)
    dialect = connection.dialect
    raw: Any = connection.connection.dbapi_connection
    texts = [statement.text(dialect).of(len(rows)) for statement, rows in sent]
    values = [tuple([value for row in rows for value in row]) for _, rows in sent]
    try:
        if dialect.name == "sqlite":
            # A cursor that is left open keeps the lock of a connection that is thrown away.
            with closing(raw.cursor()) as cursor:
                return [cursor.execute(sql, row).rowcount for sql, row in zip(texts, values, strict=True)]
        sql, together = "; ".join(texts), tuple([value for row in values for value in row])
        if with_commit:
            raw.sent_with_commit = (sql, together)
            return []
        found: list[int] = raw.execute(sql, together)
        return found
    except dialect.loaded_dbapi.Error as error:
        # SQLAlchemy's own way (private; checked with 2.1.9) from the driver's error to its own, which also gives up a
        # connection that is lost.
        connection._handle_dbapi_exception(error, "; ".join(texts), None, None, None)


def is_plain(bind: Engine | Connection) -> bool:
    """Return whether statements are executed one by one here, each by SQLAlchemy."""
    return PLAIN in bind.get_execution_options()


def _one_by_one(connection: Connection, sent: Sequence[Sent]) -> list[int]:
    for value in [value for _, rows in sent for row in rows for value in row]:
        if isinstance(value, str):
            value.encode()  # UnicodeEncodeError, as on SQLite; the MySQL driver's error would be none of SQLAlchemy's
    return [
        sum(connection.exec_driver_sql(statement.text(connection.dialect).sql, row).rowcount for row in rows)
        for statement, rows in sent
    ]
