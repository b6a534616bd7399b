"""These MySQL connections save round trips: they send several statements in one packet, and the last with the COMMIT.

This is the only file that touches private parts of mysql-connector-python (`_cmysql`); it was checked with 9.7.0.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import mysql.connector as mysql_driver
from mysql.connector import connection_cext
from mysql.connector.connection import MySQLConnection
from mysql.connector.connection_cext import CMySQLConnection
from mysql.connector.errors import DataError, get_mysql_exception
from sqlalchemy import Engine, event

from saga.storage.statement_batch import Row

TOO_LARGE = 1153  # ER_NET_PACKET_TOO_LARGE
NO_TEXT = 1366  # ER_TRUNCATED_WRONG_VALUE_FOR_FIELD


def save_round_trips(engine: Engine) -> None:
    """Make the engine of a MySQL connect with the classes below: `execute_batch` needs them."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Any, record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        kind = _CExtensionConnection if mysql_driver.HAVE_CEXT else _PythonConnection
        made: Any = kind(*arguments, **options)
        with closing(made.cursor()) as cursor:
            cursor.execute("SELECT @@max_allowed_packet")
            made.packet_at_most = int(cursor.fetchone()[0])
        return made


class _FewerRoundTrips:
    """What both kinds of the driver's connections leave out, or do together."""

    sent_with_commit: tuple[str, Row] | None = None  # statements that are sent with the COMMIT
    packet_at_most = 1 << 62  # bytes: the server takes no larger one

    def check(self, sql: bytes) -> bytes:
        """Give `sql` back; raises DataError where the server would not take it, since it is too large.

        The server itself would close the connection, and nobody could tell that the same text must not be sent again.
        """
        if len(sql) + 1 >= self.packet_at_most:  # with the byte that says what kind of packet it is
            raise DataError(
                f"{len(sql)} bytes are more than max_allowed_packet ({self.packet_at_most})", errno=TOO_LARGE
            )
        return sql

    def is_connected(self: Any) -> bool:
        """Return whether nobody has closed the connection here.

        The driver asks for each new cursor, and would send a ping to find out.
        """
        return not self.is_closed()

    def commit(self: Any) -> None:
        """Send the statements that wait for the COMMIT together with it."""
        waiting, self.sent_with_commit = self.sent_with_commit, None
        if waiting is None:
            super().commit()  # type: ignore[misc]
            return
        self.execute(f"{waiting[0]}; COMMIT", waiting[1])

    def rollback(self: Any) -> None:
        """Roll back, and forget the statements that wait for the COMMIT."""
        self.sent_with_commit = None
        super().rollback()  # type: ignore[misc]


class _CExtensionConnection(_FewerRoundTrips, CMySQLConnection):
    """For an installation with the driver's C extension."""

    def execute(self, sql: str, values: Row) -> list[int]:
        """Execute the statements and return how many rows each found.

        No cursor is made, which would cost as much as the round trip.
        """
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
        """Go to the next result, if there is one; raises its error, which the driver translates only for the first."""
        try:
            return self.next_result()
        except connection_cext.MySQLInterfaceError as error:  # type: ignore[attr-defined]
            raise get_mysql_exception(error.errno, error.msg, error.sqlstate) from error


class _PythonConnection(_FewerRoundTrips, MySQLConnection):
    """For an installation without the driver's C extension."""

    def execute(self, sql: str, values: Row) -> list[int]:
        """Execute the statements and return how many rows each found."""
        self.check(sql.encode() + b"".join(str(value).encode() for value in values))
        cursor = self.cursor()
        cursor.execute(sql, values)
        found = [cursor.rowcount]
        while cursor.nextset():
            found.append(cursor.rowcount)
        cursor.close()
        return found
