"""Keeps what was exchanged in attempts: headers and bodies of requests and responses, masked and cut.

They are written in the transaction of the attempts' lines, so an attempt that needs none costs nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.exc import DBAPIError

from saga.call import Exchange, Verdict
from saga.errors import LogUnavailable
from saga.saga_row import SagaRow
from saga.storage import body_sql as sql
from saga.storage.database_errors import is_missing_table
from saga.storage.log_database import LogDatabase
from saga.storage.log_writes import Also
from saga.views.masked_exchange import Kept, masked_exchange

logger = logging.getLogger("saga")

ALL, ERRORS = "all", "errors"  # of KEEP_BODIES; the third is "none"


class KeptExchanges:
    """Writes and reads them.

    `which` is KEEP_BODIES: those of `all` attempts, of those that were not done (`errors`), or of `none`.

    A database that was made by an older version has no table for them. Then nothing is kept, and a warning says so
    once. The methods that read may raise LogUnavailable.
    """

    def __init__(self, database: LogDatabase, which: str):
        self.which = which
        self._database = database
        self._known: bool | None = None  # whether the table is there; None: nobody has looked yet
        self._looking = threading.Lock()

    def statements(self, row: SagaRow, exchanges: Sequence[Exchange]) -> Also:
        """Return what is to be written with these attempts' lines; nothing where none of them is to be kept."""
        wanted = [each for each in exchanges if self._wants(each)]
        if not wanted or not self.table_is_there():
            return ()
        return [(sql.WRITE_BODIES, [self._bound(row, each) for each in wanted])]

    def _wants(self, exchange: Exchange) -> bool:
        return self.which == ALL or (self.which == ERRORS and exchange.attempt.verdict is not Verdict.DONE)

    def _bound(self, row: SagaRow, exchange: Exchange) -> Any:
        request, response = masked_exchange(row, exchange)
        values = {"saga_id": row.id, "seq": exchange.line, "request": request, "response": response}
        return self._database.bind(sql.WRITE_BODIES, values)

    def find(self, saga_id: str, numbers: Iterable[int]) -> dict[int, tuple[Kept, Kept]]:
        """Return the request and the response of those attempts of which they were kept, by the line's number."""
        values = {"saga_id": saga_id, "numbers": list(numbers)}
        if not values["numbers"] or not saga_id.isascii() or not self.table_is_there():
            return {}
        rows = self._database.select(sql.BODIES_AT, values)
        return {row["seq"]: (row["request"], row["response"]) for row in rows if _readable(row)}

    def forgetting(self) -> Collection[Executable]:
        """Return the statements that delete what was kept of certain sagas (`saga_ids`)."""
        return [sql.FORGET_BODIES] if self.table_is_there() else []

    def table_is_there(self) -> bool:
        """Return whether the database has the table. Raises LogUnavailable where it does not answer."""
        with self._looking:
            if self._known is None:
                self._known = self._look()
            return self._known

    def _look(self) -> bool:
        try:
            self._database.select(sql.BODIES_THERE, {})
        except LogUnavailable as error:
            if not (isinstance(error.__cause__, DBAPIError) and is_missing_table(error.__cause__)):
                raise
            logger.warning(
                "event=no_bodies: the saga log's database has no table saga_bodies, which db/init.sql makes now: "
                "no bodies of requests and responses are kept"
            )
            return False
        return True


def _readable(row: Any) -> bool:
    return isinstance(row["request"], dict) and isinstance(row["response"], dict)
