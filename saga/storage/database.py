"""`connect` and `transaction` make SQLite and MySQL behave alike. The saga log and the participants' kit use them."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mysql.connector as mysql_driver
from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, make_url
from sqlalchemy.exc import OperationalError

from saga.errors import OutcomeUnknown
from saga.storage.database_errors import STATEMENT_REFUSED
from saga.storage.mysql_connection import save_round_trips
from saga.storage.statement_batch import PLAIN, is_plain

logger = logging.getLogger("saga")

BUSY_SECONDS = 4  # how long a statement waits for a lock, a connection, or a server: less than the 10 s of a clear 503


def connect(url: str, pool_size: int = 16, plain: bool = False) -> Engine:
    """Return an engine for the database at `url`, which connects to nothing before its first use.

    SQLite: WAL, synchronous=FULL, and every transaction begins with BEGIN IMMEDIATE, so that none fails for
    wanting to write after it has read. MySQL: READ COMMITTED; a transaction is always ended, so the pool resets none.
    `plain`: statements are executed by SQLAlchemy alone, one by one, and each write has a transaction of its own.
    """
    parsed = make_url(url)
    options = {PLAIN: True} if plain else {}
    return _sqlite(parsed, options) if parsed.get_backend_name() == "sqlite" else _mysql(parsed, pool_size, options)


def _mysql(url: URL, pool_size: int, options: dict[str, Any]) -> Engine:
    if not mysql_driver.HAVE_CEXT:
        logger.warning("event=slow_driver: mysql-connector runs without its C extension, at twice the CPU")
    engine = create_engine(
        url,
        execution_options=options,
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
    if not is_plain(engine):
        save_round_trips(engine)
    return engine


def _sqlite(url: URL, options: dict[str, Any]) -> Engine:
    """Return an engine with one connection.

    SQLite has one writer, and to queue for a connection is quicker than to poll for its lock.
    """
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(
        url,
        execution_options=options,
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
    """Return a text of SQLite's, which keeps any bytes: one that is not UTF-8 must not hide the other rows."""
    return raw.decode("utf-8", "surrogateescape")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """Run a transaction that is committed at the end, and rolled back by any exception that is raised within.

    Raises OutcomeUnknown where the COMMIT was not confirmed, whatever went wrong; and one of STATEMENT_REFUSED, after a
    roll-back, where a statement that was sent with the COMMIT was refused. A connection that could not end its
    transaction is thrown away: back in the pool, it would carry that transaction into the next one.
    """
    with engine.connect() as connection:
        begun = connection.begin()
        try:
            yield connection
        except BaseException:
            try:
                begun.rollback()
            except Exception:  # the driver's own, too: the server rolls back what it has lost the connection to
                connection.invalidate()
            raise
        try:
            begun.commit()
        except STATEMENT_REFUSED:  # one of the statements that travel with the COMMIT
            _roll_back(connection)
            raise
        except Exception as error:  # whatever it is: the COMMIT may have been sent before it was raised
            connection.invalidate()
            raise OutcomeUnknown("the COMMIT was not confirmed") from error
        except BaseException:
            connection.invalidate()
            raise


def _roll_back(connection: Connection) -> None:
    try:
        connection.connection.rollback()
    except Exception:  # the driver's own: the server rolls back what it has lost the connection to
        connection.invalidate()


def create_tables(engine: Engine, metadata: MetaData) -> None:
    """Make the tables that are missing on SQLite; on MySQL db/init.sql has made them, and our users may not."""
    if engine.dialect.name == "sqlite":
        metadata.create_all(engine)
