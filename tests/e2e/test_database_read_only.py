"""A saga log that can be read but not written, as a full disk makes it: said, waited out, gone on from."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url

from tests.support.stack import Stack, eventually

ONE_EACH = {"A": 1, "B": 1, "C": 1}


@contextmanager
def read_only_mysql(stack: Stack, admin: str) -> Iterator[None]:
    """Our user may not write for a while (a server-wide switch would hit the other tests)."""
    url = make_url(stack.urls["orchestrator"])
    rights = f"INSERT, UPDATE ON `{url.database}`.`sagas`"
    engine = create_engine(admin, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"REVOKE {rights} FROM {url.username}")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"GRANT {rights} TO {url.username}")
    engine.dispose()


@contextmanager
def locked_sqlite(stack: Stack) -> Iterator[None]:
    """Somebody else holds the file's write lock."""
    path = Path(str(make_url(stack.urls["orchestrator"]).database))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_new_sagas_are_refused_and_old_ones_go_on_when_it_can_be_written_again(
    request: pytest.FixtureRequest, make_stack: Callable[..., Stack], kind: str
) -> None:
    stack = make_stack(kind, LEASE_SECONDS="4")
    saga_id = stack.post_start("wait=0&delay=b:500").json()["saga_id"]
    eventually(lambda: "action_done" in [line["event"] for line in stack.lines(saga_id)])
    away = locked_sqlite(stack) if kind == "sqlite" else read_only_mysql(stack, request.getfixturevalue("mysql_admin"))
    with away:
        refused = stack.post_start()
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 0
        assert stack.get("/healthz").status_code == 200
    assert stack.ended(saga_id)["status"] == "COMPLETED"
    assert stack.counts() == ONE_EACH
    assert stack.post_start().status_code == 200
    assert len(stack.get("/sagas").json()["sagas"]) == 2, "the refused one was started after all"
