"""The gauges of /metrics, from a saga log on SQLite and on MySQL."""

from __future__ import annotations

import threading

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, event

from orchestrator.gauges import FRESH, Asked, Gauges
from saga.errors import BrokerUnavailable
from saga.machine import State
from saga.saga_log import SagaLog
from saga.storage.database import connect
from saga.views.backlog import Backlog, backlog
from tests.contract.test_saga_log import NOW, begun, present

HANG = 20.0  # seconds


class Monotonic:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def scraped(gauges: Gauges) -> dict[str, float]:
    """What Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(gauges)
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def stall(log: SagaLog, number: int, rounds: int, due_at: float) -> None:
    made = begun(log, number)
    stalled = present(made, state=State.STALLED_COMPENSATING, rounds=rounds, owner=None, due_at=due_at)
    log.advance(made.id, 1, stalled, [])


def test_they_tell_what_waits_in_the_log(log: SagaLog) -> None:
    stall(log, 1, rounds=3, due_at=NOW + 60)
    stall(log, 2, rounds=10, due_at=NOW - 12)  # nobody resumes it
    begun(log, 3, due_at=NOW + 10)  # driven
    begun(log, 4, owner=None, due_at=None, deadline_at=NOW - 1)  # choreographed, and overdue
    resumed = begun(log, 5, due_at=NOW + 10)
    log.advance(resumed.id, 1, present(resumed, state=State.COMPENSATING, rounds=12), [])
    ended = begun(log, 6)
    log.advance(ended.id, 1, present(ended, state=State.COMPENSATED, rounds=12, owner=None, due_at=None), [])
    assert scraped(Gauges(log, lambda: 4, lambda: NOW, Monotonic(), HANG)) == {
        "saga_log_up": 1,
        "saga_stalled": 2,
        "saga_needs_attention": 3,
        "saga_overdue": 1,
        "saga_oldest_due_seconds": pytest.approx(12),
        "saga_broker_up": 1,
        "saga_dead_letters": 4,
    }


def test_an_empty_log_has_nothing_that_waits(log: SagaLog) -> None:
    assert backlog(log, NOW, 100) == Backlog(0, 0, 0, 0.0)
    assert scraped(Gauges(log, None, lambda: NOW, Monotonic(), HANG))["saga_oldest_due_seconds"] == 0


def test_no_more_are_counted_than_is_said(log: SagaLog) -> None:
    for number in range(1, 8):
        stall(log, number, rounds=20, due_at=NOW)
    assert backlog(log, NOW, most=5) == Backlog(5, 5, 0, 0.0)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_all_is_found_by_an_index(engine: Engine, log: SagaLog) -> None:
    """However many millions of sagas have ended."""
    asked = []
    event.listen(engine, "before_cursor_execute", lambda *call: asked.append((call[2], call[3])))
    backlog(log, NOW, 100)
    queries = [(query, values) for query, values in asked if query.startswith("SELECT")]
    assert len(queries) == 3
    with engine.begin() as connection:
        for query, values in queries:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}", values).all()
            steps = [row.detail for row in plan if " sagas" in row.detail]
            assert steps
            assert all(step.startswith("SEARCH sagas USING") and "INDEX" in step for step in steps), steps


def test_a_log_or_a_broker_that_is_away_is_said_and_the_rest_is_there(log: SagaLog, engine: Engine) -> None:
    def away() -> int:
        raise BrokerUnavailable("the broker does not answer")

    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP TABLE sagas")
    if engine.dialect.name == "mysql":
        log = SagaLog(connect("mysql+mysqlconnector://nobody:x@127.0.0.1:9/none"))
    assert scraped(Gauges(log, lambda: 4, lambda: NOW, Monotonic(), HANG)) == {
        "saga_log_up": 0,
        "saga_broker_up": 1,
        "saga_dead_letters": 4,
    }
    assert scraped(Gauges(log, away, lambda: NOW, Monotonic(), HANG)) == {"saga_log_up": 0, "saga_broker_up": 0}


def test_a_log_that_hangs_holds_up_nobody_and_is_asked_once() -> None:
    gate, asked = threading.Event(), []

    def ask() -> int:
        asked.append(1)
        assert gate.wait(HANG)
        return 7

    monotonic = Monotonic()
    slow = Asked(ask, monotonic, within=0.01)
    assert [slow.value() for _ in range(5)] == [None] * 5
    assert len(asked) == 1
    gate.set()
    quick = Asked(ask, monotonic, within=HANG)
    assert [quick.value() for _ in range(5)] == [7] * 5
    assert len(asked) == 2
    monotonic.now = FRESH + 1
    assert quick.value() == 7
    assert len(asked) == 3
