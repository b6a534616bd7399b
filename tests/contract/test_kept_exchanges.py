"""Kept bodies, on SQLite and MySQL: written with the attempts' lines, deleted with the saga; not needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from saga.call import Attempt, CallRequest, Exchange, Verdict
from saga.errors import LeaseLost
from saga.http_client.transport import HttpAnswer
from saga.machine import ATTEMPT, Line, State
from saga.runtime.kept_exchanges import KeptExchanges
from saga.runtime.pruning import prune
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.storage import body_sql, log_tables
from saga.storage.database import connect, create_tables
from tests.conftest import Database
from tests.support.builders import a_saga_row, a_started_saga, signup

NOW = 1_800_000_000.0


@pytest.fixture(params=[False, True], ids=["batches", "plain"])
def log(database: Database, request: pytest.FixtureRequest) -> SagaLog:
    engine = connect(database("orchestrator"), plain=request.param)
    create_tables(engine, log_tables.metadata)
    create_tables(engine, body_sql.metadata)
    return SagaLog(engine)


@pytest.fixture
def row(log: SagaLog) -> SagaRow:
    made, line = a_started_saga(signup(), {"username": "grüß", "payment": "4242"}, NOW, owner="one", due_at=NOW)
    log.begin(made, [line])
    return made


def an_exchange(seq: int = 2, verdict: Verdict = Verdict.UNKNOWN, body: str = '{"error": "4242 grüß 🦆"}') -> Exchange:
    attempt = Attempt(1, verdict, True, 500, 1.0)
    return Exchange(seq, CallRequest("http://a/invoke", {}, b"{}"), attempt, HttpAnswer(1.0, 500, {}, body.encode()))


def advanced(log: SagaLog, row: SagaRow, also: Any, seq: int = 2, epoch: int = 1) -> None:
    log.advance(row.id, epoch, row.present, [Line(seq, NOW, ATTEMPT, "A", 1, 500, 1.0)], also=also)


def test_what_was_exchanged_is_kept_with_the_attempts_line(log: SagaLog, row: SagaRow) -> None:
    kept = KeptExchanges(log.database, "errors")
    advanced(log, row, kept.statements(row, [an_exchange()]))
    request, response = kept.find(row.id, [1, 2, 3])[2]
    assert (request["url"], response["status"]) == ("http://a/invoke", 500)
    assert response["body"] == '{"error": "*** grüß 🦆"}'
    assert kept.find("ü", [2]) == {}


def test_nothing_is_kept_of_a_write_that_is_refused(log: SagaLog, row: SagaRow) -> None:
    kept = KeptExchanges(log.database, "errors")
    with pytest.raises(LeaseLost):
        advanced(log, row, kept.statements(row, [an_exchange()]), epoch=7)
    assert kept.find(row.id, [2]) == {}


@pytest.mark.parametrize(
    ("which", "numbers"), [("errors", [3]), ("all", [2, 3]), ("none", [])], ids=["errors", "all", "none"]
)
def test_the_setting_says_which_are_kept(log: SagaLog, row: SagaRow, which: str, numbers: list[int]) -> None:
    kept = KeptExchanges(log.database, which)
    made = [an_exchange(2, Verdict.DONE), an_exchange(3, Verdict.REFUSED)]
    lines = [Line(each.line, NOW, ATTEMPT, "A", each.line - 1) for each in made]
    log.advance(row.id, 1, row.present, lines, also=kept.statements(row, made))
    assert sorted(kept.find(row.id, [2, 3])) == numbers


def test_a_good_attempt_writes_nothing_and_does_not_even_look_for_the_table(log: SagaLog) -> None:
    kept = KeptExchanges(_unused(), "errors")
    assert kept.statements(a_saga_row(), [an_exchange(verdict=Verdict.DONE)]) == ()


def _unused() -> Any:
    class Unused:
        def __getattr__(self, name: str) -> Callable[..., Any]:
            raise AssertionError(name)

    return Unused()


def test_prune_deletes_it_with_the_saga(log: SagaLog) -> None:
    kept = KeptExchanges(log.database, "errors")
    made, line = a_started_saga(signup(), {}, NOW, state=State.COMPENSATED, ended_at=NOW)
    log.begin(made, [line])
    advanced(log, made, kept.statements(made, [an_exchange()]))
    assert prune(log, NOW + 1, 10, kept.forgetting()) == 1
    assert kept.find(made.id, [2]) == {}


def test_a_database_without_the_table_works_and_keeps_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """MySQL's users may not drop a table, so there a name stands for it that no table has."""
    engine = connect(database("orchestrator"))
    create_tables(engine, log_tables.metadata)
    log = SagaLog(engine)
    made, line = a_started_saga(signup(), {}, NOW, state=State.COMPENSATED, ended_at=NOW)
    log.begin(made, [line])
    kept = KeptExchanges(log.database, "errors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(body_sql, "BODIES_THERE", text("SELECT count(*) FROM saga_bodies_of_a_later_version"))
        advanced(log, made, kept.statements(made, [an_exchange()]))
        assert kept.find(made.id, [2]) == {}
        assert [each.seq for each in log.lines(made.id)] == [1, 2]
        assert prune(log, NOW + 1, 10, kept.forgetting()) == 1
    assert [each.message[:16] for each in caplog.records if "no_bodies" in each.message] == ["event=no_bodies:"]
