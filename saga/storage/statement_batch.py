"""Statements that are executed often: compiled once, and sent to MySQL several in one exchange.

A round trip costs more than a small statement does, on both sides: MySQL takes `a; b; c` as one packet (its
multi-statements), and the last statement of a transaction travels together with the COMMIT. SQLite has no round
trips; there they are executed one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import mysql.connector as mysql_driver
from mysql.connector import connection_cext
from mysql.connector.connection import MySQLConnection
from mysql.connector.connection_cext import CMySQLConnection
from mysql.connector.errors import DataError, get_mysql_exception
from sqlalchemy import Connection, Dialect, Engine, event
from sqlalchemy.sql import ClauseElement

Row = tuple[Any, ...]
TOO_LARGE = 1153  # ER_NET_PACKET_TOO_LARGE
NO_TEXT = 1366  # ER_TRUNCATED_WRONG_VALUE_FOR_FIELD


class Statement:
    """An INSERT of one row, or an UPDATE, of SQLAlchemy Core; `names` are those of its values."""

    def __init__(self, core: ClauseElement, *names: str):
        self._core = core
        self._names = names
        self._texts: dict[str, _Text] = {}

    def bind(self, dialect: Dialect, values: Mapping[str, Any]) -> Row:
        """The values as the driver takes them."""
        parameters = self.text(dialect).parameters
        return tuple([convert(values[name]) if convert else values[name] for name, convert in parameters])

    def text(self, dialect: Dialect) -> _Text:
        """What it is in the dialect."""
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
        """The INSERT of so many rows; an UPDATE is of one."""
        if rows == 1:
            return self.sql
        head, values, row = self.sql.partition(" VALUES ")
        return head + values + ", ".join([row] * rows)


def execute_batch(
    connection: Connection, *sent: tuple[Statement, Sequence[Row]], with_commit: bool = False
) -> list[int]:
    """Execute statements, each with its rows of bound values; gives how many rows each one found.

    `with_commit`: nothing follows but the COMMIT, and they travel with it; the COMMIT then raises what goes wrong.
    Errors are SQLAlchemy's; the way is the driver's own, since a Connection's costs more than a small statement.
    """
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
    except dialect.loaded_dbapi.Error as error:  # to SQLAlchemy's, with all it does for a connection that is lost
        connection._handle_dbapi_exception(error, "; ".join(texts), None, None, None)


def listen(engine: Engine) -> None:
    """Make the engine of a MySQL serve `execute_batch`."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        made = _connection_class()(*arguments, **options)
        with closing(made.cursor()) as cursor:
            cursor.execute("SELECT @@max_allowed_packet")
            made.packet = int(cursor.fetchone()[0])
        return made


class _FewerRoundTrips:
    """What the driver's connection does not do, or does at once, to save round trips."""

    sent_with_commit: tuple[str, Row] | None = None  # statements that are sent with the COMMIT
    packet = 1 << 62  # bytes: the server takes no larger one

    def check(self, sql: bytes) -> bytes:
        """The text, unless it is too large for the server, which would say so by hanging up.

        From a lost connection nobody could tell that the same text must not be sent again.
        """
        if len(sql) + 1 >= self.packet:  # with the byte that says what kind of packet it is
            raise DataError(f"{len(sql)} bytes are more than max_allowed_packet ({self.packet})", errno=TOO_LARGE)
        return sql

    def is_connected(self: Any) -> bool:
        """Asked for each new cursor: not by a ping, since the statement itself will tell."""
        return not self.is_closed()

    def commit(self: Any) -> None:
        """Commit, and what has waited for it."""
        sent_with_commit, self.sent_with_commit = self.sent_with_commit, None
        if sent_with_commit is None:
            super().commit()  # type: ignore[misc]
            return
        self.execute(f"{sent_with_commit[0]}; COMMIT", sent_with_commit[1])

    def rollback(self: Any) -> None:
        """Roll back, and forget what has waited for the COMMIT."""
        self.sent_with_commit = None
        super().rollback()  # type: ignore[misc]


class _CExtensionConnection(_FewerRoundTrips, CMySQLConnection):
    def execute(self, sql: str, values: Row) -> list[int]:
        """How many rows each of the statements found; without a cursor, which costs as much as the exchange."""
        try:
            bound = tuple(self.prepare_for_mysql(values))
        except connection_cext.MySQLInterfaceError as error:  # type: ignore[attr-defined]
            raise DataError(str(error), errno=NO_TEXT) from error
        self.cmd_query(self.check(sql.encode() % bound))
        driver: Any = self._cmysql
        found = [driver.affected_rows()]
        while self._follows():
            found.append(driver.affected_rows())
        return found

    def _follows(self) -> bool | None:
        """Whether there is another result; its error as the driver raises that of the first one, which it forgets."""
        try:
            return self.next_result()
        except connection_cext.MySQLInterfaceError as error:  # type: ignore[attr-defined]
            raise get_mysql_exception(error.errno, error.msg, error.sqlstate) from error


class _PythonConnection(_FewerRoundTrips, MySQLConnection):
    def execute(self, sql: str, values: Row) -> list[int]:
        """The same by a cursor."""
        self.check(sql.encode() + b"".join(str(value).encode() for value in values))
        cursor = self.cursor()
        cursor.execute(sql, values)
        found = [cursor.rowcount]
        while cursor.nextset():
            found.append(cursor.rowcount)
        cursor.close()
        return found


def _connection_class() -> type[Any]:
    return _CExtensionConnection if mysql_driver.HAVE_CEXT else _PythonConnection
