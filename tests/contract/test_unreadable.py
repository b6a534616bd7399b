"""One row or line that this version cannot decode stops nobody: every kind of it, every reader, SQLite and MySQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import requests
from sqlalchemy import Engine, text

from saga.choreography import outbox
from saga.choreography.events import EventKind, SagaEvent
from saga.driver import DriverDeps
from saga.errors import SagaUnreadable, WriteRefused
from saga.machine import Line, State
from saga.process.settings import load_settings
from saga.runtime.driver_pool import DriverPool
from saga.runtime.due_sagas import DueSagas
from saga.runtime.end_unreadable import end_unreadable
from saga.runtime.log_lines import LogLines
from saga.runtime.recovery import Recovery
from saga.saga_log import SagaLog
from saga.saga_row import Present, SagaRow
from saga.set_aside import REST_SECONDS, SetAside
from saga.storage.database import connect, create_tables
from saga.temporal.messages import Projection, Result
from saga.temporal.projection import Projector
from saga.unreadable import Unreadable, UnreadableLine
from saga.views.backlog import count_states
from service_a import app as service_a
from tests.conftest import Database
from tests.contract.test_saga_log import present
from tests.support.runtime import Runtime
from tests.support.stack import eventually
from tests.support.unreadable_rows import (
    DEFINITION,
    HEALTHY,
    INPUT,
    KINDS,
    NOW,
    PAIRS,
    Served,
    Well,
    begun,
    raw,
    row,
    saga,
    spoil,
    with_step,
)


@pytest.fixture
def serve(engine: Engine, database: Database) -> Iterator[Callable[[], Served]]:
    """Starts an orchestrator on this log."""
    made: list[Served] = []

    def start() -> Served:
        made.append(Served(database("orchestrator")))
        return made[-1]

    yield start
    for each in made:
        each.close()


@pytest.mark.parametrize(("database", "name"), PAIRS, indirect=["database"])
def test_recovery_goes_past_it(engine: Engine, log: SagaLog, name: str) -> None:
    """Each kind by itself, due before the healthy ones."""
    bad = begun(log, 1)
    spoil(engine, KINDS[name], bad)
    before, healthy = raw(engine, bad), {begun(log, number) for number in range(2, 2 + HEALTHY)}
    recovery, claimed = recovering(log)
    for _ in range(4):
        recovery.look()
    assert set(claimed) == healthy
    assert raw(engine, bad) == before
    assert DueSagas(log).due(NOW + 100, 10) == []


def recovering(log: SagaLog) -> tuple[Recovery, list[str]]:
    """A recovery whose pool drives nothing, and the ids of what it has claimed."""
    deps = DriverDeps(
        log=log, transport=Well(), owner="here", clock=lambda: NOW + 100, sleep=lambda seconds: None,
        random=lambda: 0.5, stopping=lambda: False, observe=lambda row, line: None,
    )  # fmt: skip
    runtime = Runtime(deps)
    claimed: list[str] = []
    runtime.pool.accept = lambda driver: claimed.append(driver.row.id)  # type: ignore[method-assign]
    return runtime.recovery, claimed


@pytest.mark.parametrize("count", [100])
def test_many_that_cannot_be_read_take_up_no_places(
    engine: Engine, log: SagaLog, serve: Callable[[], Served], count: int
) -> None:
    for number in range(1, count + 1):
        begun(log, number)
    with engine.begin() as connection:
        connection.execute(text("UPDATE sagas SET input = '[' WHERE name = 'signup'"))
    for number in range(count + 1, count + 1 + HEALTHY):
        begun(log, number)
    served = serve()
    assert eventually(lambda: served.completed() == HEALTHY, within=60)
    assert len(served.get("/sagas?status=UNREADABLE&limit=500")["sagas"]) == count
    assert len(served.log.aside) == count


def test_each_is_said_once_and_seen_again_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    aside = SetAside(lambda: now[0])
    for _ in range(3):
        aside.put(Unreadable("x", "broken"))
    assert [message for message in caplog.messages if "saga_id=x" in message] == [
        "event=saga_unreadable saga_id=x: broken"
    ]
    assert aside.resting() == {"x"}
    now[0] = REST_SECONDS
    assert aside.resting() == frozenset()
    aside.put(Unreadable("x", "broken"))
    now[0] = 2 * REST_SECONDS
    assert aside.resting() == {"x"}  # twice as long
    aside.drop("x")
    assert len(aside) == 0


def test_a_row_that_was_mended_is_driven(engine: Engine, log: SagaLog, serve: Callable[[], Served]) -> None:
    bad = begun(log, 1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE sagas SET input = '[' WHERE id = :id"), {"id": bad})
    served = serve()
    eventually(lambda: served.get(f"/sagas/{bad}")["status"] == "UNREADABLE")
    with engine.begin() as connection:
        connection.execute(text("UPDATE sagas SET input = '{}' WHERE id = :id"), {"id": bad})
    assert eventually(lambda: served.get(f"/sagas/{bad}")["status"] == "COMPLETED", within=60)


def test_unknown_fields_are_ignored_where_nobody_calls_the_steps_any_more(engine: Engine, log: SagaLog) -> None:
    """What a newer version wrote of a saga that has ended is shown; so is what it wrote of a saga as a whole."""
    ended = begun(log, 1, state=State.COMPLETED, cursor=3, ended_at=NOW, owner=None, due_at=None)
    driven = begun(log, 2)
    whole = json.dumps({**DEFINITION, "priority": 7})
    for saga_id, snapshot in ((ended, with_step(wait={})), (driven, whole)):
        with engine.begin() as connection:
            values = {"value": snapshot, "id": saga_id}
            connection.execute(text("UPDATE sagas SET definition = :value WHERE id = :id"), values)
    assert all(isinstance(log.find(saga_id), SagaRow) for saga_id in (ended, driven))


def test_a_claim_of_what_cannot_be_read_changes_nothing(engine: Engine, log: SagaLog) -> None:
    for number, kind in ((1, KINDS["a newer field in a step"]), (2, KINDS["an event that is not known"])):
        saga_id = begun(log, number)
        spoil(engine, kind, saga_id)
        before = raw(engine, saga_id)
        with pytest.raises(SagaUnreadable, match=r"newer|known"):
            log.claim(saga_id, 1, "two", due_by=NOW + 99, due_at=NOW + 199)
        with pytest.raises(SagaUnreadable, match=r"newer|known"):
            log.preempt(saga_id, 1, State.EXECUTING, "two", NOW + 199)
        assert raw(engine, saga_id) == before


def test_a_line_that_cannot_be_read_is_shown_with_its_reason(engine: Engine, log: SagaLog) -> None:
    saga_id = begun(log, 1)
    spoil(engine, KINDS["an event that is not known"], saga_id)
    found = log.lines(saga_id)[1]
    assert isinstance(found, UnreadableLine)
    assert (found.seq, found.event, found.detail) == (
        2, "beamed", {"unreadable": "the event 'beamed' is not known to this version"}
    )  # fmt: skip
    lines = LogLines(log)
    assert lines.between(0, lines.last_id(), 10)[1][1:] == (saga_id, found)
    assert lines.latest(1) == [(saga_id, found)]
    assert isinstance(log.find(saga_id), Unreadable)


def test_the_states_that_are_not_known_are_counted_as_unreadable(engine: Engine, log: SagaLog) -> None:
    for number, state in enumerate(["a", "executinh", "zzz", "executing"], start=1):
        spoil(engine, row("state", state, ""), begun(log, number))
    counted = count_states(log, 2)
    assert (counted["UNREADABLE"], counted["executing"]) == (2, 1)
    assert count_states(log, 10)["UNREADABLE"] == 3


def test_the_export_masks_where_it_can_and_withholds_where_it_cannot(
    engine: Engine, log: SagaLog, serve: Callable[[], Served]
) -> None:
    error = {"step": "A", "kind": "failed", "status_code": 500, "message": "no 4111 here"}
    sagas = [begun(log, number, error=error, owner=None, due_at=None) for number in (1, 2, 3)]
    spoil(engine, KINDS["a definition that is broken"], sagas[1])
    spoil(engine, KINDS["an input that is broken"], sagas[2])
    served = serve()
    masked, withheld, unmasked = (served.get(f"/sagas/{saga_id}/export") for saga_id in sagas)
    assert json.loads(masked["row"]["input"]) == {**INPUT, "payment": "***"}
    assert json.loads(masked["row"]["error"])["message"] == "no *** here"
    assert withheld["row"]["input"] == withheld["row"]["error"] == "withheld: which fields are secret cannot be read"
    assert withheld["row"]["definition"] == '{"name": "sig'
    assert "withheld" in unmasked["row"]["input"]
    assert "withheld" in unmasked["row"]["error"]
    assert requests.get(f"{served.url}/sagas/nope/export", timeout=60).status_code == 404


def test_a_bug_at_one_saga_does_not_stop_recovery(log: SagaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    bad, *others = [begun(log, number) for number in range(1, 5)]
    claim = DriverPool.claim

    def failing(self: DriverPool, saga_id: str, *args: Any) -> None:
        if saga_id == bad:
            raise RuntimeError("a bug")
        claim(self, saga_id, *args)

    monkeypatch.setattr(DriverPool, "claim", failing)
    recovery, claimed = recovering(log)
    recovery.look()
    assert claimed == others
    assert DueSagas(log).due(NOW + 100, 10) == []


def test_an_operators_end_of_one_touches_no_other(log: SagaLog) -> None:
    saga_id = begun(log, 1)
    other = begun(log, 2)
    end_unreadable(log, saga_id, State.COMPLETED, NOW + 9, {"by": "operator", "note": "x", "state": "completed"})
    found, untouched = log.find(saga_id), log.find(other)
    assert isinstance(found, SagaRow)
    assert isinstance(untouched, SagaRow)
    assert (found.state, found.epoch, found.due_at, found.ended_at) == (State.COMPLETED, 2, None, NOW + 9)
    assert present(untouched) == present(saga(2))


# Beside the log: the outbox, the participants' records, the projection of a saga on Temporal


class Published:
    """A broker that takes everything."""

    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.parked: list[str] = []

    def publish(self, events: Sequence[tuple[str, str, bytes]]) -> Sequence[bool]:
        self.subjects += [subject for _, subject, _ in events]
        return [True] * len(events)

    def park(self, id: str, subject: str, payload: bytes, reason: str) -> bool:
        self.parked.append(id)
        return True

    def created_at(self) -> float:
        return 0.0


@pytest.mark.parametrize("payload", ["{", "[1]", "null", '{"a": NaN}', '{"a": "\\ud800"}', '"x"'])
def test_an_outbox_row_that_is_no_event_is_parked_and_holds_up_no_other(engine: Engine, payload: str) -> None:
    create_tables(engine, outbox.metadata)
    bad = "INSERT INTO saga_outbox (event_id, subject, payload, created_at) VALUES (:id, :id, :payload, :at)"
    with engine.begin() as connection:
        for number in range(300):  # more than are published in one go
            values = {"id": f"bad.{number}", "payload": payload, "at": "2026-01-01 00:00:00.000000"}
            connection.execute(text(bad), values)
    events = [SagaEvent("signup", f"saga-{number}", EventKind.STARTED, None, {}) for number in range(5)]
    outbox.put(engine, *outbox.written(events, engine))
    broker = Published()
    relay = outbox.Relay(engine, broker)
    while relay.round():
        relay.mark()
    relay.mark()
    assert broker.subjects == ["saga.signup.started"] * 5
    assert broker.parked == [f"bad.{number}" for number in range(300)]
    assert relay.round() is False


def test_a_barrier_row_that_cannot_be_read_is_shown_beside_the_others(database: Database) -> None:
    settings = load_settings({"SERVICE_A_DB_URL": database("service_a"), "NATS_URL": "off"})
    app = service_a.create_app(settings)
    client = app.test_client()
    for step in ("A", "B"):
        client.post("/invoke", json={"username": "ada"}, headers={"Saga-Id": "s", "Saga-Step": step})
    made = connect(database("service_a"))
    with made.begin() as connection:
        connection.execute(text("UPDATE saga_barrier SET response = '{' WHERE step = 'B'"))
    found = client.get("/records/s")
    assert found.status_code == 200
    rows = {row["step"]: row["response"] for row in found.json["barrier"]}  # type: ignore[index]
    assert rows["A"].keys() == {"user_id"}
    assert rows["B"] == {"unreadable": "it is not valid JSON at character 1"}
    assert client.get("/records").status_code == 200
    made.dispose()
    app.close()  # type: ignore[attr-defined]


def test_what_the_log_cannot_take_is_left_out_of_a_projection(log: SagaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A saga on Temporal goes on: its history has what the log has not."""
    made = saga(1, owner="temporal")
    log.begin(made, [Line(1, NOW, "started")])
    advance = log.advance

    def some(saga_id: str, epoch: int, present: Present, lines: Any, results: Any, **more: Any) -> None:
        if any(results.values()):
            raise WriteRefused("too large")
        advance(saga_id, epoch, present, lines, results, **more)

    monkeypatch.setattr(log, "advance", some)
    done = [Line(2, NOW, "action_done", "A", detail={"state": "executing"})]
    told = Projector(log, lambda saga_id, line: None)
    moved = Projection(made.id, present(made, cursor=1), done, [Result("A", 2, {"x": 1})])
    assert told.project(moved) == 2
    found = log.find(made.id)
    assert isinstance(found, SagaRow)
    assert (found.cursor, found.results, found.epoch) == (1, {"A": {}}, 2)
    assert "not_stored" in (log.lines(made.id)[-1].detail or {})


def test_a_projection_onto_a_row_that_cannot_be_read_goes_on(engine: Engine, log: SagaLog) -> None:
    made = saga(1, owner="temporal")
    log.begin(made, [Line(1, NOW, "started")])
    spoil(engine, KINDS["an input that is broken"], made.id)
    told = Projector(log, lambda saga_id, line: None)
    new = [Line(seq, NOW, "released") for seq in (2, 3)]
    assert told.project(Projection(made.id, present(made), new[:1])) == 2
    assert told.project(Projection(made.id, present(made), new)) == 3  # the first of them is known already
    assert [line.seq for line in log.lines(made.id)] == [1, 2, 3]


def test_sagas_for_temporal_that_cannot_be_read_take_up_no_places(engine: Engine, log: SagaLog) -> None:
    for number in range(1, 41):
        spoil(engine, KINDS["an input that is broken"], begun(log, number, owner="temporal"))
    good = begun(log, 50, owner="temporal")
    for _ in range(3):
        if (ids := DueSagas(log).unstarted(NOW + 99, 32)) and good in ids:
            return
        log.find_many(ids)
    raise AssertionError("it has not come")
