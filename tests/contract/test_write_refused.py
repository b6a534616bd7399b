"""A write that the database refuses for what it is: never "unavailable, try again"; it has an end, with its cause."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from saga.choreography import outbox
from saga.choreography.events import started
from saga.driver import DriverDeps
from saga.errors import BadInput, LogUnavailable, WriteRefused
from saga.machine import Line, State
from saga.retry import stall_delay
from saga.saga_log import NO_RESULTS, SagaLog
from saga.saga_row import Present
from saga.storage import log_tables
from saga.storage.database import connect, create_tables
from tests.contract.test_saga_log import NOW, begun, present, row
from tests.support import mysql_server
from tests.support.choreographed_world import ChoreographedWorld
from tests.support.runtime import Runtime
from tests.support.world import INPUT, World, signup

LIMIT = 1 << 20  # bytes that the database takes at once
LARGE = "x" * (2 * LIMIT)


@pytest.fixture(scope="module")
def small_mysql(mysql_admin: str) -> Iterator[str]:
    """The log's URL on a server of its own, whose packets are small: the setting is for all who use a server."""
    server = mysql_server.private([f"--max-allowed-packet={LIMIT}", *mysql_server.QUICK])
    if server is None:
        pytest.skip("no MySQL of our own can be started here")
    yield mysql_server.mysql_schemas(server.url, "small_")["orchestrator"]
    server.close()


ON_MYSQL = [pytest.param(each, marks=pytest.mark.xdist_group("small packets")) for each in ("mysql", "mysql-plain")]


@pytest.fixture(params=["sqlite", "sqlite-plain", *ON_MYSQL])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SagaLog]:
    kind, _, plain = request.param.partition("-")
    mysql = kind == "mysql"
    url = request.getfixturevalue("small_mysql") if mysql else f"sqlite:///{tmp_path}/log.db"
    engine = connect(url, plain=bool(plain))
    if not mysql:
        event.listen(engine, "connect", lambda raw, _: raw.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LIMIT))
    create_tables(engine, log_tables.metadata)
    create_tables(engine, outbox.metadata)
    with engine.begin() as connection:
        for table in (log_tables.saga_results, log_tables.saga_log, log_tables.sagas):
            connection.execute(table.delete())
    yield SagaLog(engine)
    engine.dispose()


def test_a_begin_that_is_too_large_is_refused_and_nothing_is_started(log: SagaLog) -> None:
    made = row(1, input={"username": LARGE})
    with pytest.raises(WriteRefused, match="too large"):
        log.begin(made, [Line(1, NOW, "started")])
    assert log.find(made.id) is None
    assert log.lines(made.id) == []
    begun(log, 2)  # the connection is none the worse for it


def test_a_start_that_is_too_large_names_the_field_and_says_why(log: SagaLog) -> None:
    starter = Runtime(deps(log), new_id=lambda: row(1).id).starter
    with pytest.raises(BadInput, match=r"input: .*too large.*Nothing was started") as refused:
        starter.start(signup(), {"username": LARGE})
    assert refused.value.field == "input"
    assert log.find(row(1).id) is None


def test_what_travels_with_the_commit_is_refused_too(log: SagaLog) -> None:
    """Lines, and the events of a choreographed saga, go with the COMMIT: of it nobody may think that it was lost."""
    made = begun(log, 1)
    with pytest.raises(WriteRefused, match="too large"):
        log.advance(made.id, 1, present(made, cursor=1), [Line(2, NOW, "attempt", "A", detail={"message": LARGE})])
    assert log.find(made.id) == made
    definition = signup().in_mode("choreography")
    large = row(2, definition=definition, input={"username": LARGE})
    with pytest.raises(WriteRefused, match="too large"):
        log.begin(large, [Line(1, NOW, "started")], started(definition, large.id, large.input, NOW))
    assert log.find(large.id) is None
    log.advance(made.id, 1, present(made, cursor=1), [Line(2, NOW, "attempt", "A")])


def test_of_writes_made_together_only_the_one_that_is_too_large_is_refused(log: SagaLog) -> None:
    sagas = [begun(log, number) for number in range(1, 13)]

    def advance(number: int) -> str:
        made = sagas[number]
        context = {"A": {"x": LARGE if number == 5 else "x" * (LIMIT // 4)}}
        try:
            log.advance(made.id, 1, present(made, cursor=1, context=context), [Line(2, NOW, "action_done", "A")])
        except WriteRefused:
            return "refused"
        return "written"

    with ThreadPoolExecutor(len(sagas)) as pool:
        fates = list(pool.map(advance, range(len(sagas))))
    assert fates == ["refused" if number == 5 else "written" for number in range(len(sagas))]


@pytest.mark.parametrize(
    "changes",
    [{"cursor": 2**70}, {"context": {"A": {"x": float("nan")}}}, {"due_at": 1e18}, {"context": {"A": {"x": "\ud800"}}}],
)
def test_a_value_that_no_column_holds_is_refused(log: SagaLog, changes: dict[str, Any]) -> None:
    made = begun(log, 1)
    with pytest.raises(WriteRefused, match="does not take"):
        log.advance(made.id, 1, present(made, **changes), [Line(2, NOW, "attempt", "A")])
    assert log.find(made.id) == made


def test_a_log_without_its_tables_is_unavailable_and_not_refusing(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable):
        SagaLog(connect(f"sqlite:///{tmp_path}/empty.db")).begin(row(1), [Line(1, NOW, "started")])


def deps(log: SagaLog) -> Any:
    """What an engine needs from outside, with this log."""
    return DriverDeps(
        log=log, transport=None, owner="here", clock=lambda: NOW, sleep=lambda seconds: None, random=lambda: 0.5,  # type: ignore[arg-type]
        stopping=lambda: False, observe=lambda row, line: None,
    )  # fmt: skip


# In a driver: SQLite, with a log that takes no result of one step


def refusing(log: SagaLog, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    advance = log.advance

    def some(saga_id: str, epoch: int, present: Present, lines: Any, results: Any = NO_RESULTS, **more: Any) -> None:
        if results.get(step):
            raise WriteRefused("the saga log does not take what it is asked to write: it is too large")
        advance(saga_id, epoch, present, lines, results, **more)

    monkeypatch.setattr(log, "advance", some)


def test_a_result_that_cannot_be_stored_turns_the_saga_back_with_that_as_its_cause(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(world.log, monkeypatch, "B")
    saga_id = world.start()
    assert saga_id
    found = world.log.find(saga_id)
    assert found
    assert found.state == State.COMPENSATED
    assert found.error["step"] == "B"  # type: ignore[index]
    assert found.error["kind"] == "failed"  # type: ignore[index]
    assert "the result cannot be stored" in found.error["message"]  # type: ignore[index]
    assert [url for _, url in world.calls].count("http://b/invoke") == 1
    attempts = [line for line in world.log.lines(saga_id) if line.event == "attempt" and line.step == "B"]
    assert attempts[0].detail["verdict"] == "unknown"  # type: ignore[index]
    world.check(found)


def test_a_pivots_result_that_cannot_be_stored_does_not_undo_what_has_committed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing(world.log, monkeypatch, "C")
    saga_id = world.start()
    assert saga_id
    found = world.finish(saga_id)
    assert found.state == State.COMPLETED
    assert [url for _, url in world.calls].count("http://c/invoke") == 1
    world.check(found)


def test_past_the_pivot_it_stalls_with_that_as_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = signup().steps
    steps = (replace(first, pivot=True), replace(second, pivot=False, compensation=None), replace(third, pivot=False))
    world = World(tmp_path, signup(steps=steps))
    refusing(world.log, monkeypatch, "B")
    saga_id = world.start()
    found = world.log.find(saga_id or "")
    assert found
    assert (found.state, found.rounds, found.owner) == (State.STALLED_FINISHING, 1, None)
    assert found.due_at == world.now + stall_delay(1, 1.0, 300.0, lambda: 0.5)
    assert "the result cannot be stored" in str([line.detail for line in world.log.lines(found.id)])
    assert [url for _, url in world.calls].count("http://b/invoke") == 1
    world.close()


def test_an_observed_result_that_cannot_be_stored_is_left_out_and_the_saga_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A choreographed saga's services go on with it, whatever the log can take: nobody turns back."""
    world = ChoreographedWorld(tmp_path)
    refusing(world.log, monkeypatch, "A")
    saga_id, other = world.start(input=INPUT), world.start(input=INPUT)
    world.play()
    for each in (saga_id, other):
        assert world.row(each)["status"] == "COMPLETED"
        told = [line.detail for line in world.log.lines(each) if line.event == "action_done" and line.step == "A"]
        assert "the result cannot be stored" in str(told)
        assert world.rows(each) == {"A": 1, "B": 1, "C": 1}
    world.close()
