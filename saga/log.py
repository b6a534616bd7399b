"""The saga log: what must be known after a crash, on SQLite or MySQL, by one code path.

A row of `sagas` is the saga's present; its lines in `saga_log` are how it came there. Whoever drives a saga
holds its epoch: a claim raises it, and a write with an older one touches no row, which is LeaseLost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, RowMapping, Select, and_, or_, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from saga import log_sql as sql
from saga import outbox
from saga.choreography import Event as Told
from saga.database import ASKED_WRONGLY, Written, is_duplicate, is_lock_conflict, refusal, transaction
from saga.definition import SagaDefinition, SnapshotError
from saga.errors import IllegalEvent, LeaseLost, LogUnavailable, OutcomeUnknown, SagaUnreadable, WriteRefused
from saga.exchange import Row, Statement, exchange
from saga.group_commit import GroupCommit
from saga.log_sql import sagas
from saga.machine import ENDED, UNENDED, Event, Line, State, replay
from saga.set_aside import Cause, SetAside
from saga.unreadable import UNREADABLE, Unreadable, UnreadableLine, line_of, unreadable, why_not, why_off

_UNAVAILABLE = "the saga log does not answer, or does not take the write"
_REFUSED = "the saga log does not take what it is asked to write"
SCANNED = 2000  # sagas, the newest, that are looked through for those that can, or cannot, be read
SCANNED_AT_ONCE = 100
FAR_ON = 1_000_000_000  # the number of a line where that of the last one cannot be read
ASIDE_AT_MOST = 1000  # sagas set aside that a search asks for by their ids
RETRY_WITHIN = 3.0  # seconds: a write that was refused later than that is not tried again

T = TypeVar("T")


@dataclass(frozen=True)
class Record:
    """A row of `sagas`; times are seconds since the epoch."""

    id: str
    definition: SagaDefinition
    input: Mapping[str, Any]
    state: State
    cursor: int
    context: Mapping[str, Mapping[str, Any]]
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

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ENDED


Stored = Record | Unreadable  # what a row of `sagas` is to its readers


@dataclass(frozen=True)
class Present:
    """The part of a saga's row that its driver moves on, all of it at each write."""

    state: State
    cursor: int
    context: Mapping[str, Mapping[str, Any]]
    rounds: int
    error: Mapping[str, Any] | None
    ended_at: float | None
    owner: str | None
    due_at: float | None


@dataclass(frozen=True)
class _Write:
    """A saga's write, bound: its new row, or how its row moves on, and its lines."""

    begin: Row | None
    advance: Row | None
    lines: Sequence[Row]
    events: Sequence[tuple[Statement, Sequence[Row]]] = ()  # for the outbox

    def size(self) -> int:
        """About how many bytes it is."""
        events = [row for _, rows in self.events for row in rows]
        rows = [row for row in (self.begin, self.advance, *self.lines, *events) if row]
        return sum(len(value) for row in rows for value in row if isinstance(value, str))


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

    def begin(self, record: Record, lines: Sequence[Line], events: Sequence[Told] = ()) -> Stored | None:
        """Write a new saga, and the events that start it; where its idempotency key is known, give that saga."""
        definition = record.definition
        values = {**vars(record), "name": definition.name, "definition": Written(definition.snapshot_text)}
        row = self._bind(sql.BEGIN, values)
        sent = outbox.written(events, self._engine)
        if self._writes.submit(_Write(row, None, self._bound(record.id, lines), sent)) is _Fate.WRITTEN:
            return None
        known = record.idempotency_key and self.find_by_key(record.idempotency_key)
        return known if known and known.id != record.id else None  # its own: the COMMIT's answer was lost

    def advance(
        self, saga_id: str, epoch: int, present: Present, lines: Sequence[Line], next_epoch: int | None = None
    ) -> None:
        """Move the saga on and add its lines, in one transaction. LeaseLost where `epoch` is no longer its own.

        `next_epoch`: raise it, so that of several who follow a saga one wins.
        """
        values = {"saga_id": saga_id, "held": epoch, "epoch": next_epoch or epoch, **vars(present)}
        row = self._bind(sql.ADVANCE, values)
        if self._writes.submit(_Write(None, row, self._bound(saga_id, lines))) is _Fate.FENCED:
            raise LeaseLost(saga_id)

    def _claimed(self, connection: Connection, claim: Executable, values: Mapping[str, Any]) -> tuple[Record, bool]:
        before = connection.execute(sql.FIND, {"saga_id": values["saga_id"]}).mappings().first()
        if before is None or connection.execute(claim, values).rowcount != 1:
            raise LeaseLost(values["saga_id"])
        after = connection.execute(sql.FIND, {"saga_id": values["saga_id"]}).mappings().one()
        return self._drivable(connection, _stored(after)), before["owner"] is not None

    def _drivable(self, connection: Connection, found: Stored) -> Record:
        """The saga, unless its row or its lines cannot be decoded, or tell what the machine does not know.

        SagaUnreadable else, which undoes the claim: nothing of it is changed.
        """
        if isinstance(found, Unreadable):
            self.aside.put(found)
            raise SagaUnreadable(f"it cannot be read: {found.reason}")
        lines = [line_of(row) for row in connection.execute(sql.LINES, {"saga_id": found.id}).mappings()]
        bad = next((line for line in lines if isinstance(line, UnreadableLine)), None)
        reason = _of_line(bad) if bad else _told_wrongly(found, lines)
        if reason:
            self.aside.put(Unreadable(found.id, reason, state=found.state), Cause.LINE if bad else Cause.LOG)
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
        except (*ASKED_WRONGLY, WriteRefused):
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
            last = connection.execute(sql.LAST_SEQ_OF, {"saga_id": saga_id}).scalar_one()
            line = Line(last + 1 if isinstance(last, int) else FAR_ON, now, Event.RESOLVED, detail=detail)
            exchange(connection, (sql.WRITE_LINES, self._bound(saga_id, [line])), last=True)

        self._run(work)
        self.aside.drop(saga_id)

    def renew(self, saga_id: str, epoch: int, due_at: float | None) -> None:
        """Hold the saga until `due_at`, for ever where it is None. LeaseLost where `epoch` is no longer its own."""
        if self._execute(sql.RENEW, {"saga_id": saga_id, "held": epoch, "new_due_at": due_at}) != 1:
            raise LeaseLost(saga_id)

    def claim(self, saga_id: str, epoch: int, owner: str, *, due_by: float, due_at: float) -> tuple[Record, bool]:
        """Take over a saga that was due at `due_by`, until `due_at`; gives it, and whether somebody still held it.

        LeaseLost where somebody else was quicker, or its owner has renewed its lease. SagaUnreadable where its row or
        its lines cannot be decoded: then nothing is changed.
        """
        values = {"saga_id": saga_id, "held": epoch, "owner": owner, "new_due_at": due_at}
        return self._run(lambda connection: self._claimed(connection, sql.CLAIM, {**values, "due_by": due_by}))

    def take(self, saga_id: str, epoch: int, state: State, owner: str, due_at: float) -> tuple[Record, bool]:
        """Like `claim`, whoever holds it, as long as it is in `state`: an operator's word."""
        values = {"saga_id": saga_id, "held": epoch, "owner": owner, "new_due_at": due_at}
        return self._run(lambda connection: self._claimed(connection, sql.TAKE, {**values, "in_state": state}))

    def due(self, now: float, most: int) -> list[tuple[str, int]]:
        """At most `most` sagas that want a driver, longest waiting first: (id, epoch); none that is set aside."""
        return [(row["id"], row["epoch"]) for row in self._not_aside(sql.DUE, now, most)]

    def unstarted(self, now: float, most: int) -> list[str]:
        """The ids of at most `most` sagas that Temporal should have by now, and perhaps has not."""
        return [row["id"] for row in self._not_aside(sql.UNSTARTED, now, most)]

    def _not_aside(self, query: Executable, now: float, most: int) -> list[RowMapping]:
        """What is due, but for what is set aside: that stays due, and takes up nobody's place."""
        aside = self.aside.resting()
        found = self._select(query, {"now": now, "most": most + len(aside)})
        return [row for row in found if str(row["id"]) not in aside][:most]

    def postpone(self, sagas_due: Mapping[tuple[str, int], float]) -> None:
        """Let stalled sagas rest longer: (id, epoch) to the new time."""
        rows = [{"saga_id": key[0], "held": key[1], "new_due_at": due_at} for key, due_at in sagas_due.items()]
        if rows:
            self._run(lambda connection: connection.execute(sql.POSTPONE, rows))

    def free(self, owner: str, now: float) -> int:
        """Make the sagas due that an earlier process named `owner` held; gives their number."""
        return self._execute(sql.FREE_OWNER, {"gone": owner, "now": now})

    def find(self, saga_id: str) -> Stored | None:
        """The saga with this id."""
        if not saga_id.isascii():  # MySQL does not compare such a text with an ASCII column, it raises
            return None
        return next((self._read(row) for row in self._select(sql.FIND, {"saga_id": saga_id})), None)

    def find_many(self, saga_ids: Iterable[str]) -> dict[str, Stored]:
        """The sagas with these ids, by id."""
        return {row["id"]: self._read(row) for row in self._select(sql.FIND_MANY, {"saga_ids": list(saga_ids)})}

    def find_by_key(self, key: str) -> Stored | None:
        """The saga that was started with this idempotency key."""
        return next((self._read(row) for row in self._select(sql.FIND_BY_KEY, {"key": key})), None)

    def _read(self, row: RowMapping) -> Stored:
        """A saga from its row; Unreadable also where one of its lines was found to be so, until it is read again."""
        found = _stored(row)
        if isinstance(found, Unreadable):
            self.aside.put(found)
        elif known := self.aside.despite_its_row(found.id):
            reason, cause = known
            misfit = unreadable({str(name): value for name, value in row.items()}, reason)
            self.aside.put(misfit, cause)
            return misfit
        else:
            self.aside.drop(found.id)
        return found

    def read(self, saga_id: str) -> tuple[Stored | None, list[Line]]:
        """The saga with this id and its lines, oldest first; Unreadable also where it is one of the lines that is."""
        found, lines = self.find(saga_id), self.lines(saga_id)
        if isinstance(found, Record) and any(isinstance(line, UnreadableLine) for line in lines):
            found = self.find(saga_id)
        return found, lines

    def raw(self, saga_id: str) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]] | None:
        """The saga's row and its lines as the database has them, whatever is in them; None where there is no row."""
        rows = self._select(sql.RAW_SAGA, {"saga_id": saga_id}) if saga_id.isascii() else ()
        if not rows:
            return None
        return {**rows[0]}, [{**line} for line in self._select(sql.RAW_LINES, {"saga_id": saga_id})]

    def lines(self, saga_id: str) -> list[Line]:
        """The saga's lines, oldest first."""
        lines = [line_of(row) for row in self._select(sql.LINES, {"saga_id": saga_id})]
        self._judge(saga_id, lines)
        return lines

    def _judge(self, saga_id: str, lines: Iterable[Line]) -> None:
        """Set a saga aside for a line of it that cannot be decoded; no more, once all of them can."""
        bad = next((line for line in lines if isinstance(line, UnreadableLine)), None)
        if bad:
            self.aside.put(Unreadable(saga_id, _of_line(bad)), Cause.LINE)
        else:
            self.aside.drop(saga_id, Cause.LINE)

    def lines_of(self, saga_ids: Iterable[str]) -> dict[str, list[Line]]:
        """The lines of several sagas, each oldest first."""
        found: dict[str, list[Line]] = {saga_id: [] for saga_id in saga_ids}
        if found:
            for row in self._select(sql.LINES_OF, {"saga_ids": list(found)}):
                found[row["saga_id"]].append(line_of(row))
        for saga_id, lines in found.items():
            self._judge(saga_id, lines)
        return found

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

        `attention`: that have not ended, and have used up so many rounds, or whose deadline nobody minds any more, or
        that cannot be read. `readable`: only those that can be read, or only those that cannot; of the latter those
        that are known here, those in an unknown state, and those among the newest SCANNED.
        """
        if not (q + before).isascii():
            return []
        query = select(sagas).order_by(sagas.c.id.desc())
        aside = sagas.c.id.in_(self.aside.ids(ASIDE_AT_MOST))
        if states:
            query = query.where(sagas.c.state.in_(states))
        if name:
            query = query.where(sagas.c.name == name)
        if q:  # two ranges of the primary key: quick, however many sagas there are
            beginning = q.lower()
            found = sagas.c.id.between(beginning, beginning + "~")
            known = self.find_by_key(q)
            query = query.where(or_(found, sagas.c.id == known.id) if known else found)
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
            return [self._read(row) for row in self._select(query.limit(most), {})]
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
            rows = self._select((page.where(sagas.c.id < before) if before else page).limit(size), {})
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
        except ASKED_WRONGLY as error:
            if isinstance(error, IntegrityError) and is_duplicate(error):
                raise
            raise _refused(error) or LogUnavailable(_UNAVAILABLE) from error

    def _try(self, work: Callable[[Connection], T], engine: Engine | None = None) -> T:
        """`work` in a transaction: once more where the connection was lost or a lock was; LogUnavailable after that.

        One of ASKED_WRONGLY, or WriteRefused, where the database refuses what it is asked.
        """
        started = time.monotonic()
        while True:
            try:
                with transaction(engine or self._engine) as connection:
                    return work(connection)
            except ASKED_WRONGLY:
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
    found = exchange(connection, *sent)[len(sent) - len(moved) :]
    fenced = {index for index, rows in zip(moved, found, strict=True) if rows != 1}
    lines = [line for index, write in enumerate(writes) if index not in fenced for line in write.lines]
    events = [event for index, write in enumerate(writes) if index not in fenced for event in write.events]
    if lines:
        exchange(connection, *events, (sql.WRITE_LINES, lines), last=True)
    return [_Fate.FENCED if index in fenced else _Fate.WRITTEN for index in range(len(writes))]


def _owner(row: RowMapping) -> str:
    """Whose line it is; SQLite keeps what is no text, too."""
    return str(row["saga_id"]).encode("ascii", "backslashreplace").decode()


def _told_wrongly(record: Record, lines: Sequence[Line]) -> str | None:
    """Why a saga's lines are none that its definition could have led to; None where they are."""
    try:
        replay(record.definition, record.input, lines, record.context)
    except (IllegalEvent, IndexError, TypeError, ValueError) as error:
        return f"its lines do not follow from each other: {error}"
    return None


def _of_line(line: UnreadableLine) -> str:
    return f"line {line.seq}: {line.reason}"


def _refused(error: Exception) -> WriteRefused | None:
    why = refusal(error)
    return WriteRefused(f"{_REFUSED}: {why}") if why else None


def _stored(row: RowMapping) -> Stored:
    """A saga from its row, whatever is in it."""
    values = {str(name): value for name, value in row.items()}
    if reason := why_not(values):
        return unreadable(values, reason)
    try:
        record = _record(row)
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        return unreadable(values, error)
    reason = why_off(record.definition, record.state, record.cursor)
    return unreadable(values, reason) if reason else record


def _record(row: RowMapping) -> Record:
    """A saga from a row whose columns have the types that they must have. SnapshotError, ValueError."""
    values = {str(key): value for key, value in row.items() if key != "name"}
    state = State(row["state"])
    definition = SagaDefinition.from_json(values.pop("definition"), driven=state not in ENDED)
    if not all(isinstance(result, dict) for result in row["context"].values()):
        raise SnapshotError("context must be a JSON object of objects")
    return Record(**{**values, "definition": definition, "state": state})
