"""The saga log: what must be known after a crash, on SQLite or MySQL, by one code path.

A row of `sagas` is the saga's present; its lines in `saga_log` are how it came there. Whoever drives a saga
holds its epoch: a claim raises it, and a write with an older one touches no row, which is LeaseLost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    MetaData,
    RowMapping,
    String,
    Table,
    and_,
    bindparam,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from saga.database import Float, Json, Token, UtcTime, is_duplicate, is_lock_conflict
from saga.definition import SagaDefinition
from saga.errors import LeaseLost, LogUnavailable
from saga.machine import ENDED, Line, State

metadata = MetaData()

sagas = Table(
    "sagas",
    metadata,
    Column("id", Token(36), primary_key=True),  # UUIDv7: in the order of their start
    Column("name", String(64), nullable=False),
    Column("definition", Json, nullable=False),  # a snapshot: an edited YAML file changes no running saga
    Column("input", Json, nullable=False),
    Column("state", Token(24), nullable=False),
    Column("cursor", Integer, nullable=False),
    Column("context", Json, nullable=False),  # {step: what its action answered}
    Column("epoch", Integer, nullable=False),
    Column("owner", String(255)),  # NULL: nobody drives it
    Column("due_at", UtcTime),  # the lease's end, the next try of a stalled saga, or NULL: it has ended
    Column("rounds", Integer, nullable=False),
    Column("idempotency_key", Token(255), unique=True),
    Column("request_hash", Token(64)),
    Column("error", Json),
    Column("started_at", UtcTime, nullable=False),
    Column("ended_at", UtcTime),
    Column("deadline_at", UtcTime),
    Index("sagas_due", "due_at"),  # finds all work, however many sagas have ended
    Index("sagas_state", "state", "id"),
)

saga_log = Table(
    "saga_log",
    metadata,
    Column("saga_id", Token(36), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("event", Token(32), nullable=False),
    Column("step", String(64)),
    Column("attempt", Integer),
    Column("status_code", Integer),
    Column("duration_ms", Float),
    Column("detail", Json),
    Index("saga_log_at", "at"),
)

_OWNED = and_(sagas.c.id == bindparam("saga_id"), sagas.c.epoch == bindparam("held"))

BEGIN = insert(sagas)
WRITE_LINES = insert(saga_log)
ADVANCE = (
    update(sagas)
    .where(_OWNED)
    .values(
        {
            name: bindparam(name)
            for name in ("state", "cursor", "context", "rounds", "error", "ended_at", "owner", "due_at")
        }
    )
)
RENEW = update(sagas).where(_OWNED, sagas.c.due_at.is_not(None)).values(due_at=bindparam("new_due_at"))
CLAIM = (
    update(sagas)
    .where(_OWNED, sagas.c.due_at <= bindparam("due_by"))
    .values(epoch=sagas.c.epoch + 1, owner=bindparam("owner"), due_at=bindparam("new_due_at"))
)
FIND = select(sagas).where(sagas.c.id == bindparam("saga_id"))
FIND_MANY = select(sagas).where(sagas.c.id.in_(bindparam("saga_ids", expanding=True)))
FIND_BY_KEY = select(sagas).where(sagas.c.idempotency_key == bindparam("key"))
DUE = (
    select(sagas.c.id, sagas.c.epoch)
    .where(sagas.c.due_at <= bindparam("now"))
    .order_by(sagas.c.due_at)
    .limit(bindparam("most"))
)
FREE_OWNER = (  # what a process of this name left behind: it is gone, or this one would not have its port
    update(sagas)
    .where(sagas.c.owner == bindparam("gone"), sagas.c.due_at > bindparam("now"))
    .values(due_at=bindparam("now"))
)
LINES = select(saga_log).where(saga_log.c.saga_id == bindparam("saga_id")).order_by(saga_log.c.seq)
LINES_OF = (
    select(saga_log)
    .where(saga_log.c.saga_id.in_(bindparam("saga_ids", expanding=True)))
    .order_by(saga_log.c.saga_id, saga_log.c.seq)
)
LAST_SEQ = select(func.max(saga_log.c.seq)).where(saga_log.c.saga_id == bindparam("saga_id"))
LATEST_LINES = (
    select(saga_log)
    .order_by(saga_log.c.at.desc(), saga_log.c.saga_id.desc(), saga_log.c.seq.desc())
    .limit(bindparam("most"))
)
PING = select(func.count()).select_from(select(sagas.c.id).limit(1).subquery())


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


class SagaLog:
    """Durable once a method has returned. Every method may raise LogUnavailable."""

    def __init__(self, engine: Engine):
        self._engine = engine

    def begin(self, record: Record, lines: Sequence[Line]) -> Record | None:
        """Write a new saga; where its idempotency key (or id) is known already, write nothing and give that saga."""
        row = {**vars(record), "name": record.definition.name, "definition": record.definition.to_json()}
        try:
            with self._transaction() as connection:
                connection.execute(BEGIN, row)
                connection.execute(WRITE_LINES, _rows(record.id, lines))
        except IntegrityError as error:
            if not is_duplicate(error):
                raise
            return self.find(record.id) or (record.idempotency_key and self.find_by_key(record.idempotency_key)) or None
        return None

    def advance(self, saga_id: str, epoch: int, present: Present, lines: Sequence[Line]) -> None:
        """Move the saga on and add its lines, in one transaction. LeaseLost where `epoch` is no longer its own."""
        with self._transaction() as connection:
            moved = connection.execute(ADVANCE, {"saga_id": saga_id, "held": epoch, **vars(present)})
            if moved.rowcount != 1:
                raise LeaseLost(saga_id)
            if lines:
                connection.execute(WRITE_LINES, _rows(saga_id, lines))

    def renew(self, saga_id: str, epoch: int, due_at: float) -> None:
        """Hold the saga until `due_at`. LeaseLost where `epoch` is no longer its own."""
        with self._transaction() as connection:
            if connection.execute(RENEW, {"saga_id": saga_id, "held": epoch, "new_due_at": due_at}).rowcount != 1:
                raise LeaseLost(saga_id)

    def claim(self, saga_id: str, epoch: int, owner: str, *, due_by: float, due_at: float) -> tuple[Record, bool]:
        """Take over a saga that was due at `due_by`, until `due_at`; gives it, and whether somebody still held it.

        LeaseLost where somebody else was quicker, or its owner has renewed its lease.
        """
        values = {"saga_id": saga_id, "held": epoch, "owner": owner, "due_by": due_by, "new_due_at": due_at}
        with self._transaction() as connection:
            before = connection.execute(FIND, {"saga_id": saga_id}).mappings().first()
            if before is None or connection.execute(CLAIM, values).rowcount != 1:
                raise LeaseLost(saga_id)
            claimed = connection.execute(FIND, {"saga_id": saga_id}).mappings().one()
        return _record(claimed), before["owner"] is not None

    def due(self, now: float, most: int) -> list[tuple[str, int]]:
        """At most `most` sagas that want a driver, longest waiting first: (id, epoch)."""
        with self._transaction() as connection:
            return [(row.id, row.epoch) for row in connection.execute(DUE, {"now": now, "most": most})]

    def free(self, owner: str, now: float) -> int:
        """Make the sagas due that an earlier process named `owner` held; gives their number."""
        with self._transaction() as connection:
            return connection.execute(FREE_OWNER, {"gone": owner, "now": now}).rowcount

    def find(self, saga_id: str) -> Record | None:
        """The saga with this id."""
        with self._transaction() as connection:
            row = connection.execute(FIND, {"saga_id": saga_id}).mappings().first()
            return _record(row) if row else None

    def find_many(self, saga_ids: Iterable[str]) -> dict[str, Record]:
        """The sagas with these ids, by id."""
        with self._transaction() as connection:
            rows = connection.execute(FIND_MANY, {"saga_ids": list(saga_ids)}).mappings()
            return {row["id"]: _record(row) for row in rows}

    def find_by_key(self, key: str) -> Record | None:
        """The saga that was started with this idempotency key."""
        with self._transaction() as connection:
            row = connection.execute(FIND_BY_KEY, {"key": key}).mappings().first()
            return _record(row) if row else None

    def lines(self, saga_id: str) -> list[Line]:
        """The saga's lines, oldest first."""
        with self._transaction() as connection:
            return [_line(row) for row in connection.execute(LINES, {"saga_id": saga_id}).mappings()]

    def lines_of(self, saga_ids: Iterable[str]) -> dict[str, list[Line]]:
        """The lines of several sagas, each oldest first."""
        found: dict[str, list[Line]] = {saga_id: [] for saga_id in saga_ids}
        if found:
            with self._transaction() as connection:
                for row in connection.execute(LINES_OF, {"saga_ids": list(found)}).mappings():
                    found[row["saga_id"]].append(_line(row))
        return found

    def latest_lines(self, most: int) -> list[tuple[str, Line]]:
        """The newest lines of all sagas, newest first, each with its saga's id."""
        with self._transaction() as connection:
            rows = connection.execute(LATEST_LINES, {"most": most}).mappings()
            return [(row["saga_id"], _line(row)) for row in rows]

    def search(
        self, states: Sequence[State] = (), name: str = "", q: str = "", before: str = "", most: int = 50
    ) -> list[Record]:
        """Sagas, newest first: in one of `states`, of this `name`, whose id begins with `q` or whose key it is."""
        query = select(sagas).order_by(sagas.c.id.desc()).limit(most)
        if states:
            query = query.where(sagas.c.state.in_(states))
        if name:
            query = query.where(sagas.c.name == name)
        if q:
            query = query.where(or_(sagas.c.id.startswith(q.lower(), autoescape=True), sagas.c.idempotency_key == q))
        if before:
            query = query.where(sagas.c.id < before)
        with self._transaction() as connection:
            return [_record(row) for row in connection.execute(query).mappings()]

    def ping(self) -> None:
        """Raise LogUnavailable unless the log can be read."""
        with self._transaction() as connection:
            connection.execute(PING)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except (DBAPIError, PoolTimeout) as error:
            busy = isinstance(error, DBAPIError) and is_lock_conflict(error)
            raise LogUnavailable("the saga log is busy" if busy else "the saga log cannot be reached") from error


def _rows(saga_id: str, lines: Iterable[Line]) -> list[dict[str, Any]]:
    return [{**vars(line), "saga_id": saga_id} for line in lines]


def _line(row: RowMapping) -> Line:
    return Line(**{str(key): value for key, value in row.items() if key != "saga_id"})


def _record(row: RowMapping) -> Record:
    values = {str(key): value for key, value in row.items() if key != "name"}
    definition = SagaDefinition.from_json(values.pop("definition"))
    return Record(**{**values, "definition": definition, "state": State(row["state"])})
