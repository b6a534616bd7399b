"""The saga log: what must be known after a crash, on SQLite or MySQL, by one code path.

A row of `sagas` is the saga's present; its lines in `saga_log` are how it came there. Whoever drives a saga
holds its epoch: a claim raises it, and a write with an older one touches no row, which is LeaseLost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, RowMapping, or_, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from saga import log_sql as sql
from saga.database import is_duplicate, is_lock_conflict, transaction
from saga.definition import SagaDefinition
from saga.errors import LeaseLost, LogUnavailable, OutcomeUnknown
from saga.log_sql import sagas
from saga.machine import ENDED, Line, State

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
        """Write a new saga; where its idempotency key is known already, write nothing and give that saga."""
        row = {**vars(record), "name": record.definition.name, "definition": record.definition.to_json()}

        def work(connection: Connection) -> None:
            connection.execute(sql.BEGIN, row)
            connection.execute(sql.WRITE_LINES, _rows(record.id, lines))

        try:
            self._run(work)
        except IntegrityError as error:
            if not is_duplicate(error):
                raise
            known = record.idempotency_key and self.find_by_key(record.idempotency_key)
            return known if known and known.id != record.id else None  # its own: the COMMIT's answer was lost
        return None

    def advance(self, saga_id: str, epoch: int, present: Present, lines: Sequence[Line]) -> None:
        """Move the saga on and add its lines, in one transaction. LeaseLost where `epoch` is no longer its own."""

        def work(connection: Connection) -> None:
            moved = connection.execute(sql.ADVANCE, {"saga_id": saga_id, "held": epoch, **vars(present)})
            if moved.rowcount != 1:
                raise LeaseLost(saga_id)
            if lines:
                connection.execute(sql.WRITE_LINES, _rows(saga_id, lines))

        try:
            self._run(work)
        except IntegrityError as error:  # the lines are there: this very write, whose COMMIT's answer was lost
            if not is_duplicate(error):
                raise

    def renew(self, saga_id: str, epoch: int, due_at: float) -> None:
        """Hold the saga until `due_at`. LeaseLost where `epoch` is no longer its own."""
        if self._execute(sql.RENEW, {"saga_id": saga_id, "held": epoch, "new_due_at": due_at}) != 1:
            raise LeaseLost(saga_id)

    def claim(self, saga_id: str, epoch: int, owner: str, *, due_by: float, due_at: float) -> tuple[Record, bool]:
        """Take over a saga that was due at `due_by`, until `due_at`; gives it, and whether somebody still held it.

        LeaseLost where somebody else was quicker, or its owner has renewed its lease.
        """
        values = {"saga_id": saga_id, "held": epoch, "owner": owner, "new_due_at": due_at}
        return self._run(lambda connection: _claimed(connection, sql.CLAIM, {**values, "due_by": due_by}))

    def take(self, saga_id: str, epoch: int, state: State, owner: str, due_at: float) -> tuple[Record, bool]:
        """Like `claim`, whoever holds it, as long as it is in `state`: an operator's word."""
        values = {"saga_id": saga_id, "held": epoch, "owner": owner, "new_due_at": due_at}
        return self._run(lambda connection: _claimed(connection, sql.TAKE, {**values, "in_state": state}))

    def due(self, now: float, most: int) -> list[tuple[str, int]]:
        """At most `most` sagas that want a driver, longest waiting first: (id, epoch)."""
        return [(row["id"], row["epoch"]) for row in self._select(sql.DUE, {"now": now, "most": most})]

    def postpone(self, sagas_due: Mapping[tuple[str, int], float]) -> None:
        """Let stalled sagas rest longer: (id, epoch) to the new time."""
        rows = [{"saga_id": key[0], "held": key[1], "new_due_at": due_at} for key, due_at in sagas_due.items()]
        if rows:
            self._run(lambda connection: connection.execute(sql.POSTPONE, rows))

    def free(self, owner: str, now: float) -> int:
        """Make the sagas due that an earlier process named `owner` held; gives their number."""
        return self._execute(sql.FREE_OWNER, {"gone": owner, "now": now})

    def find(self, saga_id: str) -> Record | None:
        """The saga with this id."""
        if not saga_id.isascii():  # MySQL does not compare such a text with an ASCII column, it raises
            return None
        return next((_record(row) for row in self._select(sql.FIND, {"saga_id": saga_id})), None)

    def find_many(self, saga_ids: Iterable[str]) -> dict[str, Record]:
        """The sagas with these ids, by id."""
        return {row["id"]: _record(row) for row in self._select(sql.FIND_MANY, {"saga_ids": list(saga_ids)})}

    def find_by_key(self, key: str) -> Record | None:
        """The saga that was started with this idempotency key."""
        return next((_record(row) for row in self._select(sql.FIND_BY_KEY, {"key": key})), None)

    def lines(self, saga_id: str) -> list[Line]:
        """The saga's lines, oldest first."""
        return [_line(row) for row in self._select(sql.LINES, {"saga_id": saga_id})]

    def lines_of(self, saga_ids: Iterable[str]) -> dict[str, list[Line]]:
        """The lines of several sagas, each oldest first."""
        found: dict[str, list[Line]] = {saga_id: [] for saga_id in saga_ids}
        if found:
            for row in self._select(sql.LINES_OF, {"saga_ids": list(found)}):
                found[row["saga_id"]].append(_line(row))
        return found

    def latest_lines(self, most: int) -> list[tuple[str, Line]]:
        """The newest lines of all sagas, newest first, each with its saga's id."""
        return [(row["saga_id"], _line(row)) for row in self._select(sql.LATEST_LINES, {"most": most})]

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
        return [(row["id"], row["saga_id"], _line(row)) for row in self._select(sql.LINES_BETWEEN, values)]

    def search(
        self,
        states: Collection[State] = (),
        name: str = "",
        q: str = "",
        before: str = "",
        ended_since: float | None = None,
        rounds: int = 0,
        most: int = 50,
    ) -> list[Record]:
        """Sagas, newest first: in one of `states`, called `name`, whose id begins with `q` or whose key it is, …

        `rounds`: that have stalled at least so often.
        """
        if not (q + before).isascii():
            return []
        query = select(sagas).order_by(sagas.c.id.desc()).limit(most)
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
        if rounds:
            query = query.where(sagas.c.rounds >= rounds)
        if ended_since is not None:
            query = query.where(sagas.c.ended_at >= ended_since)
        return [_record(row) for row in self._select(query, {})]

    def count_states(self, most: int) -> dict[State, int]:
        """How many sagas are in each state, counted up to `most`."""
        return {State(row["state"]): row["number"] for row in self._select(sql.COUNT_STATES, {"most": most})}

    def prune(self, ended_before: float, most: int) -> int:
        """Forget at most `most` sagas that ended before a time, oldest first; gives their number."""

        def work(connection: Connection) -> int:
            values = {"states": list(ENDED), "ended_before": ended_before, "most": most}
            old = connection.execute(sql.ENDED_BEFORE, values)
            saga_ids = [row.id for row in old]
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
        """`work` in a transaction: once more where the connection was lost or a lock was; LogUnavailable after that."""
        started = time.monotonic()
        while True:
            try:
                with transaction(engine or self._engine) as connection:
                    return work(connection)
            except IntegrityError:
                raise
            except (DBAPIError, PoolTimeout, OutcomeUnknown) as error:  # our writes may be sent twice
                lost = isinstance(error, OutcomeUnknown) or (
                    isinstance(error, DBAPIError) and (error.connection_invalidated or is_lock_conflict(error))
                )
                if not lost or time.monotonic() - started > RETRY_WITHIN:
                    raise LogUnavailable("the saga log does not answer, or does not take the write") from error


def _claimed(connection: Connection, claim: Executable, values: Mapping[str, Any]) -> tuple[Record, bool]:
    before = connection.execute(sql.FIND, {"saga_id": values["saga_id"]}).mappings().first()
    if before is None or connection.execute(claim, values).rowcount != 1:
        raise LeaseLost(values["saga_id"])
    after = connection.execute(sql.FIND, {"saga_id": values["saga_id"]}).mappings().one()
    return _record(after), before["owner"] is not None


def _rows(saga_id: str, lines: Iterable[Line]) -> list[dict[str, Any]]:
    return [{**vars(line), "saga_id": saga_id} for line in lines]


def _line(row: RowMapping) -> Line:
    return Line(**{str(key): value for key, value in row.items() if key not in ("id", "saga_id")})


def _record(row: RowMapping) -> Record:
    values = {str(key): value for key, value in row.items() if key != "name"}
    definition = SagaDefinition.from_json(values.pop("definition"))
    return Record(**{**values, "definition": definition, "state": State(row["state"])})
