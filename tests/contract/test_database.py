"""SQLite and MySQL behave alike behind `saga.storage`: values, comparisons, and what an error means."""

from __future__ import annotations

import logging
import threading
from typing import Any

import mysql.connector
import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    bindparam,
    create_engine,
    func,
    insert,
    make_url,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError

from saga.errors import OutcomeUnknown
from saga.storage.column_types import Float, Json, Token, UtcTime
from saga.storage.database import connect, transaction
from saga.storage.database_errors import is_duplicate, is_lock_conflict
from saga.storage.statement_batch import Statement, execute_batch
from tests.conftest import Database

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("key", Token(40), primary_key=True),
    Column("value", Json),
    Column("at", UtcTime),
    Column("took", Float),
    Column("number", Integer),
)


@pytest.fixture(params=[False, True], ids=["batches", "plain"])
def engine(database: Database, request: pytest.FixtureRequest) -> Any:
    """An engine as the processes have it; on MySQL the administrator makes the table, since we may not."""
    url = make_url(database("service_a"))
    admin = url
    if url.get_backend_name() == "mysql":
        admin = make_url(request.getfixturevalue("mysql_admin")).set(database=url.database)
    maker = create_engine(admin)
    metadata.create_all(maker)
    made = connect(admin.render_as_string(hide_password=False), pool_size=4, plain=request.param)
    yield made
    made.dispose()
    metadata.drop_all(maker)
    maker.dispose()


def put(engine: Engine, **values: Any) -> None:
    with engine.begin() as connection:
        connection.execute(insert(things), values)


@pytest.mark.parametrize(
    "value",
    [None, {}, [], "", 0, False, {"a": [1, None, {"b": "ü € 😀 \\ ' \" %s :x"}]}, 2**63 + 1, 0.1, "x" * 100_000],
)
def test_json_comes_back_as_it_went_in(engine: Engine, value: Any) -> None:
    put(engine, key="k", value=value)
    with engine.begin() as connection:
        found = connection.execute(select(things.c.value)).scalar_one()
    assert found == value
    assert type(found) is type(value)


def test_none_is_null(engine: Engine) -> None:
    put(engine, key="k", value=None, at=None)
    with engine.begin() as connection:
        query = select(func.count()).where(things.c.value.is_(None), things.c.at.is_(None))
        assert connection.execute(query).scalar_one() == 1


@pytest.mark.parametrize("at", [0.0, 1_700_000_000.123456, 1_709_164_799.999999, 4_102_444_800.5])
def test_times_keep_their_microseconds_and_compare(engine: Engine, at: float) -> None:
    put(engine, key="k", at=at, took=1 / 3)
    with engine.begin() as connection:
        row = connection.execute(select(things.c.at, things.c.took).where(things.c.at <= at)).one()
        assert connection.execute(select(things.c.key).where(things.c.at < at)).all() == []
    assert row.at == pytest.approx(at, abs=1e-6)
    assert row.took == 1 / 3


def test_tokens_are_compared_byte_by_byte(engine: Engine) -> None:
    put(engine, key="key")
    put(engine, key="KEY")  # no duplicate
    with engine.begin() as connection:
        assert connection.execute(select(things.c.key).where(things.c.key == "KEY")).scalars().all() == ["KEY"]


def test_a_duplicate_is_told_from_other_violations(engine: Engine) -> None:
    put(engine, key="k")
    with pytest.raises(IntegrityError) as duplicate:
        put(engine, key="k")
    assert is_duplicate(duplicate.value)
    with pytest.raises(IntegrityError) as missing, engine.begin() as connection:
        connection.exec_driver_sql("INSERT INTO things (`key`) VALUES (NULL)")
    assert not is_duplicate(missing.value)


def test_who_waits_too_long_for_a_lock_may_try_again(engine: Engine) -> None:
    put(engine, key="k", number=0)
    other = connect(engine.url.render_as_string(hide_password=False))  # another process's
    with engine.begin() as first:
        first.execute(update(things).values(number=1))
        with pytest.raises(DBAPIError) as refused, other.begin() as second:
            second.execute(update(things).values(number=2))
    assert is_lock_conflict(refused.value)
    other.dispose()


def test_who_waits_too_long_in_the_middle_of_a_batch_may_try_again(engine: Engine) -> None:
    for key in ("free", "held"):
        put(engine, key=key, number=0)
    change = update(things).where(things.c.key == bindparam("which")).values(number=bindparam("new"))
    statement = Statement(change, "which", "new")
    other = connect(engine.url.render_as_string(hide_password=False))  # another process's
    with engine.begin() as first:
        first.execute(update(things).where(things.c.key == "held").values(number=1))
        with pytest.raises(DBAPIError) as refused, other.begin() as second:
            rows = [statement.bind(second.dialect, {"which": key, "new": 2}) for key in ("free", "held")]
            execute_batch(second, *[(statement, [row]) for row in rows])
    assert is_lock_conflict(refused.value)
    other.dispose()


def test_reading_and_then_writing_loses_no_update(engine: Engine) -> None:
    put(engine, key="k", number=0)

    def add() -> None:
        for _ in range(10):
            with engine.begin() as connection:
                number = connection.execute(select(things.c.number).with_for_update()).scalar_one()
                connection.execute(update(things).values(number=number + 1))

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.begin() as connection:
        assert connection.execute(select(things.c.number)).scalar_one() == 40


def test_a_read_that_is_left_open_leaves_nothing_behind_for_the_next(engine: Engine) -> None:
    put(engine, key="k")
    for _ in range(6):  # more than there are connections
        with engine.connect() as connection:
            connection.execute(select(things)).all()
    put(engine, key="l")


@pytest.mark.parametrize("error", [OSError("gone"), RuntimeError("a bug"), MemoryError()], ids=repr)
@pytest.mark.parametrize("took_effect", [True, False])
def test_any_error_while_committing_leaves_the_outcome_unknown(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception, took_effect: bool
) -> None:
    commit = engine.dialect.do_commit

    def fail(connection: Any) -> None:
        if took_effect:
            commit(connection)
        raise error

    monkeypatch.setattr(engine.dialect, "do_commit", fail)
    with pytest.raises(OutcomeUnknown), transaction(engine) as connection:
        connection.execute(insert(things), {"key": "k"})
    monkeypatch.undo()
    with transaction(engine) as connection:
        assert connection.execute(select(func.count()).select_from(things)).scalar_one() == took_effect


def test_the_slow_driver_is_said(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its C extension the driver takes twice the CPU, and says nothing."""
    monkeypatch.setattr(mysql.connector, "HAVE_CEXT", False)
    with caplog.at_level(logging.WARNING):
        connect("mysql+mysqlconnector://u:hunter2@127.0.0.1/d")
    assert "C extension" in caplog.text
    assert "hunter2" not in caplog.text
