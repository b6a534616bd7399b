"""A whole stack in one thread: the real log, driver and participants on SQLite, calls made through WSGI.

Every instant at which a process could die is a numbered point. A world can be told to crash at one of them: the
orchestrator's driver is gone (what it had not committed is lost), or a participant's connection breaks, its
transaction rolled back or committed. Then the world goes on as a restarted process would, until the saga ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flask import Flask
from sqlalchemy import Engine, event, func, select

from saga.barrier import saga_barrier
from saga.context import replay
from saga.definition import SagaDefinition
from saga.driver import Claim, Driver, DriverDeps
from saga.errors import LeaseLost
from saga.faults.crashes import OrchestratorCrashes
from saga.faults.flags import parse_plan
from saga.http_client.transport import Failure, HttpAnswer
from saga.kits.flask import Participant, Transaction, load_settings
from saga.machine import ENDED
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.storage import log_tables
from saga.storage.database import connect, create_tables
from service_a import app as service_a
from service_b import app as service_b
from service_c import app as service_c
from tests.support.builders import a_saga_id, a_started_saga, signup

SERVICES: dict[str, Participant] = {"A": service_a.service, "B": service_b.service, "C": service_c.service}
INPUT = {"username": "ada", "address": "1 Main St", "payment": "4111"}
LEASE = 10.0


class Crash(BaseException):
    """The orchestrator's process dies here: no handler of the code under test may catch it."""


class ParticipantCrash(BaseException):
    """A participant's process dies here."""


class CrashingLog(SagaLog):
    """The real log; a crash may come before each write, when it is lost, or after it, when it is kept."""

    point: Callable[[str], None] = staticmethod(lambda name: None)
    checks_writes = True  # recovery is replay: at every write the row says what all its lines come to

    def begin(self, *args: Any, **kwargs: Any) -> Any:
        return self._between_points("begin", super().begin, *args, **kwargs)

    def advance(self, *args: Any, **kwargs: Any) -> Any:
        return self._between_points("advance", self._checked, *args, **kwargs)

    def _checked(self, saga_id: str, *args: Any, **kwargs: Any) -> None:
        super().advance(saga_id, *args, **kwargs)
        if self.checks_writes:
            check_replay(self, saga_id)

    def claim(self, *args: Any, **kwargs: Any) -> Any:
        return self._between_points("claim", super().claim, *args, **kwargs)

    def add_line(self, *args: Any, **kwargs: Any) -> Any:
        return self._between_points("add_line", super().add_line, *args, **kwargs)

    def _between_points(self, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.point(f"before {name}")
        result = method(*args, **kwargs)
        self.point(f"after {name}")
        return result


class World:
    """One saga's world; `point` is called with a name at every instant that could be the last."""

    def __init__(self, directory: Path, definition: SagaDefinition | None = None):
        self.definition = definition or signup()
        self.now = 1_000_000_000.0
        self.point: Callable[[str], None] = lambda name: None
        self.committed: list[tuple[str, str, str]] = []  # (saga, step, "action" | "compensation"): what took effect
        self.calls: list[tuple[str, str]] = []  # (epoch of its driver, url): every attempt
        self.log = CrashingLog(quick(connect(f"sqlite:///{directory}/log.db")))
        self.log.point = lambda name: self.point(name)
        create_tables(self.log.database.engine, log_tables.metadata)
        self.engines: dict[str, Engine] = {}
        self.apps: dict[str, Flask] = {}
        for name, service in SERVICES.items():
            self._serve(name, service, directory)
        self.ids = itertools.count(1)

    def close(self) -> None:
        """Close the databases."""
        for engine in (self.log.database.engine, *self.engines.values()):
            engine.dispose()

    def _serve(self, name: str, service: Participant, directory: Path) -> None:
        settings = load_settings(
            {
                f"SERVICE_{name}_DB_URL": f"sqlite:///{directory}/{name}.db",
                "FAULT_HOLD_SECONDS": "0.001",
                "NATS_URL": "off",
            }
        )
        watched = replace(
            service,
            action=self._watched(name, "action", service.action),
            compensation=self._watched(name, "compensation", service.compensation),
        )
        app = watched.create_app(settings)
        engine: Engine = app.extensions["saga"].transactions.engine
        quick(engine)
        event.listen(engine, "commit", lambda connection: self._at_commit(name, connection))
        event.listen(engine, "rollback", lambda connection: connection.info.pop("work", None))
        self.engines[name], self.apps[name] = engine, app

    def _watched(self, step: str, call: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(tx: Transaction, fields: Mapping[str, Any]) -> Any:
            result = function(tx, fields)
            connection = tx.execute.__self__  # type: ignore[attr-defined]
            connection.info["work"] = (tx.saga_id, step, call)
            return result

        return run

    def _at_commit(self, name: str, connection: Any) -> None:
        """Just before the COMMIT; what is done by it is noted once the exchange is over (see `post`)."""
        self.point(f"{name} before commit")
        work = connection.info.pop("work", None)
        if work:
            self.committed.append(work)

    # The transport

    def transport(self, epoch: Callable[[], int]) -> Any:
        world = self

        class Wsgi:
            def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
                return world.post(url, headers, body, timeout, epoch())

        return Wsgi()

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float, epoch: int) -> HttpAnswer:
        """Make one attempt. A participant's crash breaks the connection; a `lost` or `late` answer is a time-out."""
        parts = urlsplit(url)
        name = str(parts.hostname).upper()
        self.point(f"before call {name}")
        self.calls.append((str(epoch), url))
        try:
            response = (
                self.apps[name].test_client().post(f"{parts.path}?{parts.query}", data=body, headers=dict(headers))
            )
            self.point(f"{name} after commit")
        except ParticipantCrash:
            return HttpAnswer(1.0, failure=Failure.BROKEN, message="the connection broke")
        self.point(f"after call {name}")
        self.now += 0.01
        if "fail=lost" in parts.query or ("fail=late" in parts.query and response.status_code == 200):
            self.now += timeout
            return HttpAnswer(timeout * 1000, failure=Failure.TIMED_OUT, message="no answer")
        sent = {key.lower(): value for key, value in response.headers.items()}
        return HttpAnswer(1.0, response.status_code, sent, response.get_data())

    # Driving

    def deps(self, epoch: Callable[[], int], owner: str = "one") -> DriverDeps:
        def sleep(seconds: float) -> None:
            self.now += seconds

        crashes = OrchestratorCrashes(_exit)
        return DriverDeps(
            log=self.log,
            transport=self.transport(epoch),
            owner=owner,
            clock=lambda: self.now,
            monotonic=lambda: self.now,
            sleep=sleep,
            random=lambda: 0.5,
            stopping=lambda: False,
            observe=lambda row, line: None,
            lease=LEASE,
            before_attempt=crashes.before_attempt,
            after_call=crashes.after_call,
        )

    def start(self, flags: str = "", input: Mapping[str, Any] = INPUT) -> str | None:
        """Start a saga and drive it; its id, also where the process crashed; None where it was never started."""
        plan = parse_plan([f for f in flags.split("&") if f], [], [s.name for s in self.definition.steps], True)
        definition = self.definition.with_faults(plan.queries(), plan.orchestrator)
        saga_id, deadline_at = a_saga_id(next(self.ids)), self.now + (definition.deadline or 1e9)
        row, line = a_started_saga(
            definition, input, self.now, id=saga_id, owner="one", due_at=self.now + LEASE, deadline_at=deadline_at
        )
        try:
            self.log.begin(row, [line])
            self.drive(self.driver(row))
        except (Crash, LeaseLost):
            pass
        return saga_id if self.log.find(saga_id) else None

    def driver(self, row: SagaRow, owner: str = "one", claim: Claim | None = None) -> Driver:
        return Driver(row, self.deps(lambda: row.epoch, owner), claim)

    def drive(self, driver: Driver) -> None:
        while (call := driver.next_call()) is not None:
            driver.make(call)

    def recover(self, saga_id: str, owner: str = "two") -> None:
        """Do what a restarted process does: once the saga is due, claim it and drive it on."""
        check_replay(self.log, saga_id)
        row = self.log.find(saga_id)
        assert row is not None
        self.now = max(self.now, row.due_at or self.now) + 0.001
        try:
            claimed, held = self.log.claim(saga_id, row.epoch, owner, due_by=self.now, due_at=self.now + LEASE)
            self.drive(self.driver(claimed, owner, Claim(held)))
        except (Crash, LeaseLost):
            pass

    def finish(self, saga_id: str, rounds: int = 40) -> SagaRow:
        """Recover until the saga has ended."""
        for _ in range(rounds):
            row = self.log.find(saga_id)
            assert row is not None
            if row.state in ENDED:
                return row
            self.recover(saga_id)
        raise AssertionError(f"it never ended: {row}")

    # What truly is

    def rows(self, step: str, saga_id: str) -> int:
        table = SERVICES[step].table
        query = select(func.count()).select_from(table).where(table.c.saga_id == saga_id)
        with self.engines[step].connect() as connection:
            return int(connection.execute(query).scalar_one())

    def barrier(self, step: str, saga_id: str) -> str | None:
        query = select(saga_barrier.c.state).where(saga_barrier.c.saga_id == saga_id, saga_barrier.c.step == step)
        with self.engines[step].connect() as connection:
            return connection.execute(query).scalar_one_or_none()

    def send_late(self, saga_id: str) -> None:
        """Every action of the saga once more, long after: promise 5."""
        row = self.log.find(saga_id)
        assert row is not None
        body = {"username": "ada", "user_id": 1, "address": "1 Main St", "payment": "4111"}
        for step in self.definition.steps:
            if self.barrier(step.name, saga_id):  # one that was never called, or certainly failed, has no late action
                headers = {"Saga-Id": saga_id, "Saga-Step": step.name}
                self.apps[step.name].test_client().post("/invoke", json=body, headers=headers)

    def check(self, row: SagaRow) -> None:
        """Check the promises: all or nothing, at most once, in reverse order, and that the log says what is."""
        rows = {step.name: self.rows(step.name, row.id) for step in self.definition.steps}
        completed = row.state == "completed"
        assert set(rows.values()) == ({1} if completed else {0}), (row.state, rows)
        effects = [work[1:] for work in self.committed if work[0] == row.id]
        assert len(effects) == len(set(effects)), f"took effect twice: {effects}"
        names = [step.name for step in self.definition.steps]
        undone = [step for step, call in effects if call == "compensation"]
        assert undone == sorted(undone, key=names.index, reverse=True), effects
        check_replay(self.log, row.id)
        assert (row.due_at, row.owner) == (None, None)


def check_replay(log: SagaLog, saga_id: str) -> None:
    """Check that the row's state, results and context are what all its lines come to, from the beginning."""
    row, lines = log.find(saga_id), log.lines(saga_id)
    assert row
    assert [line.seq for line in lines] == list(range(1, len(lines) + 1))
    told, context = replay(row.definition, row.input, lines, row.results)
    kept = (row.state, row.cursor, row.results, row.context)
    assert (told.state, told.cursor, told.results, context) == kept, "replay tells another story"


def _exit(code: int) -> None:
    raise Crash


def quick(engine: Engine) -> Engine:
    """Nothing here survives a power cut, and need not."""
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    return engine


class Points:
    """Counts the points, and crashes at those with the given numbers (from 0)."""

    def __init__(self, *crashes: int):
        self.crashes = set(crashes)
        self.names: list[str] = []

    def __call__(self, name: str) -> None:
        number = len(self.names)
        self.names.append(name)
        if number in self.crashes:
            raise (ParticipantCrash if name.endswith("commit") else Crash)(name)
