"""The log's lines in the order of their commits, on SQLite and on MySQL."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, create_engine, delete, insert

from saga.machine import Line
from saga.runtime.log_lines import LogLines
from saga.runtime.tail import LOOK_BACK_LINES, UNSEEN_SECONDS_AT_MOST, Tail
from saga.saga_log import SagaLog
from saga.storage import log_tables
from saga.storage.database import transaction
from tests.contract.test_saga_log import NOW, begun, present
from tests.support.stack import eventually


@pytest.fixture
def engine(engine: Engine, request: pytest.FixtureRequest) -> Engine:
    """An empty log, the first line of which gets the id 1."""
    if engine.dialect.name == "mysql":
        admin = create_engine(request.getfixturevalue("mysql_admin"))
        with admin.connect() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {engine.url.database}.saga_log AUTO_INCREMENT = 1")
        admin.dispose()
    return engine


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


# On SQLite there is one writer at a time: ids are given in the order of commits, and a failed write gives its back.
only_on_mysql = pytest.mark.parametrize("database", ["mysql"], indirect=True)


def test_it_starts_at_the_end_and_moves_with_the_log(log: SagaLog) -> None:
    tail = Tail(LogLines(log), Clock())
    assert tail.advance() == 0
    first = begun(log)
    assert tail.advance() == LogLines(log).last_id() == 1
    log.advance(first.id, 1, present(first), [Line(seq, NOW, "attempt") for seq in (2, 3)])
    assert tail.advance() == 3
    assert [(id_, line.seq) for id_, _, line in LogLines(log).between(1, 3, 10)] == [(2, 2), (3, 3)]
    assert Tail(LogLines(log), Clock()).advance() == 3


def test_a_row_is_seen_whether_or_not_it_is_committed(log: SagaLog) -> None:
    begun(log)
    assert LogLines(log).any_between(1, 1)
    assert LogLines(log).any_between(0, 9)
    assert not LogLines(log).any_between(2, 9)


def test_it_moves_a_bounded_number_of_lines_at_a_time(log: SagaLog) -> None:
    tail = Tail(LogLines(log), Clock())
    tail.advance()
    begun(log)
    begun(log, 2)
    begun(log, 3)
    assert [tail.advance(most=2), tail.advance(most=2)] == [2, 3]


@only_on_mysql
def test_a_line_that_is_committed_later_than_one_with_a_higher_id_is_waited_for(engine: Engine, log: SagaLog) -> None:
    clock = Clock()
    tail = Tail(LogLines(log), clock)
    begun(log)
    assert tail.advance() == 1
    with transaction(engine) as slow:
        slow.execute(insert(log_tables.saga_log), [{**vars(Line(9, NOW, "attempt")), "saga_id": "slow"}])
        begun(log, 2)
        for _ in range(5):
            assert tail.advance() == 1
            clock.now += 100 * UNSEEN_SECONDS_AT_MOST
        assert Tail(LogLines(log), clock).advance() == 1  # also one that starts meanwhile
    assert tail.advance() == 3


@only_on_mysql
def test_an_id_that_was_given_to_nobody_is_passed_after_a_while(engine: Engine, log: SagaLog) -> None:
    clock = Clock()
    tail = Tail(LogLines(log), clock)
    begun(log)
    assert tail.advance() == 1
    with engine.connect() as connection:
        connection.execute(insert(log_tables.saga_log), [{**vars(Line(9, NOW, "attempt")), "saga_id": "lost"}])
        connection.rollback()
    begun(log, 2)
    assert tail.advance() == 1
    clock.now += UNSEEN_SECONDS_AT_MOST
    assert tail.advance() == 3
    assert Tail(LogLines(log), Clock()).advance() == 3  # who starts later need not wait for what is long gone


def test_lines_that_were_pruned_are_not_waited_for(engine: Engine, log: SagaLog) -> None:
    begun(log)
    begun(log, 2)
    with transaction(engine) as connection:
        connection.execute(delete(log_tables.saga_log))
    begun(log, 3)
    assert LogLines(log).last_id() == 3  # an id is never given twice
    assert Tail(LogLines(log), Clock()).advance() == 3


def test_a_long_log_is_not_read_from_its_beginning(engine: Engine, log: SagaLog) -> None:
    rows = [{**vars(Line(seq, NOW, "attempt")), "saga_id": "x"} for seq in range(1, 3 * LOOK_BACK_LINES)]
    with transaction(engine) as connection:
        connection.execute(insert(log_tables.saga_log), rows)
    assert Tail(LogLines(log), Clock()).advance(most=LOOK_BACK_LINES) == 3 * LOOK_BACK_LINES - 1


def test_writers_at_once_leave_no_line_out(log: SagaLog) -> None:
    """Every line is seen, and each once, however the transactions of four writers overlap."""
    clock = Clock()
    tail = Tail(LogLines(log), clock)
    position = tail.advance()
    seen: list[int] = []

    def look() -> bool:
        nonlocal position
        upto = tail.advance()
        seen.extend(id_ for id_, _, _ in LogLines(log).between(position, upto, 1000))
        position = upto
        return len(seen) >= len(written)

    with ThreadPoolExecutor(4) as pool:
        written = [pool.submit(begun, log, number) for number in range(1, 80)]
        eventually(look)
        assert [future.result().id for future in written]
    assert seen == sorted(set(seen))
    assert len(seen) == len(written)
