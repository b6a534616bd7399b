"""No reader assumes a shape that the machine does not promise: whatever a saga has come to, everybody can show it.

Every state and log that the machine allows, up to any line, shown by the API, the command and the dashboard; and with
any part of the log left out, as a saga's page leaves it out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import orchestrator.dashboard.saga_view
from orchestrator.app import create_app
from orchestrator.bootstrap import bootstrap
from orchestrator.dashboard.log_reader import LEFT_OUT, read_history, with_gaps
from orchestrator.dashboard.saga_stats import stats_of
from orchestrator.dashboard.sequence import sequence
from orchestrator.dashboard.summary import root_cause, summarize
from orchestrator.dashboard.timeline import timeline
from saga.cli.look import list_sagas, show
from saga.cli.output import one_line
from saga.http_client import new_transport
from saga.process.settings import load_settings
from saga.runtime.permitted_commands import permitted_commands
from saga.saga_log import SagaLog
from saga.views.audit import audit
from saga.views.representation import represent
from tests.support.log_writer import SECRET, LogWriter, written_logs
from tests.support.stack import ROOT

ANY = settings(deadline=None, suppress_health_check=list(HealthCheck))


def drawn(saga: dict[str, Any], lines: list[dict[str, Any]], now: float | None) -> str:
    """All that the dashboard makes of them, as one text."""
    told = [summarize(saga, lines), root_cause(saga, lines), stats_of(saga, lines), read_history(lines)]
    return str([*told, timeline(saga, lines, now), sequence(saga, lines)])


@settings(ANY, max_examples=300)
@given(writer=written_logs())
def test_any_saga_can_be_shown(writer: LogWriter) -> None:
    saga, lines = writer.shown()
    names = [step["name"] for step in saga["steps"]]
    assert names == [step.name for step in writer.row.definition.steps]
    permitted_commands(writer.row)
    now = None if writer.row.ended else writer.now + 1
    line = one_line(saga)
    assert saga["saga_id"] in line
    assert SECRET not in drawn(saga, lines, now) + line + json.dumps(saga) + json.dumps(lines)


@settings(ANY, max_examples=300)
@given(writer=written_logs(most=80), data=st.data())
def test_any_saga_can_be_drawn_with_lines_left_out(writer: LogWriter, data: st.DataObject) -> None:
    saga, lines = writer.shown()
    first = data.draw(st.integers(1, max(1, len(lines) - 1)))
    latest = data.draw(st.integers(first, len(lines)))
    shown = with_gaps([*lines[:first], *lines[latest:]])
    gaps = [line["detail"]["lines"] for line in shown if line["event"] == LEFT_OUT]
    assert sum(gaps) == (latest - first if latest < len(lines) else 0)
    now = None if writer.row.ended else writer.now + 1
    assert SECRET not in drawn(saga, shown, now)
    chart = timeline(saga, shown, now)
    for row in chart.rows:
        assert all(bar.left >= 0 and bar.left + bar.width <= 100 + 1e-9 for bar in row.bars)


@settings(ANY, max_examples=150)
@given(writer=written_logs())
def test_the_command_shows_any_saga(writer: LogWriter) -> None:
    saga, lines = writer.shown()

    class Api:
        def call(self, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
            page = {"/sagas": {"sagas": [saga]}, "/sagas/id": saga, "/sagas/id/log": {"lines": lines}}
            return 200, page[path]

    for command, words in ((list_sagas, []), (show, ["id"]), (show, ["id", "--json"])):
        result = CliRunner().invoke(command, words, obj=Api())
        assert result.exception is None, result.exception
        assert "id" in result.output
    stuck = [step for step in saga["steps"] if step["status"] not in ("DONE", "PENDING")]
    if saga["status"] == "STALLED" and stuck:
        assert any(f"{step['name']}: " in one_line(saga) for step in stuck)


@pytest.mark.parametrize("way", ["A! B C", "A B! C D"])
def test_a_saga_that_stalls_after_its_pivot_says_which_call_does_not_succeed(way: str) -> None:
    """What `saga list` met at night."""
    for status in (409, 500, None):
        writer = LogWriter(way)
        while writer.saga.state != "finishing":
            writer.call(200)
        writer.call(status, 3)
        saga, _ = writer.shown()
        step = writer.saga.step
        assert step
        assert saga["status"] == "STALLED"
        assert f"  {step.name}: no answer · next at" in one_line(saga)


def test_a_pivot_that_nobody_can_ask_says_so() -> None:
    writer = LogWriter("A B*!")
    writer.call(200)
    writer.call(500, 3)
    assert writer.saga.state == "stalled_deciding"
    assert "  B: " in one_line(writer.shown()[0])


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Flask, SagaLog]]:
    """The orchestrator, whose threads are not started; the services are not asked."""
    directory = tmp_path_factory.mktemp("readers")
    nowhere = {f"SERVICE_{name}_URL": "http://127.0.0.1:9" for name in "ABC"}
    environ = {"SAGA_LOG_URL": f"sqlite:///{directory}/log.db", "SAGAS_DIR": str(ROOT / "orchestrator" / "sagas")}
    patch = pytest.MonkeyPatch()
    patch.setattr(
        orchestrator.dashboard.saga_view, "ask_all", lambda definition, *_: {s.name: None for s in definition.steps}
    )
    patch.setattr("orchestrator.health.HealthMonitor.latest", lambda self: None)
    patch.setattr("orchestrator.parts.Orchestrator.open", lambda self: None)
    parts = bootstrap(load_settings({**environ, **nowhere, "NATS_URL": "off"}))
    yield create_app(orchestrator=parts), parts.log
    patch.undo()


@settings(ANY, max_examples=60)
@given(writer=written_logs())
def test_the_api_and_the_dashboard_show_any_saga(app: tuple[Flask, SagaLog], writer: LogWriter) -> None:
    made, log = app
    client, saga_id = made.test_client(), "0193aaaa-0000-7000-8000-000000000000"
    row = replace(writer.row, id=saga_id, ended_at=None)
    with log.database.engine.begin() as connection:
        for table in ("sagas", "saga_log", "saga_results"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    log.begin(row, writer.lines)
    log.advance(saga_id, 1, writer.row.present, [])
    found = log.find(saga_id)
    assert found
    assert {**represent(found), "saga_id": "", "result": {}} == {
        **represent(writer.row),
        "saga_id": "",
        "result": {},
    }
    addresses = ["/", "/sagas", f"/sagas?q={saga_id}", f"/sagas/{saga_id}", f"/sagas/{saga_id}/log", "/logs"]
    for path in [*addresses, f"/ui/sagas/{saga_id}", f"/ui/both/{saga_id}/{saga_id}", "/?attention=1"]:
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert SECRET not in answer.text, path
        assert saga_id in answer.text or path.endswith(("/log", "/?attention=1")), path
    if row.ended:
        assert audit([found], new_transport(), None)["checked"] in (0, 1)
