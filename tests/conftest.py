"""Fixtures: databases on SQLite and MySQL, and the stack as real processes."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from sqlalchemy import Engine, bindparam, create_engine, make_url, text

from saga.saga_log import SagaLog
from saga.storage import log_tables
from saga.storage.database import connect, create_tables
from tests.support.mysql_server import DATABASES, mysql_schemas
from tests.support.nats_server import NatsServer
from tests.support.stack import Stack, free_port, own_ports
from tests.support.temporal_server import TemporalServer
from tests.support.world import World

Database = Callable[[str], str]

settings.register_profile("unhurried", deadline=None)  # how long a test takes is never a reason to fail
settings.load_profile("unhurried")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--compose", action="store_true", help="run the tests that bring the stack up with docker compose")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The tests of the whole stack in Docker run by themselves, and only when asked for. A group stays together."""
    wanted = config.getoption("--compose")
    chosen = [item for item in items if bool(item.get_closest_marker("compose")) == wanted]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = sorted(chosen, key=lambda item: str([*item.iter_markers("xdist_group"), "~"][0]))
    if config.getoption("loadgroup", False):  # on a worker: what shares a stack or a file must not be spread
        spread = [item.nodeid for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        if spread:
            raise pytest.UsageError(f"pytest-xdist does not keep groups together: {spread[0]}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Where CI is set, nothing is skipped: a test that misses its server, its browser or its tool has failed."""
    report = yield
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome, report.longrepr = "failed", f"CI must run every test. {item.nodeid}: {call.excinfo}"
    return report


@pytest.fixture(scope="session")
def mysql_admin() -> str:
    """The administrator's URL of the tests' MySQL."""
    url = os.environ.get("TEST_MYSQL_URL")
    if url:
        return url
    pytest.skip("no MySQL: run `make test`, or set TEST_MYSQL_URL")


@pytest.fixture(scope="session")
def mysql_databases(mysql_admin: str, worker_id: str) -> Iterator[dict[str, str]]:
    """The four databases of db/init.sql under names of our own, by process: the URL of its least-privilege user."""
    prefix = f"t{os.getpid()}_{worker_id}_"
    yield {name: _without_tls(url) for name, url in mysql_schemas(mysql_admin, prefix).items()}
    admin = create_engine(mysql_admin, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for name in DATABASES:
            connection.exec_driver_sql(f"DROP DATABASE {prefix}{name}")
            connection.exec_driver_sql(f"DROP USER {prefix}{name}")


def _without_tls(url: str) -> str:
    """The same without TLS, which costs 50 ms of processor time a connection.

    MySQL takes a password without TLS from whoever has logged in with it before.
    """
    create_engine(url).connect().close()
    return make_url(url).update_query_dict({"ssl_disabled": "true"}).render_as_string(hide_password=False)


@pytest.fixture(params=["sqlite", "mysql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """Empty databases: `database("orchestrator")` is the URL of one, with its tables where it is MySQL."""
    return databases(request, request.param, tmp_path)


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """The database of an empty saga log."""
    made = connect(database("orchestrator"))
    create_tables(made, log_tables.metadata)
    yield made
    made.dispose()


@pytest.fixture
def log(engine: Engine) -> SagaLog:
    """An empty saga log."""
    return SagaLog(engine)


def databases(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Database:
    """Empty databases of one kind."""
    if kind == "sqlite":
        return lambda name: f"sqlite:///{tmp_path / name}.db"
    urls: dict[str, str] = request.getfixturevalue("mysql_databases")
    empty(urls, request.getfixturevalue("mysql_admin"))
    return urls.__getitem__


def empty(urls: dict[str, str], mysql_admin: str) -> None:
    """Delete every row, as the administrator: our own users may not. Numbers that a table gives go on where they were.

    A TRUNCATE makes the table's file anew: it would begin at 1, and takes a hundred times as long.
    """
    names = [make_url(url).database for url in urls.values()]
    query = text("SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema IN :names")
    with _administrator(mysql_admin).begin() as connection:
        found = connection.execute(query.bindparams(bindparam("names", names, expanding=True)))
        for table in [f"`{schema}`.`{name}`" for schema, name in found.all()]:
            connection.exec_driver_sql(f"DELETE FROM {table}")


@functools.cache
def _administrator(url: str) -> Engine:
    """One engine for all tests of this process: a new connection each time takes as long as the deleting."""
    return create_engine(url)


@pytest.fixture(scope="session")
def worker_id(request: pytest.FixtureRequest) -> str:
    """pytest-xdist's name of this process, "main" without it."""
    return str(getattr(request.config, "workerinput", {}).get("workerid", "main"))


@pytest.fixture(scope="session")
def ports() -> Iterator[int]:
    """Ports for this process alone."""
    return own_ports()


@pytest.fixture
def make_stack(request: pytest.FixtureRequest, tmp_path: Path, ports: Iterator[int]) -> Iterator[Callable[..., Stack]]:
    """`make_stack("sqlite", FAULT_HOLD_SECONDS="2")`: the four processes, stopped at the test's end.

    With `broker=True` they have a broker of their own, which is `"nats"` to `kill` and `start`. With
    `engine="temporal"` sagas are on the tests' Temporal, or on the one at `temporal=`, and there is a `"worker"`.
    """
    yield from _stacks(request, lambda: tmp_path, ports)


@pytest.fixture(scope="module")
def make_shared_stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ports: Iterator[int]
) -> Iterator[Callable[..., Stack]]:
    """As `make_stack`, for a whole module, whose tests look at sagas of their own; see `on_one_worker`."""
    yield from _stacks(request, lambda: tmp_path_factory.mktemp("stack"), ports)


def _stacks(
    request: pytest.FixtureRequest, directory: Callable[[], Path], ports: Iterator[int]
) -> Iterator[Callable[..., Stack]]:
    made: list[Stack] = []

    def make(
        kind: str,
        more_orchestrators: Sequence[str] = (),
        broker: bool = False,
        mode: str = "orchestration",
        engine: str = "builtin",
        temporal: str | None = None,
        more_workers: Sequence[str] = (),
        **environ: str,
    ) -> Stack:
        broker = broker or mode == "choreography"
        if engine == "temporal" and temporal is None:
            temporal = request.getfixturevalue("temporal_server").address
        logs = directory()
        made_databases = databases(request, kind, logs)
        stack = Stack(made_databases, logs, ports, environ, more_orchestrators, broker, mode, temporal, more_workers)
        made.append(stack)
        stack.start_all()
        return stack

    yield make
    for stack in made:
        stack.stop_all()


def on_one_worker(name: str, *parameters: str) -> list[Any]:
    """Parameters of a module's fixture: all tests that use one of them run in one process, which makes it once."""
    return [pytest.param(each, marks=pytest.mark.xdist_group(f"{name} {each}")) for each in parameters]


@pytest.fixture(scope="session")
def temporal_server(ports: Iterator[int]) -> Iterator[TemporalServer]:
    """One Temporal for all tests of this process: each stack has a task queue of its own."""
    with TemporalServer(free_port(ports)) as server:
        yield server


@pytest.fixture
def nats_server(ports: Iterator[int]) -> Iterator[NatsServer]:
    """A broker with nothing in it."""
    with NatsServer(free_port(ports)) as server:
        yield server


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A whole stack in one thread."""
    made = World(tmp_path)
    yield made
    made.close()
