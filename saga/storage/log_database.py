"""`LogDatabase` runs work on the saga log in a transaction, and translates the database's errors: once, and only here.

`LogUnavailable` says that the caller may try again later, `WriteRefused` that the same write would be refused again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, RowMapping
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from saga.errors import LogUnavailable, OutcomeUnknown, WriteRefused
from saga.storage.database import transaction
from saga.storage.database_errors import STATEMENT_REFUSED, is_duplicate, is_lock_conflict, refusal
from saga.storage.statement_batch import Row, Statement

_UNAVAILABLE = "the saga log does not answer, or does not take the write"
_REFUSED = "the saga log does not take what it is asked to write"
RETRY_WITHIN_SECONDS = 3.0  # a write that fails later than that after its beginning is not tried again

T = TypeVar("T")


class LogDatabase:
    """Transactions on the saga log's tables."""

    def __init__(self, engine: Engine):
        self.engine = engine

    def select(
        self, query: Executable, values: Mapping[str, Any], engine: Engine | None = None
    ) -> Sequence[RowMapping]:
        """Return the rows that a query finds. Raises LogUnavailable."""
        return self.run(lambda connection: connection.execute(query, values).mappings().all(), engine)

    def execute(self, statement: Executable, values: Mapping[str, Any]) -> int:
        """Execute a statement in a transaction of its own; return how many rows it found. Raises LogUnavailable."""
        return self.run(lambda connection: connection.execute(statement, values).rowcount)

    def bind(self, statement: Statement, values: Mapping[str, Any]) -> Row:
        """Return the values as the driver takes them. Raises WriteRefused where one of them is no JSON, or no date."""
        try:
            return statement.bind(self.engine.dialect, values)
        except (ValueError, OverflowError, RecursionError, OSError) as error:  # OSError: a date beyond all clocks
            raise WriteRefused(f"{_REFUSED}: a value that is no JSON, or no date") from error

    def run(self, work: Callable[[Connection], T], engine: Engine | None = None) -> T:
        """Run `work` in a transaction and return what it returns.

        It is run again where the connection was lost, so `work` must bear being run twice.

        Raises LogUnavailable where the database does not do it, WriteRefused where it never will, and IntegrityError
        where a row with this key is there already.
        """
        try:
            return self.attempt(work, engine)
        except STATEMENT_REFUSED as error:
            if isinstance(error, IntegrityError) and is_duplicate(error):
                raise
            raise _refused(error) or LogUnavailable(_UNAVAILABLE) from error

    def attempt(self, work: Callable[[Connection], T], engine: Engine | None = None) -> T:
        """Run `work` as `run` does, but raise one of STATEMENT_REFUSED where the database refuses a statement.

        So a batch of writes can be tried again one by one.
        """
        started = time.monotonic()
        while True:
            try:
                with transaction(engine or self.engine) as connection:
                    return work(connection)
            except STATEMENT_REFUSED:
                raise
            except (OverflowError, UnicodeEncodeError) as error:  # the driver cannot even send it
                raise WriteRefused(f"{_REFUSED}: {refusal(error)}") from error
            except (DBAPIError, PoolTimeout, OutcomeUnknown) as error:  # our writes may be sent twice
                if refused := _refused(error):
                    raise refused from error
                lost = isinstance(error, OutcomeUnknown) or (
                    isinstance(error, DBAPIError) and (error.connection_invalidated or is_lock_conflict(error))
                )
                if not lost or time.monotonic() - started > RETRY_WITHIN_SECONDS:
                    raise LogUnavailable(_UNAVAILABLE) from error


def _refused(error: Exception) -> WriteRefused | None:
    why = refusal(error)
    return WriteRefused(f"{_REFUSED}: {why}") if why else None
