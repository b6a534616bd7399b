"""One row or line that this version cannot decode stops nobody: every kind of it, every reader, SQLite and MySQL."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from sqlalchemy import Engine, text
from werkzeug.serving import make_server

import orchestrator.bootstrap
from orchestrator.app import create_app
from orchestrator.bootstrap import bootstrap
from saga import log_sql
from saga.cli import main as cli
from saga.database import connect, create_tables
from saga.errors import SagaUnreadable
from saga.log import Record, SagaLog
from saga.machine import Line, State
from saga.payload import digest
from saga.recovery import Recovery
from saga.set_aside import AGAIN, SetAside
from saga.settings import load_settings
from saga.transport import Answer
from saga.unreadable import Unreadable, UnreadableLine
from tests.conftest import Database
from tests.contract.test_log import present
from tests.stack import ROOT, eventually
from tests.world import signup

NOW = 1_700_000_000.0  # long ago: all of it is due
INPUT = {"username": "ada", "payment": "4111"}
HEALTHY = 10
STEPS = tuple(  # where nobody is
    replace(step, action="http://127.0.0.1:9/invoke", compensation="http://127.0.0.1:9/compensate")
    for step in signup().steps
)
DEFINITION: dict[str, Any] = json.loads(signup(steps=STEPS).snapshot_text)
STEP = DEFINITION["steps"][0]


def with_step(**changes: Any) -> str:
    return json.dumps({**DEFINITION, "steps": [{**STEP, **changes}, *DEFINITION["steps"][1:]]})


@dataclass(frozen=True)
class Kind:
    """What is wrong: SQL that makes a row or a line so; `says`: a part of the reason; `only`: on this database."""

    sql: str
    value: Any
    says: str
    only: str = ""


def row(column: str, value: Any, says: str, only: str = "") -> Kind:
    return Kind(f"UPDATE sagas SET {column} = :value WHERE id = :id", value, says, only)


def line(column: str, value: Any, says: str, only: str = "") -> Kind:
    values = {"seq": "2", "at": "'2026-01-01 00:00:00.000000'", "event": "'released'", "step": "NULL",
              "attempt": "NULL", "status_code": "NULL", "duration_ms": "NULL", "detail": "NULL"}  # fmt: skip
    values[column] = ":value"
    sql = f"INSERT INTO saga_log (saga_id, {', '.join(values)}) VALUES (:id, {', '.join(values.values())})"
    return Kind(sql, value, says, only)


KINDS: Mapping[str, Kind] = {
    "a newer field in a step": row("definition", with_step(wait={"signal": "x"}), "a newer version's field"),
    "a definition that is broken": row("definition", '{"name": "sig', "definition: it is not valid JSON"),
    "a definition that is empty": row("definition", "", "definition"),
    "a definition that is null": row("definition", "null", "definition must be a JSON object"),
    "a definition that is a list": row("definition", "[]", "definition must be a JSON object"),
    "steps that are no list": row("definition", json.dumps({**DEFINITION, "steps": {"A": 1}}), "steps"),
    "no steps": row("definition", json.dumps({**DEFINITION, "steps": []}), "steps"),
    "a step that is a text": row("definition", json.dumps({**DEFINITION, "steps": ["A"]}), "steps[0]"),
    "a step without an action": row("definition", json.dumps({**DEFINITION, "steps": [{"name": "A"}]}), "action"),
    "a step with a wrong type": row("definition", with_step(retries="two"), "retries"),
    "a step with a wrong send": row("definition", with_step(send=[1]), "send"),
    "an action that is no URL": row("definition", with_step(action="http://[x"), "action"),
    "a mode of a newer version": row("definition", json.dumps({**DEFINITION, "mode": "mixed"}), "mode"),
    "secrets that are no list": row("definition", json.dumps({**DEFINITION, "secret": "payment"}), "secret"),
    "an input that is broken": row("input", '{"username": ', "input: it is not valid JSON"),
    "an input that is a list": row("input", "[1]", "input must be a JSON object"),
    "an input that is too deep": row("input", '{"a": ' + "[" * 5000 + "]" * 5000 + "}", "input"),
    "an input of NaN": row("input", '{"a": NaN}', "input"),
    "an input with half a character": row("input", '{"a": "\\ud800"}', "input"),
    "a context that is broken": row("context", "{{", "context: it is not valid JSON"),
    "a context that is a text": row("context", '"x"', "context must be a JSON object"),
    "a context of no objects": row("context", '{"A": 7}', "context"),
    "an error that is broken": row("error", "oh no", "error: it is not valid JSON"),
    "an error that is a list": row("error", "[]", "error must be a JSON object"),
    "an error without a text": row("error", '{"kind": 7, "message": "x"}', "error.kind"),
    "a state that is not known": row("state", "teleporting", "the state 'teleporting' is not known"),
    "a state that is empty": row("state", "", "state"),
    "a cursor beyond the steps": row("cursor", 7, "cursor"),
    "a cursor before the steps": row("cursor", -1, "cursor"),
    "an event that is not known": line("event", "beamed", "line 2: the event 'beamed' is not known"),
    "a detail that is broken": line("detail", "{", "line 2: detail: it is not valid JSON"),
    "a detail that is a list": line("detail", "[1]", "line 2: detail must be a JSON object"),
    "a detail of a wrong type": line("detail", '{"state": ["x"]}', "line 2: detail.state"),
    "a letter that is no number": line("detail", '{"letter": "x"}', "line 2: detail.letter"),
    "an event that does not follow": line("event", "compensation_done", "do not follow"),
    "a cursor that is a text": row("cursor", "first", "cursor", "sqlite"),
    "rounds that are a text": row("rounds", "many", "rounds", "sqlite"),
    "an epoch that is a text": row("epoch", "first", "epoch", "sqlite"),
    "a start at no time": row("started_at", "yesterday", "started_at", "sqlite"),
    "a deadline that is a number": row("deadline_at", 17, "deadline_at", "sqlite"),
    "a due time of another zone": row("due_at", "2020-01-01 00:00:00+02:00", "due_at", "sqlite"),
    "an input of bytes": row("input", b"\x00\xff", "input", "sqlite"),
    "a definition that is no UTF-8": Kind(
        "UPDATE sagas SET definition = CAST(:value AS TEXT) WHERE id = :id", b'{"a": "\xff"}', "definition", "sqlite"
    ),
    "a name of bytes": row("name", b"\xff", "name", "sqlite"),
    "a line at no time": line("at", "later", "line 2: at", "sqlite"),
    "a line with a text for a number": line("attempt", "first", "line 2: attempt", "sqlite"),
    "a line with a text for a duration": line("duration_ms", "long", "line 2: duration_ms", "sqlite"),
}  # fmt: skip


class Well:
    """Every service answers at once."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        return Answer(1.0, 200, {"content-type": "application/json"}, b"{}")


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    made = connect(database("orchestrator"))
    create_tables(made, log_sql.metadata)
    yield made
    made.dispose()


@pytest.fixture
def log(engine: Engine) -> SagaLog:
    return SagaLog(engine)


@pytest.fixture
def serve(
    engine: Engine, database: Database, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], tuple[str, Any]]]:
    """Starts the orchestrator on this log; gives its URL and its parts."""
    monkeypatch.setattr(orchestrator.bootstrap, "Transport", Well)
    closing: list[Callable[[], Any]] = []

    def start() -> tuple[str, Any]:
        nowhere = {f"SERVICE_{name}_URL": "http://127.0.0.1:9" for name in "ABC"}
        settings = {"SAGA_LOG_URL": database("orchestrator"), "SAGAS_DIR": str(ROOT / "orchestrator" / "sagas")}
        settings |= {"NATS_URL": "off", "RECOVERY_INTERVAL": "0.05", "LEASE_SECONDS": "5"}
        parts = bootstrap(load_settings({**settings, **nowhere}))
        app = create_app(parts=parts)
        server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        closing.extend([app.close, server.shutdown])  # type: ignore[attr-defined]
        return f"http://127.0.0.1:{server.port}", parts

    yield start
    for close in closing:
        close()


def saga(number: int, **changes: Any) -> Record:
    values = {
        "id": str(uuid.UUID(int=number)), "definition": signup(steps=STEPS, deadline=None), "input": INPUT,
        "state": State.EXECUTING, "cursor": 0, "context": {}, "epoch": 1, "owner": "gone", "due_at": NOW + number,
        "rounds": 0, "idempotency_key": None, "request_hash": digest(INPUT), "error": None, "started_at": NOW,
        "ended_at": None, "deadline_at": None,
    }  # fmt: skip
    return Record(**{**values, **changes})


def begun(log: SagaLog, number: int, **changes: Any) -> str:
    made = saga(number, **changes)
    assert log.begin(made, [Line(1, NOW, "started")]) is None
    return made.id


def spoil(engine: Engine, kind: Kind, saga_id: str) -> None:
    if kind.only and kind.only != engine.dialect.name:
        pytest.skip(f"{engine.dialect.name} does not take such a value")
    with engine.begin() as connection:
        connection.execute(text(kind.sql), {"value": kind.value, "id": saga_id})


def raw(engine: Engine, saga_id: str) -> dict[str, Any]:
    columns = "state, owner, due_at, ended_at, epoch" if engine.dialect.name == "sqlite" else "*"
    with engine.begin() as connection:
        return dict(
            connection.execute(text(f"SELECT {columns} FROM sagas WHERE id = :id"), {"id": saga_id}).mappings().one()
        )


def get(url: str, path: str, **more: Any) -> Any:
    answer = requests.get(url + path, timeout=10, **more)
    assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
    return answer.json() if "json" in answer.headers["Content-Type"] else answer.text


@pytest.mark.parametrize("name", KINDS)
def test_what_one_version_cannot_read_stops_nobody(
    engine: Engine, log: SagaLog, serve: Callable[[], tuple[str, Any]], name: str
) -> None:
    kind = KINDS[name]
    bad = begun(log, 1, idempotency_key="bad")  # it is due before all others
    for number in range(2, 2 + HEALTHY):
        begun(log, number)
    spoil(engine, kind, bad)
    before = raw(engine, bad)
    url, parts = serve()

    def healthy() -> bool:
        return len(get(url, "/sagas?status=completed")["sagas"]) == HEALTHY

    assert eventually(healthy, within=20)
    eventually(lambda: len(parts.log.aside) == 1)
    assert raw(engine, bad) == before  # it is left alone

    found = get(url, "/sagas")["sagas"]
    assert len(found) == HEALTHY + 1
    shown = found[-1]
    assert shown["saga_id"] == bad
    assert shown["status"] == "UNREADABLE"
    assert shown["error"].keys() == {"step", "kind", "status_code", "message"}
    assert shown["error"]["kind"] == "unreadable"
    assert kind.says in shown["error"]["message"]
    assert shown.keys() == found[0].keys()
    assert shown["needs_attention"] is True
    assert "4111" not in json.dumps(shown)
    assert get(url, f"/sagas/{bad}") == shown
    assert [each["saga_id"] for each in get(url, "/sagas?status=UNREADABLE")["sagas"]] == [bad]
    assert get(url, "/sagas?status=RUNNING")["sagas"] == []
    assert get(url, "/sagas?q=bad")["sagas"] == [shown]
    lines = get(url, f"/sagas/{bad}/log")["lines"]
    assert [each["seq"] for each in lines][:1] == [1]
    assert len(get(url, "/logs?limit=500")["lines"]) >= HEALTHY * 4
    assert ("unreadable" in str(lines)) == kind.sql.startswith("INSERT") or "follow" in kind.says
    assert "saga_unreadable 1.0" in get(url, "/metrics")
    assert get(url, "/audit")["unreadable"] == 0  # it has not ended
    assert _streamed(url, parts.log.last_line_id())

    assert "UNREADABLE" in get(url, "/?status=UNREADABLE")
    assert "unreadable 1" in get(url, "/")
    assert "cannot read it" in get(url, f"/ui/sagas/{bad}")
    assert bad in get(url, "/?attention=1")
    told = CliRunner().invoke(cli, ["--url", url, "list"])
    assert told.exit_code == 0, told.output
    assert f"{bad}  UNREADABLE" in told.output
    assert "UNREADABLE" in CliRunner().invoke(cli, ["--url", url, "show", bad]).output
    exported = CliRunner().invoke(cli, ["--url", url, "export-row", bad])
    assert exported.exit_code == 0, exported.output
    assert json.loads(exported.output)["row"]["id"] == bad
    assert "4111" not in exported.output

    again = requests.post(f"{url}/start", json=INPUT, headers={"Idempotency-Key": "bad"}, timeout=10)
    assert (again.status_code, again.json()) == (202, shown)
    for verb in ("cancel", "resume"):
        refused = requests.post(f"{url}/sagas/{bad}/{verb}", timeout=10)
        assert refused.status_code == 409, refused.text
        assert kind.says in refused.json()["error"]
    assert raw(engine, bad) == before

    unsaid = requests.post(f"{url}/sagas/{bad}/resolve", json={"note": "seen to"}, timeout=10)
    assert (unsaid.status_code, unsaid.json()["field"]) == (400, "outcome")
    said = {"note": "seen to", "outcome": "compensated"}
    resolved = requests.post(f"{url}/sagas/{bad}/resolve", json=said, timeout=10)
    assert resolved.status_code == 202, resolved.text
    assert resolved.json()["needs_attention"] is False
    after = raw(engine, bad)
    assert (after["state"], after["owner"], after["due_at"]) == ("compensated", None, None)
    assert after["ended_at"]
    assert [line["event"] for line in get(url, f"/sagas/{bad}/log")["lines"]][-1] == "resolved"
    assert requests.post(f"{url}/sagas/{bad}/resolve", json=said, timeout=10).status_code == 409
    assert requests.post(f"{url}/prune?older_than=0", timeout=10).json()["pruned"] == HEALTHY + 1


def _streamed(url: str, last: int) -> bool:
    """Whether the stream of lines comes to the last one."""
    with requests.get(f"{url}/events", headers={"Last-Event-ID": "0"}, stream=True, timeout=10) as stream:
        for raw_line in stream.iter_lines(chunk_size=1):
            if raw_line == f"id: {last}".encode():
                return True
    return False


@pytest.mark.parametrize("count", [100])
def test_many_that_cannot_be_read_take_up_no_places(
    engine: Engine, log: SagaLog, serve: Callable[[], tuple[str, Any]], count: int
) -> None:
    for number in range(1, count + 1):
        begun(log, number)
    with engine.begin() as connection:
        connection.execute(text("UPDATE sagas SET input = '[' WHERE name = 'signup'"))
    for number in range(count + 1, count + 1 + HEALTHY):
        begun(log, number)
    url, parts = serve()
    assert eventually(lambda: len(get(url, "/sagas?status=COMPLETED")["sagas"]) == HEALTHY, within=20)
    assert len(get(url, "/sagas?status=UNREADABLE&limit=500")["sagas"]) == count
    assert len(parts.log.aside) == count
    assert f"saga_unreadable {count}.0" in get(url, "/metrics")


def test_each_is_said_once_and_seen_again_after_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    aside = SetAside(lambda: now[0])
    for _ in range(3):
        aside.put(Unreadable("x", "broken"))
    assert [message for message in caplog.messages if "saga_id=x" in message] == [
        "event=saga_unreadable saga_id=x: broken"
    ]
    assert aside.resting() == {"x"}
    now[0] = AGAIN
    assert aside.resting() == frozenset()
    aside.put(Unreadable("x", "broken"))
    now[0] = 2 * AGAIN
    assert aside.resting() == {"x"}  # twice as long
    aside.drop("x")
    assert len(aside) == 0


def test_a_row_that_was_mended_is_driven(engine: Engine, log: SagaLog, serve: Callable[[], tuple[str, Any]]) -> None:
    bad = begun(log, 1)
    with engine.begin() as connection:
        connection.execute(text("UPDATE sagas SET input = '[' WHERE id = :id"), {"id": bad})
    url, _ = serve()
    eventually(lambda: get(url, f"/sagas/{bad}")["status"] == "UNREADABLE")
    with engine.begin() as connection:
        connection.execute(text("UPDATE sagas SET input = '{}' WHERE id = :id"), {"id": bad})
    assert eventually(lambda: get(url, f"/sagas/{bad}")["status"] == "COMPLETED", within=20)


def test_unknown_fields_are_ignored_where_nobody_calls_the_steps_any_more(engine: Engine, log: SagaLog) -> None:
    """What a newer version wrote of a saga that has ended is shown; so is what it wrote of a saga as a whole."""
    ended = begun(log, 1, state=State.COMPLETED, cursor=3, ended_at=NOW, owner=None, due_at=None)
    driven = begun(log, 2)
    whole = json.dumps({**DEFINITION, "priority": 7})
    for saga_id, snapshot in ((ended, with_step(wait={})), (driven, whole)):
        with engine.begin() as connection:
            values = {"value": snapshot, "id": saga_id}
            connection.execute(text("UPDATE sagas SET definition = :value WHERE id = :id"), values)
    assert all(isinstance(log.find(saga_id), Record) for saga_id in (ended, driven))


def test_a_claim_of_what_cannot_be_read_changes_nothing(engine: Engine, log: SagaLog) -> None:
    for number, kind in ((1, KINDS["a newer field in a step"]), (2, KINDS["an event that is not known"])):
        saga_id = begun(log, number)
        spoil(engine, kind, saga_id)
        before = raw(engine, saga_id)
        with pytest.raises(SagaUnreadable, match=r"newer|known"):
            log.claim(saga_id, 1, "two", due_by=NOW + 99, due_at=NOW + 199)
        with pytest.raises(SagaUnreadable, match=r"newer|known"):
            log.take(saga_id, 1, State.EXECUTING, "two", NOW + 199)
        assert raw(engine, saga_id) == before


def test_a_line_that_cannot_be_read_is_shown_with_its_reason(engine: Engine, log: SagaLog) -> None:
    saga_id = begun(log, 1)
    spoil(engine, KINDS["an event that is not known"], saga_id)
    found = log.lines(saga_id)[1]
    assert isinstance(found, UnreadableLine)
    assert (found.seq, found.event, found.detail) == (
        2, "beamed", {"unreadable": "the event 'beamed' is not known to this version"}
    )  # fmt: skip
    assert log.lines_between(0, 10, 10)[1][1:] == (saga_id, found)
    assert log.latest_lines(1) == [(saga_id, found)]
    assert isinstance(log.find(saga_id), Unreadable)


def test_the_states_that_are_not_known_are_counted_as_unreadable(engine: Engine, log: SagaLog) -> None:
    for number, state in enumerate(["a", "executinh", "zzz", "executing"], start=1):
        spoil(engine, row("state", state, ""), begun(log, number))
    counted = log.count_states(2)
    assert (counted["UNREADABLE"], counted["executing"]) == (2, 1)
    assert log.count_states(10)["UNREADABLE"] == 3


def test_the_export_masks_where_it_can_and_withholds_where_it_cannot(
    engine: Engine, log: SagaLog, serve: Callable[[], tuple[str, Any]]
) -> None:
    error = {"step": "A", "kind": "failed", "status_code": 500, "message": "no 4111 here"}
    sagas = [begun(log, number, error=error) for number in (1, 2, 3)]
    spoil(engine, KINDS["a definition that is broken"], sagas[1])
    spoil(engine, KINDS["an input that is broken"], sagas[2])
    url, _ = serve()
    masked, withheld, unmasked = (get(url, f"/sagas/{saga_id}/export") for saga_id in sagas)
    assert json.loads(masked["row"]["input"]) == {**INPUT, "payment": "***"}
    assert json.loads(masked["row"]["error"])["message"] == "no *** here"
    assert withheld["row"]["input"] == withheld["row"]["error"] == "withheld: which fields are secret cannot be read"
    assert withheld["row"]["definition"] == '{"name": "sig'
    assert "withheld" in unmasked["row"]["input"]
    assert "withheld" in unmasked["row"]["error"]
    assert requests.get(f"{url}/sagas/nope/export", timeout=5).status_code == 404


def test_a_bug_at_one_saga_does_not_stop_recovery(
    log: SagaLog, serve: Callable[[], tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = begun(log, 1)
    for number in range(2, 5):
        begun(log, number)
    claim = Recovery._claim

    def failing(self: Recovery, saga_id: str, *args: Any) -> bool:
        if saga_id == bad:
            raise RuntimeError("a bug")
        return claim(self, saga_id, *args)

    monkeypatch.setattr(Recovery, "_claim", failing)
    url, _ = serve()
    assert eventually(lambda: len(get(url, "/sagas?status=COMPLETED")["sagas"]) == 3, within=20)


def test_an_operators_end_of_one_touches_no_other(log: SagaLog) -> None:
    saga_id = begun(log, 1)
    other = begun(log, 2)
    log.end_unreadable(saga_id, State.COMPLETED, NOW + 9, {"by": "operator", "note": "x", "state": "completed"})
    found, untouched = log.find(saga_id), log.find(other)
    assert isinstance(found, Record)
    assert isinstance(untouched, Record)
    assert (found.state, found.epoch, found.due_at, found.ended_at) == (State.COMPLETED, 2, None, NOW + 9)
    assert present(untouched) == present(saga(2))
