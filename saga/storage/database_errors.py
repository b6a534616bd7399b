"""These functions say what a database's error means, on SQLite and MySQL alike: duplicate, lock, refused value."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from saga.errors import OutcomeUnknown

STATEMENT_REFUSED = (IntegrityError, DataError, ProgrammingError)  # the database did answer, and refused a statement


def is_duplicate(error: IntegrityError) -> bool:
    """Return whether the error says that a row with this key is there already."""
    code = getattr(error.orig, "sqlite_errorcode", None) or getattr(error.orig, "errno", None)
    return code in (sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_UNIQUE, 1062)


# MySQL's codes: too large for a packet, a row or a column; out of range; a wrong value; none where one is due.
_REFUSALS = frozenset(
    {1048, 1118, 1153, 1162, 1264, 1265, 1292, 1301, 1364, 1366, 1406, 1690, 2020, 3140, 3141, 3819, 3854, 4025}
)
_SQLITE_REFUSALS = (sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_CONSTRAINT)


def refusal(error: BaseException) -> str | None:
    """Return why the database refuses this very write, and will each time; None where the error says something else."""
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


def is_missing_table(error: DBAPIError) -> bool:
    """Return whether the error says that there is no such table, or that we may not read it."""
    return getattr(error.orig, "errno", None) in (1146, 1142) or str(error.orig).startswith("no such table")


def is_lock_conflict(error: DBAPIError) -> bool:
    """Return whether the error is a deadlock or a lock's time-out: the rolled back transaction may be run again."""
    busy = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return busy or getattr(error.orig, "errno", None) in (1205, 1213)
