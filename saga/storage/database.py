"""Engines and column types that make SQLite and MySQL behave alike."""

from __future__ import annotations

import json
import logging
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mysql.connector as mysql_driver
from sqlalchemy import URL, Connection, DateTime, Double, Engine, MetaData, String, Text, create_engine, event, make_url
from sqlalchemy.dialects import mysql
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.types import TypeDecorator, TypeEngine

from saga.errors import OutcomeUnknown
from saga.payload import compact, stored
from saga.storage import statement_batch

logger = logging.getLogger("saga")

STATEMENT_REFUSED = (IntegrityError, DataError, ProgrammingError)  # the database did answer, and refused a statement

BUSY_SECONDS = 4  # how long a statement waits for a lock, a connection, or a server: less than the 10 s of a clear 503


def connect(url: str, pool_size: int = 16) -> Engine:
    """An engine for `url`; nothing is connected before its first use.

    SQLite: WAL, synchronous=FULL, and every transaction begins with BEGIN IMMEDIATE, so that none fails for
    wanting to write after it has read. MySQL: READ COMMITTED; we end every transaction, so none is reset again.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    if not mysql_driver.HAVE_CEXT:
        logger.warning("event=slow_driver: mysql-connector runs without its C extension, at twice the CPU")
    engine = create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
        pool_recycle=3600,
        pool_reset_on_return=None,
        pool_use_lifo=True,
        isolation_level="READ COMMITTED",
        paramstyle="format",  # values in order, as `execute_batch` joins them
        connect_args={
            "charset": "utf8mb4",
            "collation": "utf8mb4_general_ci",  # known to MySQL and MariaDB; columns have their own
            "connection_timeout": BUSY_SECONDS,
            "read_timeout": BUSY_SECONDS + 1,
            "write_timeout": BUSY_SECONDS + 1,
            "init_command": f"SET SESSION innodb_lock_wait_timeout = {BUSY_SECONDS}, sql_mode = 'TRADITIONAL'",
        },
    )
    statement_batch.listen(engine)
    return engine


def _sqlite(url: URL) -> Engine:
    """One connection: there is one writer anyway, and threads that queue for it beat those that poll for its lock."""
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        pool_size=1,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
        pool_reset_on_return=None,
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        connection.text_factory = _text
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        try:
            connection.connection.dbapi_connection.execute("BEGIN IMMEDIATE")  # type: ignore[union-attr]
        except sqlite3.Error as error:
            raise OperationalError("BEGIN IMMEDIATE", None, error) from error

    return engine


def _text(raw: bytes) -> str:
    """SQLite keeps whatever it is given: a text that is no UTF-8 is no reason to read none of the others."""
    return raw.decode("utf-8", "surrogateescape")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction that is committed at the end and rolled back by what is raised within.

    OutcomeUnknown where the COMMIT was not confirmed. A connection that could not end its transaction is thrown away:
    back in the pool, it would carry that transaction into the next one.
    """
    with engine.connect() as connection:
        begun = connection.begin()
        try:
            yield connection
        except BaseException:
            try:
                begun.rollback()
            except DBAPIError:  # the server rolls back what it has lost the connection to
                connection.invalidate()
            raise
        try:
            begun.commit()
        except STATEMENT_REFUSED:  # one of the statements that travel with the COMMIT
            _roll_back(connection)
            raise
        except BaseException as error:
            connection.invalidate()
            if isinstance(error, DBAPIError):
                raise OutcomeUnknown("the COMMIT was not confirmed") from error
            raise


def _roll_back(connection: Connection) -> None:
    try:
        connection.connection.rollback()
    except Exception:  # the driver's own: the server rolls back what it has lost the connection to
        connection.invalidate()


def create_tables(engine: Engine, metadata: MetaData) -> None:
    """On SQLite each process makes its own tables; on MySQL db/init.sql has, and our users could not."""
    if engine.dialect.name == "sqlite":
        metadata.create_all(engine)


def is_duplicate(error: IntegrityError) -> bool:
    """Whether a row with this key is there already."""
    code = getattr(error.orig, "sqlite_errorcode", None) or getattr(error.orig, "errno", None)
    return code in (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE, 1062)


# MySQL's codes: too large for a packet, a row or a column; out of range; a wrong value; none where one is due.
_REFUSALS = frozenset(
    {1048, 1118, 1153, 1162, 1264, 1265, 1292, 1301, 1364, 1366, 1406, 1690, 2020, 3140, 3141, 3819, 3854, 4025}
)
_SQLITE_REFUSALS = (sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_CONSTRAINT)


def refusal(error: BaseException) -> str | None:
    """Why the database refuses what it is asked to write, for what that is; None where the error is another one.

    Such a write is refused each time: to try it again helps nobody.
    """
    if isinstance(error, OutcomeUnknown) and error.__cause__ is not None:  # a statement that went with the COMMIT
        return refusal(error.__cause__)
    if isinstance(error, OverflowError | ValueError | RecursionError):  # the driver, or JSON, cannot even say it
        return "a value that it cannot hold"
    if not isinstance(error, DBAPIError) or (isinstance(error, IntegrityError) and is_duplicate(error)):
        return None
    code = getattr(error.orig, "errno", None)
    sqlite_code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
    if code not in _REFUSALS and sqlite_code not in _SQLITE_REFUSALS:
        return None
    too_large = code in (1118, 1153, 1162, 1301, 1406, 2020) or sqlite_code == sqlite3.SQLITE_TOOBIG
    return "it is too large" if too_large else "a value that it cannot hold"


def is_lock_conflict(error: DBAPIError) -> bool:
    """Whether it was a deadlock or a lock's time-out: the transaction is rolled back, and may be run again."""
    busy = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return busy or getattr(error.orig, "errno", None) in (1205, 1213)


@dataclass(frozen=True)
class EncodedJson:
    """A JSON value whose text is known already."""

    text: str


class Json(TypeDecorator[Any]):
    """A JSON value as text: its numbers come back as they went in, which a native JSON column does not promise."""

    impl = Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> str | None:
        """Python to text; None is NULL."""
        return None if value is None else value.text if isinstance(value, EncodedJson) else compact(value)

    def process_result_value(self, value: str | None, dialect: Any) -> Any:
        """Text to Python; Undecodable where it is no JSON, so that the rows beside it can be read."""
        return None if value is None else _decoded(value)


@dataclass(frozen=True)
class Undecodable:
    """What a column holds that its type cannot read, and why: a value, since one row must not stop a whole fetch."""

    raw: Any
    reason: str


def decodable(row: Mapping[Any, Any]) -> dict[str, Any]:
    """A row to be shown: a column that cannot be decoded says so, and its content is withheld."""
    return {
        str(name): {"unreadable": value.reason} if isinstance(value, Undecodable) else value
        for name, value in row.items()
    }


def _decoded(text: Any) -> Any:
    if not isinstance(text, str):
        return Undecodable(text, f"it is no text, but of the type {type(text).__name__}")
    try:
        value = stored(text)
        if _SUSPECT(text):
            compact(value).encode()
        return value
    except json.JSONDecodeError as error:
        return Undecodable(text, f"it is not valid JSON at character {error.pos}")
    except ValueError as error:
        return Undecodable(text, str(error) if "nested" in str(error) else "it is not valid JSON")


# What may be half a surrogate pair, which no answer can hold.
_SUSPECT = re.compile("\\\\u[dD][89a-fA-F]|[\ud800-\udfff]").search


_EPOCH = datetime(1970, 1, 1)


def _utc_text(value: float | None) -> str | None:
    return None if value is None else datetime.fromtimestamp(value, UTC).isoformat(" ", "microseconds")[:-6]


class UtcTime(TypeDecorator[float]):
    """Seconds since the epoch in Python, a UTC date and time with microseconds in the database."""

    impl = DateTime().with_variant(mysql.DATETIME(fsp=6), "mysql", "mariadb")
    cache_ok = True

    def bind_processor(self, dialect: Any) -> Callable[[float | None], str | None]:
        """Seconds to the text that SQLite keeps and MySQL reads."""
        return _utc_text

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        """A date and time, a text in SQLite, to seconds; Undecodable where it is none."""
        return _seconds


def _seconds(value: Any) -> float | Undecodable | None:
    if value is None:
        return None
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
        return (at - _EPOCH) / timedelta(seconds=1)
    except (ValueError, TypeError):  # no text, no such date, or one with a time zone
        return Undecodable(value, "it is no date and time")


def Token(length: int) -> TypeEngine[str]:  # a type, so named as one
    """A text of at most `length` ASCII characters that is compared byte by byte."""
    binary = mysql.VARCHAR(length, charset="ascii", collation="ascii_bin")
    return String(length).with_variant(binary, "mysql", "mariadb")


Float = Double
