"""`write_together` makes several sagas' writes in one transaction, each conditional on its own saga's epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from sqlalchemy import Connection

from saga.storage import log_sql as sql
from saga.storage.statement_batch import Row, Statement, execute_batch

Also = Sequence[tuple[Statement, Sequence[Row]]]  # statements, each with the rows of values that are bound to it


@dataclass(frozen=True)
class LogWrite:
    """One saga's write, its values bound: a new row, or how its row moves on; its lines; what its actions answered.

    `also`: statements of others, which are executed in the same transaction.
    """

    begin: Row | None
    advance: Row | None
    lines: Sequence[Row]
    results: Sequence[Row] = ()
    also: Also = ()

    def size(self) -> int:
        """Return about how many bytes the write has."""
        others = [row for _, rows in self.also for row in rows]
        rows = [row for row in (self.begin, self.advance, *self.lines, *self.results, *others) if row]
        return sum(len(value) for row in rows for value in row if isinstance(value, str))


class Fate(Enum):
    """What became of a write in `write_together`, and what its caller may conclude."""

    WRITTEN = auto()
    FENCED = auto()  # not written: its saga's epoch has been raised meanwhile
    KNOWN = auto()  # not written: its key is there already, or it is this very write, whose COMMIT's answer was lost


def write_together(connection: Connection, writes: Sequence[LogWrite]) -> list[Fate]:
    """Write new rows and move others on, in one exchange; then the lines of those that hold, with the COMMIT.

    There are two exchanges even where a new saga needs no check of its epoch: where the first of them goes nowhere,
    nothing can have been committed.
    """
    begun = [write.begin for write in writes if write.begin]
    moved = [index for index, write in enumerate(writes) if write.advance]
    sent = [(sql.BEGIN, begun)] if begun else []
    sent += [(sql.ADVANCE, [write.advance]) for write in writes if write.advance]
    found = execute_batch(connection, *sent)[len(sent) - len(moved) :]
    fenced = {index for index, rows in zip(moved, found, strict=True) if rows != 1}
    kept = [write for index, write in enumerate(writes) if index not in fenced]
    also = [each for write in kept for each in write.also]
    results = [row for write in kept for row in write.results]
    if lines := [line for write in kept for line in write.lines]:
        answered = [(sql.WRITE_RESULTS, results)] if results else []
        execute_batch(connection, *also, *answered, (sql.WRITE_LINES, lines), with_commit=True)
    return [Fate.FENCED if index in fenced else Fate.WRITTEN for index in range(len(writes))]
