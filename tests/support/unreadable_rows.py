"""Rows and lines that this version cannot decode, of every kind, and an orchestrator beside them."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
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
from saga.cli.main import main as cli
from saga.context import Context
from saga.http_client.transport import Failure, HttpAnswer
from saga.machine import Line
from saga.payload import digest
from saga.process.settings import load_settings
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from tests.support.builders import a_saga_id, a_saga_row, signup
from tests.support.stack import ROOT

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
    return Kind(f"UPDATE sagas SET `{column}` = :value WHERE id = :id", value, says, only)


def line(column: str, value: Any, says: str, only: str = "") -> Kind:
    values = {"seq": "2", "at": "'2026-01-01 00:00:00.000000'", "event": "'released'", "step": "NULL",
              "attempt": "NULL", "status_code": "NULL", "duration_ms": "NULL", "detail": "NULL"}  # fmt: skip
    values[column] = ":value"
    sql = f"INSERT INTO saga_log (saga_id, {', '.join(values)}) VALUES (:id, {', '.join(values.values())})"
    return Kind(sql, value, says, only)


def context(**changes: Any) -> str:
    return json.dumps({**Context(lines=1, at=NOW, reached_at=NOW).as_json(), **changes})


def result(value: str, says: str) -> Kind:
    return Kind("INSERT INTO saga_results (saga_id, step, result) VALUES (:id, 'A', :value)", value, says)


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
    "a context without its lines": row("context", '{"steps": {}}', "context"),
    "a context with a text for its lines": row("context", context(lines="one"), "context"),
    "a context with steps that are a list": row("context", context(steps=[]), "context"),
    "a context with calls that are a list": row("context", context(calls=[]), "context"),
    "a context with a step of another version": row("context", context(steps={"A": {"mood": 1}}), "context"),
    "a context with attempts that are a text": row("context", context(steps={"A": {"attempts": "x"}}), "context"),
    "a context with a start that is a text": row("context", context(steps={"A": {"started_at": "x"}}), "context"),
    "a context with a letter that is none": row("context", context(parked=[{"letter": "x"}]), "context"),
    "a result that is broken": result("{", "results.A: it is not valid JSON"),
    "a result that is a list": result("[1]", "results.A must be a JSON object"),
    "a result that is too deep": result('{"a": ' + "[" * 5000 + "]" * 5000 + "}", "results.A"),
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


def kinds_of(database: str) -> dict[str, Kind]:
    """Return the kinds that a column of this database ("sqlite" or "mysql") can hold, by name."""
    return {name: kind for name, kind in KINDS.items() if kind.only in ("", database)}


PAIRS = [(database, name) for database in ("sqlite", "mysql") for name in kinds_of(database)]


class Well:
    """Every service answers at once, and shows no records."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
        return HttpAnswer(1.0, 200, {"content-type": "application/json"}, b"{}")

    def get(self, url: str, headers: Mapping[str, str], timeout: float) -> HttpAnswer:
        return HttpAnswer(1.0, failure=Failure.NOT_CONNECTED, message="nobody shows records here")


class Served:
    """An orchestrator on a log, and its address."""

    def __init__(self, url: str):
        nowhere = {f"SERVICE_{name}_URL": "http://127.0.0.1:9" for name in "ABC"}
        settings = {"SAGA_LOG_URL": url, "SAGAS_DIR": str(ROOT / "orchestrator" / "sagas"), **nowhere}
        settings |= {"NATS_URL": "off", "RECOVERY_INTERVAL": "0.05", "LEASE_SECONDS": "5"}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(orchestrator.bootstrap, "new_transport", lambda plain: Well())
            self.parts = bootstrap(load_settings(settings))
        self.log = self.parts.log
        self._app = create_app(orchestrator=self.parts)
        self._server = make_server("127.0.0.1", 0, self._app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._app.close()  # type: ignore[attr-defined]
        self._server.shutdown()

    def get(self, path: str, **more: Any) -> Any:
        answer = requests.get(self.url + path, timeout=60, **more)
        assert answer.status_code == 200, (path, answer.status_code, answer.text[:500])
        return answer.json() if "json" in answer.headers["Content-Type"] else answer.text

    def post(self, path: str, **more: Any) -> requests.Response:
        return requests.post(self.url + path, timeout=60, **more)

    def completed(self) -> int:
        return len(self.get("/sagas?status=completed&limit=500")["sagas"])

    def cli(self, *arguments: str) -> Any:
        done = CliRunner().invoke(cli, ["--url", self.url, *arguments])
        assert done.exit_code == 0, done.output
        return done.output


def saga(number: int, **changes: Any) -> SagaRow:
    values = {
        "id": a_saga_id(number),
        "definition": signup(steps=STEPS, deadline=None),
        "input": INPUT,
        "context": Context(lines=1, at=NOW, reached_at=NOW),
        "due_at": NOW + number,
        "request_hash": digest(INPUT),
        "started_at": NOW,
    }
    return a_saga_row(**{**values, **changes})


def begun(log: SagaLog, number: int, **changes: Any) -> str:
    made = saga(number, **changes)
    assert log.begin(made, [Line(1, NOW, "started")]) is None
    return made.id


def spoil(engine: Engine, kind: Kind, saga_id: str) -> None:
    with engine.begin() as connection:
        connection.execute(text(kind.sql), {"value": kind.value, "id": saga_id})


def raw(engine: Engine, saga_id: str) -> dict[str, Any]:
    columns = "state, owner, due_at, ended_at, epoch" if engine.dialect.name == "sqlite" else "*"
    with engine.begin() as connection:
        return dict(
            connection.execute(text(f"SELECT {columns} FROM sagas WHERE id = :id"), {"id": saga_id}).mappings().one()
        )
