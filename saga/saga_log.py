"""The saga log: what must be known after a crash, on SQLite or MySQL, by one code path.

A row of `sagas` is the saga's present, with what its actions answered in `saga_results`; its lines in `saga_log` are
how it came there, and nobody needs them to show it or to go on with it. Whoever drives a saga holds its epoch: a claim
raises it, and a write with an older one touches no row, which is LeaseLost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from itertools import accumulate
from types import MappingProxyType
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, RowMapping, Select, and_, or_
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from saga.choreography import outbox
from saga.choreography.events import SagaEvent
from saga.context import Context
from saga.definition import SagaDefinition, SnapshotError
from saga.errors import LeaseLost, LogUnavailable, OutcomeUnknown, Overtaken, SagaUnreadable, WriteRefused
from saga.machine import BESIDE_THE_DRIVER, ENDED, UNENDED, Event, Line, Saga, State
from saga.runtime.set_aside import Cause, SetAside
from saga.storage import log_sql as sql
from saga.storage.database import STATEMENT_REFUSED, EncodedJson, is_duplicate, is_lock_conflict, refusal, transaction
from saga.storage.group_commit import GroupCommit
from saga.storage.log_sql import sagas
from saga.storage.statement_batch import Row, Statement, execute_batch
from saga.unreadable import (
    UNREADABLE,
    Unreadable,
    UnreadableLine,
    line_of,
    misread,
    unreadable,
    why_no_result,
    why_not,
    why_off,
)

_UNAVAILABLE = "the saga log does not answer, or does not take the write"
_REFUSED = "the saga log does not take what it is asked to write"
FOREVER = 253_402_300_799.0  # the last second of the year 9999
NOTHING: Mapping[str, Any] = MappingProxyType({})
ALL = 2**31 - 1  # lines
RECENT = 200  # lines, the latest of a saga, that must be readable for somebody to drive it
SCANNED = 2000  # sagas, the newest, that are looked through for those that can, or cannot, be read
SCANNED_AT_ONCE = 100
FAR_ON = 1_000_000_000  # the number of a line where that of the last one cannot be read
ASIDE_AT_MOST = 1000  # sagas set aside that a search asks for by their ids
RETRY_WITHIN = 3.0  # seconds: a write that was refused later than that is not tried again

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """A row of `sagas`; times are seconds since the epoch.

    `input` and `results` (by the step's name) are empty in a record that was read bare: see `SagaLog.search`.
    """

    id: str
    definition: SagaDefinition
    input: Mapping[str, Any]
    state: State
    cursor: int
    context: Context
    epoch: int
    owner: str | None
    due_at: float | None
    rounds: int
    idempotency_key: str | None
    request_hash: str | None
    error: Mapping[str, Any] | None
    started_at: float
    ended_at: float | None
    deadline_at: float | None
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def present(self) -> Present:
        """The part of the row that is written at each move."""
        return Present(
            self.state, self.cursor, self.context.as_json(), self.rounds,
            self.error, self.ended_at, self.owner, self.due_at,
        )  # fmt: skip

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED

    def after_note(self, line: Line) -> Record:
        """The row after a line that moves nothing."""
        saga = Saga(self.definition, self.input, self.state, self.cursor, self.results, self.context.calls)
        return replace(self, context=self.context.after(line, saga, saga))


Stored = Record | Unreadable  # what a row of `sagas` is to its readers


@dataclass(frozen=True)
class Present:
    """The part of a saga's row that its driver moves on, all of it at each write."""

    state: State
    cursor: int
    context: Mapping[str, Any]  # as the column has it
    rounds: int
    error: Mapping[str, Any] | None
    ended_at: float | None
    owner: str | None
    due_at: float | None


@dataclass(frozen=True)
class _Write:
    """A saga's write, bound: its new row, or how its row moves on, its lines, and what its actions answered."""

    begin: Row | None
    advance: Row | None
    lines: Sequence[Row]
    results: Sequence[Row] = ()
    events: Sequence[tuple[Statement, Sequence[Row]]] = ()  # for the outbox

    def size(self) -> int:
        """About how many bytes it is."""
        events = [row for _, rows in self.events for row in rows]
        rows = [row for row in (self.begin, self.advance, *self.lines, *self.results, *events) if row]
        return sum(len(value) for row in rows for value in row if isinstance(value, str))


@dataclass(frozen=True)
class Backlog:
    """How much of what has not ended waits for somebody."""

    stalled: int
    needs_attention: int
    overdue: int  # choreographed, and past its deadline
    oldest_due: float  # seconds since the oldest saga that is due became so; 0 where none is


class _Fate(Enum):
    """What became of a write."""

    WRITTEN = auto()
    FENCED = auto()  # not written: its epoch has passed
    KNOWN = auto()  # not written: its key is there already, or it is this very write, whose COMMIT's answer was lost


class SagaLog:
    """Durable once a method has returned. Every method may raise LogUnavailable, and a write WriteRefused.

    A saga whose row cannot be decoded is given as Unreadable, a line as UnreadableLine: they stop none of the others.
    """

    def __init__(self, engine: Engine):
        self.aside = SetAside()  # the sagas that were found to be unreadable
        self._engine = engine
        self._dialect = engine.dialect
        self._writes = GroupCommit(self._write_all, _Write.size)

    def begin(self, record: Record, lines: Sequence[Line], events: Sequence[SagaEvent] = ()) -> Stored | None:
        """Write a new saga, and the events that start it; where its idempotency key is known, give that saga."""
        definition = record.definition
        values = {**vars(record), "name": definition.name, "definition": EncodedJson(definition.snapshot_text)}
        values["context"] = record.context.as_json()
        row = self._bind(sql.BEGIN, values)
        sent = outbox.written(events, self._engine)
        if self._writes.submit(_Write(row, None, self._bound(record.id, lines), events=sent)) is _Fate.WRITTEN:
            return None
        known = record.idempotency_key and self.find_by_key(record.idempotency_key)
        return known if known and known.id != record.id else None  # its own: the COMMIT's answer was lost

    def advance(
        self,
        saga_id: str,
        epoch: int,
        present: Present,
        lines: Sequence[Line],
        results: Mapping[str, Mapping[str, Any]] = NOTHING,
        next_epoch: int | None = None,
    ) -> None:
        """Move the saga on and add its lines, in one transaction. LeaseLost where `epoch` is no longer its own.

        `results`: what actions answered that these lines say are done, by the step's name; never any a second time.
        Overtaken where somebody has noted something (see `note`) in place of the first of the lines.
        `next_epoch`: raise it, so that of several who follow a saga one wins.
        """
        values = {"saga_id": saga_id, "held": epoch, "epoch": next_epoch or epoch, **vars(present)}
        row = self._bind(sql.ADVANCE, values)
        answered = [
            self._bind(sql.WRITE_RESULTS, {"saga_id": saga_id, "step": step, "result": result})
            for step, result in results.items()
        ]
        fate = self._writes.submit(_Write(None, row, self._bound(saga_id, lines), answered))
        if fate is _Fate.FENCED:
            raise LeaseLost(saga_id)
        if fate is _Fate.KNOWN and self._overtaken(saga_id, lines[0].seq):
            raise Overtaken(saga_id)

    def _overtaken(self, saga_id: str, seq: int) -> bool:
        """Whether the line with this number is not the driver's own, whose COMMIT's answer was lost."""
        return any(line.event in BESIDE_THE_DRIVER for line in self.lines_at(saga_id, [seq]))

    def note(self, saga_id: str, states: Collection[State], line: Line) -> Line | None:
        """Add a line to a saga that is in one of `states`, once, without taking it from its driver.

        Gives the line with its number in place of `line.seq`; None where the saga is in another state, or has a line
        of this event already. Its driver's next write waits for this one, and is Overtaken by it.
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
            results = _results(connection, [saga_id]).get(saga_id)
            noted = self._drivable(connection, _stored(held, results)).after_note(numbered).context.as_json()
            connection.execute(sql.NOTE_IN_ROW, {"of": saga_id, "new_context": noted})
            sent.append(numbered)
            return numbered

        return self._run(work)

    def _claimed(self, connection: Connection, claim: Executable, values: Mapping[str, Any]) -> tuple[Record, bool]:
        before = connection.execute(sql.FIND, {"saga_id": values["saga_id"]}).mappings().first()
        if before is None or connection.execute(claim, values).rowcount != 1:
            raise LeaseLost(values["saga_id"])
        after = connection.execute(sql.FIND, {"saga_id": values["saga_id"]}).mappings().one()
        found = _stored(after, _results(connection, [after["id"]]).get(after["id"]))
        return self._drivable(connection, found), before["owner"] is not None

    def _drivable(self, connection: Connection, found: Stored) -> Record:
        """The saga, unless its row or one of its latest lines cannot be decoded.

        SagaUnreadable else, which undoes the claim: nothing of it is changed.
        """
        if isinstance(found, Unreadable):
            self.aside.put(found)
            raise SagaUnreadable(f"it cannot be read: {found.reason}")
        latest = {"saga_id": found.id, "after": max(0, found.context.lines - RECENT), "most": RECENT}
        lines = [line_of(row) for row in connection.execute(sql.LINES, latest).mappings()]
        bad = next((line for line in lines if isinstance(line, UnreadableLine)), None)
        if bad:
            reason = _of_line(bad)
            self.aside.put(Unreadable(found.id, reason, state=found.state), Cause.LINE)
            raise SagaUnreadable(f"it cannot be read: {reason}")
        self.aside.drop(found.id)
        return found

    def _bound(self, saga_id: str, lines: Sequence[Line]) -> list[Row]:
        return [self._bind(sql.WRITE_LINES, {**vars(line), "saga_id": saga_id}) for line in lines]

    def _bind(self, statement: Statement, values: Mapping[str, Any]) -> Row:
        """The values as the driver takes them. WriteRefused where one of them is no JSON."""
        try:
            return statement.bind(self._dialect, values)
        except (ValueError, OverflowError, RecursionError, OSError) as error:  # OSError: a date beyond all clocks
            raise WriteRefused(f"{_REFUSED}: a value that is no JSON, or no date") from error

    def _write_all(self, writes: Sequence[_Write]) -> Sequence[_Fate | BaseException]:
        """All in one transaction; where the database refuses what one of them says, each in one of its own."""
        try:
            return self._try(lambda connection: _written(connection, writes))
        except (*STATEMENT_REFUSED, WriteRefused):
            return [self._write_alone(write) for write in writes]
        except LogUnavailable as error:
            return [error] * len(writes)

    def _write_alone(self, write: _Write) -> _Fate | BaseException:
        try:
            return self._run(lambda connection: _written(connection, [write]))[0]
        except IntegrityError as error:
            return _Fate.KNOWN if is_duplicate(error) else error
        except (LogUnavailable, WriteRefused) as error:
            return error

    def end_unreadable(self, saga_id: str, state: State, now: float, detail: Mapping[str, Any]) -> None:
        """End a saga that cannot be read, as an operator says, with a line. LeaseLost where it has ended already."""

        def work(connection: Connection) -> None:
            values = {"saga_id": saga_id, "new_state": state, "now": now}
            if connection.execute(sql.END_UNREADABLE, values).rowcount != 1:
                raise LeaseLost(saga_id)
            last = connection.execute(sql.LAST_SEQ, {"saga_id": saga_id}).scalar_one()
            line = Line(last + 1 if isinstance(last, int) else FAR_ON, now, Event.RESOLVED, detail=detail)
            execute_batch(connection, (sql.WRITE_LINES, self._bound(saga_id, [line])), with_commit=True)

        self._run(work)
        self.aside.drop(saga_id)

    def renew(self, saga_id: str, epoch: int, due_at: float | None) -> None:
        """Hold the saga until `due_at`, for ever where it is None. LeaseLost where `epoch` is no longer its own."""
        if self._execute(sql.RENEW, {"saga_id": saga_id, "held": epoch, "new_due_at": due_at}) != 1:
            raise LeaseLost(saga_id)

    def let_go(self, saga_id: str, epoch: int, now: float) -> None:
        """Let anybody claim the saga at once, though its call is under way. LeaseLost where it is another's already."""
        if self._execute(sql.LET_GO, {"saga_id": saga_id, "held": epoch, "now": now}) != 1:
            raise LeaseLost(saga_id)

    def claim(
        self, saga_id: str, epoch: int, owner: str, *, due_by: float, due_at: float, seen: float | None = None
    ) -> tuple[Record, bool]:
        """Take over a saga that was due at `due_by`, until `due_at`; gives it, and whether somebody still held it.

        `seen`: in place of `due_by`, exactly when it was seen to be due, though that is not believed. LeaseLost where
        somebody else was quicker, or its owner has renewed its lease. SagaUnreadable where its row or its latest lines
        cannot be decoded: then nothing is changed.
        """
        values: dict[str, Any] = {"saga_id": saga_id, "held": epoch, "owner": owner, "new_due_at": due_at}
        if seen is not None:
            return self._run(lambda connection: self._claimed(connection, sql.CLAIM_AS_SEEN, {**values, "seen": seen}))
        return self._run(lambda connection: self._claimed(connection, sql.CLAIM, {**values, "due_by": due_by}))

    def preempt(self, saga_id: str, epoch: int, state: State, owner: str, due_at: float) -> tuple[Record, bool]:
        """Like `claim`, whoever holds it, as long as it is in `state`: an operator's word."""
        values = {"saga_id": saga_id, "held": epoch, "owner": owner, "new_due_at": due_at}
        return self._run(lambda connection: self._claimed(connection, sql.PREEMPT, {**values, "in_state": state}))

    def due(self, now: float, most: int, owner: str | None = None) -> list[tuple[str, int]]:
        """At most `most` sagas that want a driver, longest waiting first: (id, epoch); none that is set aside.

        `owner`: only those of nobody and of this one, since when another's lease ends is not known for certain.
        """
        return [(row["id"], row["epoch"]) for row in self._not_aside(sql.DUE, now, most, owner=owner)]

    def doubted(
        self, owner: str, *, soon: float, longest_lease: float, longest_rest: float, most: int
    ) -> list[tuple[str, int, float]]:
        """Sagas whose due time another clock than `owner`'s has perhaps written: (id, epoch, due time).

        At most `most` leases of others that end before `soon`, and as many sagas that are due later than
        `longest_lease`, or `longest_rest` where they are stalled. In each the earliest come first.
        """
        rows = list(self._select(sql.ENDING, {"owner": owner, "soon": soon, "most": most}))
        beyond = min(longest_lease, longest_rest)
        values = {"beyond": beyond, "longest_lease": longest_lease, "longest_rest": longest_rest, "most": most}
        rows += self._select(sql.AHEAD, values)
        return _due_times(rows, self.aside.resting())

    def due_times(self, saga_ids: Collection[str]) -> list[tuple[str, int, float]]:
        """When these sagas are due: (id, epoch, due time); nothing of those that are never due."""
        rows = self._select(sql.AS_IT_IS, {"saga_ids": list(saga_ids)}) if saga_ids else ()
        return _due_times(rows)

    def unstarted(self, now: float, most: int) -> list[str]:
        """The ids of at most `most` sagas that Temporal should have by now, and perhaps has not."""
        return [row["id"] for row in self._not_aside(sql.UNSTARTED, now, most)]

    def _not_aside(self, query: Executable, now: float, most: int, **more: Any) -> list[RowMapping]:
        """What is due, but for what is set aside: that stays due, and takes up nobody's place."""
        aside = self.aside.resting()
        found = self._select(query, {"now": now, "most": most + len(aside), **more})
        return [row for row in found if str(row["id"]) not in aside][:most]

    def postpone(self, sagas_due: Mapping[tuple[str, int], float]) -> None:
        """Let stalled sagas rest longer: (id, epoch) to the new time."""
        rows = [{"saga_id": key[0], "held": key[1], "new_due_at": due_at} for key, due_at in sagas_due.items()]
        if rows:
            self._run(lambda connection: connection.execute(sql.POSTPONE, rows))

    def free(self, owner: str, now: float, before: float = FOREVER) -> int:
        """Make the sagas due that an earlier process named `owner` held; gives their number.

        `before`: its leases end before that, and those of this process later.
        """
        return self._execute(sql.FREE_OWNER, {"gone": owner, "now": now, "before": before})

    def find(self, saga_id: str) -> Stored | None:
        """The saga with this id."""
        if not saga_id.isascii():  # MySQL does not compare such a text with an ASCII column, it raises
            return None
        return self._find(sql.FIND, {"saga_id": saga_id})

    def find_by_key(self, key: str) -> Stored | None:
        """The saga that was started with this idempotency key."""
        return self._find(sql.FIND_BY_KEY, {"key": key})

    def find_many(self, saga_ids: Iterable[str], bare: bool = False) -> dict[str, Stored]:
        """The sagas with these ids, by id; `bare`: without input and results."""
        values = {"saga_ids": list(saga_ids)}
        if bare:
            return {row["id"]: self._read(row) for row in self._select(sql.FIND_MANY_BARE, values)}

        def work(connection: Connection) -> dict[str, Stored]:
            rows = connection.execute(sql.FIND_MANY, values).mappings().all()
            results = _results(connection, values["saga_ids"]) if rows else {}
            return {row["id"]: self._read(row, results.get(row["id"])) for row in rows}

        return self._run(work)

    def _find(self, query: Executable, values: Mapping[str, Any]) -> Stored | None:
        def work(connection: Connection) -> Stored | None:
            row = connection.execute(query, values).mappings().first()
            return self._read(row, _results(connection, [row["id"]]).get(row["id"])) if row else None

        return self._run(work)

    def _read(self, row: RowMapping, results: Mapping[str, Any] | None = None) -> Stored:
        """A saga from its row; Unreadable also where one of its lines was found to be so, until it is read again."""
        found = _stored(row, results)
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
        """The saga with this id; Unreadable also where it is one of its latest lines that is."""
        found = self.find(saga_id)
        if isinstance(found, Record):
            lines = self.lines(saga_id, max(0, found.context.lines - RECENT), RECENT)
            if any(isinstance(line, UnreadableLine) for line in lines):
                found = self.find(saga_id)
        return found

    def raw(self, saga_id: str) -> tuple[Mapping[str, Any], list[Mapping[str, Any]], list[Mapping[str, Any]]] | None:
        """The saga's row, its results and its lines as the database has them; None where there is no row."""
        rows = self._select(sql.RAW_SAGA, {"saga_id": saga_id}) if saga_id.isascii() else ()
        if not rows:
            return None
        results: list[Mapping[str, Any]] = [{**each} for each in self._select(sql.RAW_RESULTS, {"saga_id": saga_id})]
        return {**rows[0]}, results, [{**line} for line in self._select(sql.RAW_LINES, {"saga_id": saga_id})]

    def filled(self, bare: Sequence[Stored], most: float) -> list[Stored]:
        """As many of these as have at most `most` bytes of input and results together, with those; at least one.

        The database sends nothing of the others.
        """

        def work(connection: Connection) -> list[Stored]:
            known = {row.id: row.bytes for row in connection.execute(sql.SIZES_OF, {"saga_ids": [r.id for r in bare]})}
            sums = accumulate(known.get(saga.id) or 0 for saga in bare)
            fitting = [saga for saga, together in zip(bare, sums, strict=True) if together <= most] or bare[:1]
            ids = [saga.id for saga in fitting]
            inputs = {row.id: row.input for row in connection.execute(sql.INPUTS_OF, {"saga_ids": ids})}
            results = _results(connection, ids)
            full = [self._filled(saga, inputs.get(saga.id, {}), results.get(saga.id, {})) for saga in fitting]
            bad = [saga.id for saga in full if isinstance(saga, Unreadable)]
            rows = connection.execute(sql.FIND_MANY, {"saga_ids": bad}).mappings() if bad else ()
            whole = {row["id"]: self._read(row, results.get(row["id"])) for row in rows}
            return [whole.get(saga.id, saga) for saga in full]

        return self._run(work) if bare else []

    def _filled(self, saga: Stored, input: Any, results: Mapping[str, Any]) -> Stored:
        if isinstance(saga, Unreadable):
            return saga
        reason = why_not({"input": input, "state": saga.state}) or why_no_result(results)
        if reason is None:
            return replace(saga, input=input, results=results)
        found = misread(saga, reason)
        self.aside.put(found)
        return found

    def lines(self, saga_id: str, after: int = 0, most: int = ALL) -> list[Line]:
        """The saga's lines with numbers above `after`, oldest first."""
        lines = [line_of(row) for row in self._select(sql.LINES, {"saga_id": saga_id, "after": after, "most": most})]
        self._judge(saga_id, lines, after == 0 and len(lines) < most)
        return lines

    def lines_at(self, saga_id: str, numbers: Iterable[int]) -> list[Line]:
        """The saga's lines with these numbers, oldest first."""
        values = {"saga_id": saga_id, "numbers": list(numbers)}
        return [line_of(row) for row in self._select(sql.LINES_AT, values)]

    def _judge(self, saga_id: str, lines: Iterable[Line], all_of_them: bool) -> None:
        """Set a saga aside for a line of it that cannot be decoded; no more, once all of them can."""
        bad = next((line for line in lines if isinstance(line, UnreadableLine)), None)
        if bad:
            self.aside.put(Unreadable(saga_id, _of_line(bad)), Cause.LINE)
        elif all_of_them:
            self.aside.drop(saga_id, Cause.LINE)

    def latest_lines(self, most: int) -> list[tuple[str, Line]]:
        """The newest lines of all sagas, newest first, each with its saga's id."""
        return [(_owner(row), line_of(row)) for row in self._select(sql.LATEST_LINES, {"most": most})]

    def last_line_id(self) -> int:
        """The highest id of a line; 0 where there is none."""
        return int(self._select(sql.LAST_LINE_ID, {})[0]["id"])

    def line_ids(self, after: int, most: int) -> list[int]:
        """The ids above `after` whose lines are committed, lowest first."""
        return [row["id"] for row in self._select(sql.LINE_IDS, {"after": after, "most": most})]

    def in_flight(self, first: int, last: int) -> bool:
        """Whether a line with an id from `first` to `last` is there, be it uncommitted."""
        seeing_all = self._engine.execution_options(isolation_level="READ UNCOMMITTED")
        return bool(self._select(sql.ANY_ID_BETWEEN, {"first": first, "last": last}, seeing_all))

    def lines_between(self, after: int, upto: int, most: int) -> list[tuple[int, str, Line]]:
        """Lines with ids above `after` and up to `upto`, lowest first: (id, the saga's id, line)."""
        values = {"after": after, "upto": upto, "most": most}
        return [(row["id"], _owner(row), line_of(row)) for row in self._select(sql.LINES_BETWEEN, values)]

    def search(
        self,
        states: Collection[State] = (),
        name: str = "",
        q: str = "",
        before: str = "",
        ended_since: float | None = None,
        attention: int = 0,
        most: int = 50,
        readable: bool | None = None,
    ) -> list[Stored]:
        """Sagas, newest first: in one of `states`, called `name`, whose id begins with `q` or whose key it is, …

        They are bare, without input and results, which can be large: `filled` adds those.
        `attention`: that have not ended, and have used up so many rounds, or whose deadline nobody minds any more, or
        that cannot be read. `readable`: only those that can be read, or only those that cannot; of the latter those
        that are known here, those in an unknown state, and those among the newest SCANNED.
        """
        if not (q + before).isascii():
            return []
        query = sql.SEARCH
        aside = sagas.c.id.in_(self.aside.ids(ASIDE_AT_MOST))
        if states:
            query = query.where(sagas.c.state.in_(states))
        if name:
            query = query.where(sagas.c.name == name)
        if q:  # two ranges of the primary key: quick, however many sagas there are
            beginning = q.lower()
            found = sagas.c.id.between(beginning, beginning + "~")
            known = self._select(sql.ID_BY_KEY, {"key": q})
            query = query.where(or_(found, sagas.c.id == known[0]["id"]) if known else found)
        if before:
            query = query.where(sagas.c.id < before)
        if attention:  # of the few that have not ended, by their state's index
            unminded = sagas.c.due_at.is_(None), sagas.c.owner.is_(None)  # Temporal minds those that it drives
            overdue = and_(*unminded, sagas.c.deadline_at.is_not(None))
            stuck = and_(sagas.c.state.in_(UNENDED), or_(sagas.c.rounds >= attention, overdue, aside))
            query = query.where(or_(stuck, sql.STATE_UNKNOWN))
        if ended_since is not None:
            query = query.where(sagas.c.ended_at >= ended_since)
        if readable is None:
            return [self._read(row) for row in self._select(query, {"most": most})]
        if readable:
            return self._scan(query, most, lambda saga: isinstance(saga, Record))
        marked = query.where(or_(aside, sql.STATE_UNKNOWN))
        scans = [self._scan(scanned, most, lambda saga: isinstance(saga, Unreadable)) for scanned in (marked, query)]
        together = {saga.id: saga for scan in scans for saga in scan}
        return [together[saga_id] for saga_id in sorted(together, reverse=True)[:most]]

    def _scan(self, query: Select[Any], most: int, wanted: Callable[[Stored], bool]) -> list[Stored]:
        """At most `most` of the newest SCANNED sagas that a query finds, a page at a time."""
        found: list[Stored] = []
        page, seen, before = query, 0, ""
        size = min(most, SCANNED_AT_ONCE)
        while len(found) < most and seen < SCANNED:
            rows = self._select(page.where(sagas.c.id < before) if before else page, {"most": size})
            found += [saga for saga in map(self._read, rows) if wanted(saga)]
            seen += len(rows)
            if len(rows) < size:
                break
            before = rows[-1]["id"]
        return found[:most]

    def count_states(self, most: int) -> dict[str, int]:
        """How many sagas are in each state, counted up to `most`; UNREADABLE: that are known to be so, if any are."""
        counted = {row["state"]: row["number"] for row in self._select(sql.COUNT_STATES, {"most": most})}
        unknown = sum(row["number"] for row in self._select(sql.COUNT_UNKNOWN_STATES, {"most": most}))
        numbers: dict[str, int] = {state: counted[state] for state in State}
        for state in self.aside.states():
            if numbers.get(state):
                numbers[state] -= 1
                unknown += 1
        return {**numbers, **({UNREADABLE: min(unknown, most)} if unknown else {})}

    def backlog(self, now: float, attention: int, most: int) -> Backlog:
        """What waits, counted up to `most`; `attention` as in `search`."""
        values = {"attention": attention, "most": most}
        stalled, moving = (self._select(query, values)[0] for query in (sql.COUNT_STALLED, sql.COUNT_MOVING))
        oldest = self._select(sql.OLDEST_DUE, {"now": now})[0]["due_at"]
        return Backlog(
            stalled=int(stalled["number"]),
            needs_attention=int(stalled["attention"]) + int(moving["attention"]),
            overdue=int(stalled["overdue"]) + int(moving["overdue"]),
            oldest_due=max(0.0, now - oldest) if isinstance(oldest, float) else 0.0,
        )

    def prune(self, ended_before: float, most: int) -> int:
        """Forget at most `most` sagas that ended before a time, oldest first; gives their number."""

        def work(connection: Connection) -> int:
            started = f"{int(max(0.0, ended_before) * 1000):012x}"  # how a UUIDv7 begins (RFC 9562, section 5.7)
            values = {"states": list(ENDED), "ended_before": ended_before, "most": most}
            values["started_before"] = f"{started[:8]}-{started[8:]}"  # else it would look through all that are younger
            old = connection.execute(sql.ENDED_BEFORE, values)
            saga_ids = [row.id for row in old]
            for saga_id in saga_ids:
                self.aside.drop(saga_id)
            if saga_ids:
                connection.execute(sql.FORGET_LINES, {"saga_ids": saga_ids})
                connection.execute(sql.FORGET_RESULTS, {"saga_ids": saga_ids})
                connection.execute(sql.FORGET, {"saga_ids": saga_ids})
            return len(saga_ids)

        return self._run(work)

    def ping(self) -> None:
        """Raise LogUnavailable unless the log can be read."""
        self._select(sql.PING, {})

    def _select(
        self, query: Executable, values: Mapping[str, Any], engine: Engine | None = None
    ) -> Sequence[RowMapping]:
        return self._run(lambda connection: connection.execute(query, values).mappings().all(), engine)

    def _execute(self, statement: Executable, values: Mapping[str, Any]) -> int:
        return self._run(lambda connection: connection.execute(statement, values).rowcount)

    def _run(self, work: Callable[[Connection], T], engine: Engine | None = None) -> T:
        """`work` in a transaction; LogUnavailable where it cannot be done, but for a row that is there already."""
        try:
            return self._try(work, engine)
        except STATEMENT_REFUSED as error:
            if isinstance(error, IntegrityError) and is_duplicate(error):
                raise
            raise _refused(error) or LogUnavailable(_UNAVAILABLE) from error

    def _try(self, work: Callable[[Connection], T], engine: Engine | None = None) -> T:
        """`work` in a transaction: once more where the connection was lost or a lock was; LogUnavailable after that.

        One of STATEMENT_REFUSED, or WriteRefused, where the database refuses what it is asked.
        """
        started = time.monotonic()
        while True:
            try:
                with transaction(engine or self._engine) as connection:
                    return work(connection)
            except STATEMENT_REFUSED:
                raise
            except (OverflowError, UnicodeEncodeError) as error:  # the driver cannot even say it
                raise WriteRefused(f"{_REFUSED}: {refusal(error)}") from error
            except (DBAPIError, PoolTimeout, OutcomeUnknown) as error:  # our writes may be sent twice
                if refused := _refused(error):
                    raise refused from error
                lost = isinstance(error, OutcomeUnknown) or (
                    isinstance(error, DBAPIError) and (error.connection_invalidated or is_lock_conflict(error))
                )
                if not lost or time.monotonic() - started > RETRY_WITHIN:
                    raise LogUnavailable(_UNAVAILABLE) from error


def _written(connection: Connection, writes: Sequence[_Write]) -> list[_Fate]:
    """Each write fenced by its own row; then the lines of those that hold, which travel with the COMMIT.

    Two exchanges, though a new saga needs no fence: where the first goes nowhere, nothing can have been committed.
    """
    begun = [write.begin for write in writes if write.begin]
    moved = [index for index, write in enumerate(writes) if write.advance]
    sent = [(sql.BEGIN, begun)] if begun else []
    sent += [(sql.ADVANCE, [write.advance]) for write in writes if write.advance]
    found = execute_batch(connection, *sent)[len(sent) - len(moved) :]
    fenced = {index for index, rows in zip(moved, found, strict=True) if rows != 1}
    lines = [line for index, write in enumerate(writes) if index not in fenced for line in write.lines]
    events = [event for index, write in enumerate(writes) if index not in fenced for event in write.events]
    results = [row for index, write in enumerate(writes) if index not in fenced for row in write.results]
    if lines:
        answered = [(sql.WRITE_RESULTS, results)] if results else []
        execute_batch(connection, *events, *answered, (sql.WRITE_LINES, lines), with_commit=True)
    return [_Fate.FENCED if index in fenced else _Fate.WRITTEN for index in range(len(writes))]


def _results(connection: Connection, saga_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the actions of these sagas answered: by saga, by step."""
    found: dict[str, dict[str, Any]] = {}
    for row in connection.execute(sql.RESULTS_OF, {"saga_ids": saga_ids}):
        found.setdefault(row.saga_id, {})[row.step] = row.result
    return found


def _due_times(rows: Iterable[RowMapping], resting: Collection[str] = ()) -> list[tuple[str, int, float]]:
    """(id, epoch, due time) of those that nobody has set aside, and whose time can be read."""
    found = ((row["id"], row["epoch"], row["due_at"]) for row in rows)
    return [each for each in found if each[0] not in resting and isinstance(each[2], float)]


def _owner(row: RowMapping) -> str:
    """Whose line it is; SQLite keeps what is no text, too."""
    return str(row["saga_id"]).encode("ascii", "backslashreplace").decode()


def _of_line(line: UnreadableLine) -> str:
    return f"line {line.seq}: {line.reason}"


def _refused(error: Exception) -> WriteRefused | None:
    why = refusal(error)
    return WriteRefused(f"{_REFUSED}: {why}") if why else None


def _stored(row: RowMapping, results: Mapping[str, Any] | None = None) -> Stored:
    """A saga from its row, whatever is in it."""
    values = {str(name): value for name, value in row.items()}
    if reason := why_not(values):
        return unreadable(values, reason)
    try:
        record = _record(row, results)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        return unreadable(values, error)
    reason = why_off(record.definition, record.state, record.cursor)
    return unreadable(values, reason) if reason else record


def _record(row: RowMapping, results: Mapping[str, Any] | None = None) -> Record:
    """A saga from a row whose columns have the types that they must have. SnapshotError, ValueError."""
    state = State(row["state"])
    values = {"input": {}, **{str(key): value for key, value in row.items() if key != "name"}}
    values["definition"] = SagaDefinition.from_json(row["definition"], driven=state not in ENDED)
    values["context"] = Context.from_json(row["context"])
    if reason := why_no_result(results or {}):
        raise SnapshotError(reason)
    return Record(**{**values, "state": state, "results": results or {}})
