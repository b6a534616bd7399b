"""The saga log is what must be known after a crash. `SagaLog` keeps it, on SQLite or MySQL, by one code path.

A row of `sagas` says how a saga stands now, together with what its actions answered, in `saga_results`. Its lines in
`saga_log` say how it came there; nobody needs them to show the saga or to go on with it. Whoever drives a saga holds
its epoch: a claim raises it, and a write with an older epoch touches no row and raises LeaseLost.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Engine, Executable, RowMapping
from sqlalchemy.exc import IntegrityError

from saga.errors import LeaseLost, LogUnavailable, Overtaken, SagaUnreadable, WriteRefused
from saga.machine import BESIDE_THE_DRIVER, Line, State
from saga.saga_row import Present, SagaRow, Stored, read_row
from saga.set_aside import Cause, SetAside
from saga.storage import log_sql as sql
from saga.storage.column_types import EncodedJson
from saga.storage.database_errors import STATEMENT_REFUSED, is_duplicate
from saga.storage.group_commit import GroupCommit, Singly
from saga.storage.log_database import LogDatabase
from saga.storage.log_writes import Also, Fate, LogWrite, write_together
from saga.storage.statement_batch import Row, is_plain
from saga.unreadable import Unreadable, UnreadableLine, line_of, unreadable

NO_RESULTS: Mapping[str, Any] = MappingProxyType({})
ALL_LINES = 2**31 - 1  # lines
LINES_CHECKED = 200  # of a saga, the latest: all of them must be readable before anybody drives the saga


class SagaLog:
    """The saga log of one database. What a method writes is durable once the method has returned.

    Every method may raise LogUnavailable, and those that write may raise WriteRefused. A saga whose row cannot be
    decoded is returned as an Unreadable, a line as an UnreadableLine: they stop none of the others.
    """

    def __init__(self, engine: Engine):
        self.aside = SetAside()  # the sagas that were found to be unreadable
        self.database = LogDatabase(engine)
        self._writes = Singly(self._write_all) if is_plain(engine) else GroupCommit(self._write_all, LogWrite.size)

    def begin(self, row: SagaRow, lines: Sequence[Line], also: Also = ()) -> Stored | None:
        """Write a new saga and return None; where its idempotency key is known, return the saga that has the key.

        `also` holds statements with their bound rows, which are executed in the same transaction. Where the key is
        known, nothing is written.
        """
        definition = row.definition
        values = {**vars(row), "name": definition.name, "definition": EncodedJson(definition.snapshot_text)}
        values["context"] = row.context.as_json()
        insert = self.database.bind(sql.BEGIN, values)
        write = LogWrite(insert, None, self._bound(row.id, lines), also=also)
        if self._writes.submit(write) is Fate.WRITTEN:
            return None
        known = row.idempotency_key and self.find_by_key(row.idempotency_key)
        return known if known and known.id != row.id else None  # its own: the COMMIT's answer was lost

    def advance(
        self,
        saga_id: str,
        epoch: int,
        present: Present,
        lines: Sequence[Line],
        results: Mapping[str, Mapping[str, Any]] = NO_RESULTS,
        next_epoch: int | None = None,
        also: Also = (),
    ) -> None:
        """Move a saga on and add its lines, in one transaction.

        `results` holds the answers, by the step's name, of those actions that these lines say are done; each is written
        once. `next_epoch` is what the epoch is raised to, so that of several observers of a saga one wins. `also` holds
        statements with their bound rows, which are executed in the same transaction as the lines.

        Raises LeaseLost where the saga's epoch is no longer `epoch`, and Overtaken where `add_line` has taken the
        number of the first of the lines; nothing is written then.
        """
        values = {"saga_id": saga_id, "held": epoch, "epoch": next_epoch or epoch, **vars(present)}
        row = self.database.bind(sql.ADVANCE, values)
        answered = [
            self.database.bind(sql.WRITE_RESULTS, {"saga_id": saga_id, "step": step, "result": result})
            for step, result in results.items()
        ]
        fate = self._writes.submit(LogWrite(None, row, self._bound(saga_id, lines), answered, also))
        if fate is Fate.FENCED:
            raise LeaseLost(saga_id)
        if fate is Fate.KNOWN and self._overtaken(saga_id, lines[0].seq):
            raise Overtaken(saga_id)

    def _overtaken(self, saga_id: str, seq: int) -> bool:
        """Return whether the line with this number was added beside the driver.

        Otherwise it is the driver's own, written by a COMMIT whose answer was lost.
        """
        return any(line.event in BESIDE_THE_DRIVER for line in self.lines_at(saga_id, [seq]))

    def add_line(self, saga_id: str, states: Collection[State], line: Line) -> Line | None:
        """Add a line to a saga that is in one of `states`, without taking the saga from its driver.

        Returns the line with its number in place of `line.seq`; None where the saga is in another state, or has a line
        of this event already. Raises SagaUnreadable where the saga cannot be decoded.

        The only such line is an operator's wish to cancel while the pivot is called (BESIDE_THE_DRIVER). The driver has
        numbered its own next line already, and this line takes that number; a lock on the row orders the two writes.
        So the driver's next `advance` finds its number taken, writes nothing, and raises Overtaken. The driver then
        reads the added line, numbers its own lines after it, and writes them again (`Driver._write_row`).
        """
        values = {"saga_id": saga_id, "states": list(states), "event": line.event}
        sent: list[Line] = []  # by an earlier try, whose COMMIT's answer was lost

        def work(connection: Connection) -> Line | None:
            held = connection.execute(sql.HOLD, values).mappings().first()
            known = connection.execute(sql.NOTED, values).scalar_one_or_none()
            if known is not None:
                return next((each for each in sent if each.seq == known), None)
            if held is None:
                return None
            last = connection.execute(sql.LAST_SEQ, values).scalar_one() or 0
            numbered = replace(line, seq=last + 1)
            connection.execute(sql.NOTE, {**vars(numbered), "saga_id": saga_id})
            results = results_of(connection, [saga_id]).get(saga_id)
            noted = self._drivable(connection, read_row(held, results)).after(numbered).context.as_json()
            connection.execute(sql.NOTE_IN_ROW, {"of": saga_id, "new_context": noted})
            sent.append(numbered)
            return numbered

        return self.database.run(work)

    def _claimed(self, connection: Connection, claim: Executable, values: Mapping[str, Any]) -> tuple[SagaRow, bool]:
        before = connection.execute(sql.FIND, {"saga_id": values["saga_id"]}).mappings().first()
        if before is None or connection.execute(claim, values).rowcount != 1:
            raise LeaseLost(values["saga_id"])
        after = connection.execute(sql.FIND, {"saga_id": values["saga_id"]}).mappings().one()
        found = read_row(after, results_of(connection, [after["id"]]).get(after["id"]))
        return self._drivable(connection, found), before["owner"] is not None

    def _drivable(self, connection: Connection, found: Stored) -> SagaRow:
        """Return the saga, for somebody to drive it.

        Raises SagaUnreadable where its row or one of its latest lines cannot be decoded; that rolls the claim back, so
        nothing of the saga is changed.
        """
        if isinstance(found, Unreadable):
            self.aside.put(found)
            raise SagaUnreadable(f"it cannot be read: {found.reason}")
        latest = {"saga_id": found.id, "after": max(0, found.context.lines - LINES_CHECKED), "most": LINES_CHECKED}
        lines = [line_of(row) for row in connection.execute(sql.LINES, latest).mappings()]
        bad = next((line for line in lines if isinstance(line, UnreadableLine)), None)
        if bad:
            reason = _of_line(bad)
            self.aside.put(Unreadable(found.id, reason, state=found.state), Cause.LINE)
            raise SagaUnreadable(f"it cannot be read: {reason}")
        self.aside.drop(found.id)
        return found

    def _bound(self, saga_id: str, lines: Sequence[Line]) -> list[Row]:
        return [self.database.bind(sql.WRITE_LINES, {**vars(line), "saga_id": saga_id}) for line in lines]

    def _write_all(self, writes: Sequence[LogWrite]) -> Sequence[Fate | BaseException]:
        """Write all in one transaction; where the database refuses what one of them says, each in one of its own."""
        try:
            return self.database.attempt(lambda connection: write_together(connection, writes))
        except (*STATEMENT_REFUSED, WriteRefused):
            return [self._write_alone(write) for write in writes]
        except LogUnavailable as error:
            return [error] * len(writes)

    def _write_alone(self, write: LogWrite) -> Fate | BaseException:
        try:
            return self.database.run(lambda connection: write_together(connection, [write]))[0]
        except IntegrityError as error:
            return Fate.KNOWN if is_duplicate(error) else error
        except (LogUnavailable, WriteRefused) as error:
            return error

    def renew(self, saga_id: str, epoch: int, due_at: float | None) -> None:
        """Hold a saga until `due_at`, for ever where that is None. Raises LeaseLost where its epoch is not `epoch`."""
        if self.database.execute(sql.RENEW, {"saga_id": saga_id, "held": epoch, "new_due_at": due_at}) != 1:
            raise LeaseLost(saga_id)

    def let_go(self, saga_id: str, epoch: int, now: float) -> None:
        """Let anybody claim a saga at once, though its call is under way. Raises LeaseLost where it is another's."""
        if self.database.execute(sql.LET_GO, {"saga_id": saga_id, "held": epoch, "now": now}) != 1:
            raise LeaseLost(saga_id)

    def claim(
        self, saga_id: str, epoch: int, owner: str, *, due_by: float, due_at: float, seen: float | None = None
    ) -> tuple[SagaRow, bool]:
        """Take over a saga that was due at `due_by`, until `due_at`; return it, and whether somebody still held it.

        `seen` is the due time that the saga had when it was looked at: it is claimed if it still has that due time,
        whatever `due_by` says. Raises LeaseLost where somebody else was quicker, or its owner has renewed its lease;
        SagaUnreadable where its row or its latest lines cannot be decoded. Then nothing is changed.
        """
        values: dict[str, Any] = {"saga_id": saga_id, "held": epoch, "owner": owner, "new_due_at": due_at}
        if seen is not None:
            return self.database.run(
                lambda connection: self._claimed(connection, sql.CLAIM_AS_SEEN, {**values, "seen": seen})
            )
        return self.database.run(lambda connection: self._claimed(connection, sql.CLAIM, {**values, "due_by": due_by}))

    def preempt(self, saga_id: str, epoch: int, state: State, owner: str, due_at: float) -> tuple[SagaRow, bool]:
        """Take a saga over as `claim` does, but for an operator: whoever holds it, as long as it is in `state`."""
        values = {"saga_id": saga_id, "held": epoch, "owner": owner, "new_due_at": due_at}
        return self.database.run(
            lambda connection: self._claimed(connection, sql.PREEMPT, {**values, "in_state": state})
        )

    def find(self, saga_id: str) -> Stored | None:
        """Return the saga with this id; None where there is none."""
        if not saga_id.isascii():  # MySQL does not compare such a text with an ASCII column, it raises
            return None
        return self._find(sql.FIND, {"saga_id": saga_id})

    def find_by_key(self, key: str) -> Stored | None:
        """Return the saga that was started with this idempotency key; None where there is none."""
        return self._find(sql.FIND_BY_KEY, {"key": key})

    def find_many(self, saga_ids: Iterable[str], bare: bool = False) -> dict[str, Stored]:
        """Return the sagas with these ids, by id; with `bare`, without their inputs and results."""
        values = {"saga_ids": list(saga_ids)}
        if bare:
            return {row["id"]: self.decoded(row) for row in self.database.select(sql.FIND_MANY_BARE, values)}

        def work(connection: Connection) -> dict[str, Stored]:
            rows = connection.execute(sql.FIND_MANY, values).mappings().all()
            results = results_of(connection, values["saga_ids"]) if rows else {}
            return {row["id"]: self.decoded(row, results.get(row["id"])) for row in rows}

        return self.database.run(work)

    def _find(self, query: Executable, values: Mapping[str, Any]) -> Stored | None:
        def work(connection: Connection) -> Stored | None:
            row = connection.execute(query, values).mappings().first()
            return self.decoded(row, results_of(connection, [row["id"]]).get(row["id"])) if row else None

        return self.database.run(work)

    def decoded(self, row: RowMapping, results: Mapping[str, Any] | None = None) -> Stored:
        """Return the saga that a row holds, and set it aside where it cannot be read.

        It is Unreadable also where one of its lines was found to be so, until its lines are read again.
        """
        found = read_row(row, results)
        if isinstance(found, Unreadable):
            self.aside.put(found)
        elif known := self.aside.despite_its_row(found.id, bare="input" not in row):
            reason, cause = known
            misfit = unreadable({str(name): value for name, value in row.items()}, reason)
            self.aside.put(misfit, cause)
            return misfit
        elif "input" in row:  # all of it has been looked at
            self.aside.drop(found.id, Cause.ROW)
        return found

    def read(self, saga_id: str) -> Stored | None:
        """Return the saga with this id; an Unreadable also where one of its latest lines cannot be decoded."""
        found = self.find(saga_id)
        if isinstance(found, SagaRow):
            lines = self.lines(saga_id, max(0, found.context.lines - LINES_CHECKED), LINES_CHECKED)
            if any(isinstance(line, UnreadableLine) for line in lines):
                found = self.find(saga_id)
        return found

    def lines(self, saga_id: str, after: int = 0, most: int = ALL_LINES) -> list[Line]:
        """Return the saga's lines with numbers above `after`, oldest first."""
        lines = [
            line_of(row) for row in self.database.select(sql.LINES, {"saga_id": saga_id, "after": after, "most": most})
        ]
        self._judge(saga_id, lines, after == 0 and len(lines) < most)
        return lines

    def lines_at(self, saga_id: str, numbers: Iterable[int]) -> list[Line]:
        """Return the saga's lines with these numbers, oldest first."""
        values = {"saga_id": saga_id, "numbers": list(numbers)}
        return [line_of(row) for row in self.database.select(sql.LINES_AT, values)]

    def _judge(self, saga_id: str, lines: Iterable[Line], all_of_them: bool) -> None:
        """Set a saga aside where one of its lines cannot be decoded; take it back once all of them can."""
        bad = next((line for line in lines if isinstance(line, UnreadableLine)), None)
        if bad:
            self.aside.put(Unreadable(saga_id, _of_line(bad)), Cause.LINE)
        elif all_of_them:
            self.aside.drop(saga_id, Cause.LINE)

    def ping(self) -> None:
        """Raise LogUnavailable unless the log can be read."""
        self.database.select(sql.PING, {})


def results_of(connection: Connection, saga_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return what the actions of these sagas answered: by the saga's id, then by the step's name."""
    found: dict[str, dict[str, Any]] = {}
    for row in connection.execute(sql.RESULTS_OF, {"saga_ids": saga_ids}):
        found.setdefault(row.saga_id, {})[row.step] = row.result
    return found


def _of_line(line: UnreadableLine) -> str:
    return f"line {line.seq}: {line.reason}"
