"""However long a saga's log is and however large its results are: what is read and written of them is counted here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from flask.testing import FlaskClient

import orchestrator.dashboard.saga_view
import saga.saga_log
from orchestrator.api.sagas import LINES, PAGE_BYTES
from orchestrator.app import create_app
from orchestrator.dashboard.saga_view import FIRST_LINES, LATEST_LINES
from orchestrator.shown_lines import SAGAS_AT_ONCE
from saga.choreography.observer import Observer
from saga.context import replay
from saga.definition import CHOREOGRAPHY, SagaDefinition, Step
from saga.driver import Claim, Driver, DriverDeps
from saga.http_client.transport import HttpAnswer
from saga.machine import ATTEMPT, PARKED, STARTED, Event, Line, State
from saga.process.settings import load_settings
from saga.runtime.end_signals import EndSignals
from saga.runtime.pruning import prune
from saga.saga_log import LINES_CHECKED, SagaLog
from saga.saga_row import SagaRow
from saga.storage.column_types import Json
from saga.storage.database import connect, create_tables
from saga.storage.log_tables import metadata
from saga.views.stuck import SEARCHED_LINES
from tests.conftest import Database
from tests.contract.test_saga_log import NOW, begun, present, row
from tests.support.stack import ROOT
from tests.support.world import signup

MANY = 60_000  # lines
FAR = NOW + 1e8  # nothing is due


@dataclass
class Read:
    """What has come from the database."""

    lines: int = 0
    json_bytes: int = 0


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    seen, line, decode = Read(), saga.saga_log.line_of, Json.process_result_value

    def counted_line(row: Any) -> Line:
        seen.lines += 1
        return line(row)

    def counted_json(self: Json, value: str | None, dialect: Any) -> Any:
        seen.json_bytes += len(value or "")
        return decode(self, value, dialect)

    monkeypatch.setattr(saga.saga_log, "line_of", counted_line)
    monkeypatch.setattr(Json, "process_result_value", counted_json)
    return seen


@pytest.fixture
def log(database: Database) -> SagaLog:
    engine = connect(database("orchestrator"))
    create_tables(engine, metadata)
    return SagaLog(engine)


@pytest.fixture
def client(database: Database, log: SagaLog, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """The orchestrator over that log; the services' rows and health are not asked for."""
    nowhere = {f"SERVICE_{name}_URL": "http://127.0.0.1:9" for name in "ABC"}
    # A lease that no test outlasts: recovery would watch what is due in the far future, and then claim it.
    sagas = {"SAGAS_DIR": str(ROOT / "orchestrator" / "sagas"), "NATS_URL": "off", "LEASE_SECONDS": "600"}
    monkeypatch.setattr(orchestrator.dashboard.saga_view, "ask_all", lambda definition, *_: dict.fromkeys("ABC"))
    monkeypatch.setattr("orchestrator.health.HealthMonitor.latest", lambda self: None)
    app = create_app(load_settings({"SAGA_LOG_URL": database("orchestrator"), **nowhere, **sagas}))
    yield app.test_client()
    app.close()  # type: ignore[attr-defined]


def stalled(log: SagaLog, lines: int, mode: str = "", **changes: Any) -> SagaRow:
    """A saga whose compensation of A fails again and again, so that its log has about so many lines."""
    definition = signup().in_mode(mode) if mode else signup()
    made = begun(log, definition=definition, owner=None, due_at=FAR, **changes)
    events = [("A", Event.ACTION_DONE, "executing"), ("B", Event.ACTION_REFUSED, "compensating")]
    found = [
        Line(2 + n, NOW, str(event), step, detail={"state": state}) for n, (step, event, state) in enumerate(events)
    ]
    number = 0
    while len(found) < lines:
        seq, number = len(found) + 2, number + 1
        detail = {"call": "compensation", "verdict": "unknown", "message": "no"}
        found.append(Line(seq, NOW + number, ATTEMPT, "A", number, 500, 1.0, detail))
        found.append(Line(seq + 1, NOW + number, "compensation_unknown", "A", detail={"state": "stalled_compensating"}))
        if len(found) < lines:
            found.append(Line(seq + 2, NOW + number, "resumed", "A", detail={"state": "compensating"}))
    saga_, context = replay(definition, made.input, [Line(1, NOW, STARTED), *found], {"A": {"user_id": 7}})
    after = replace(made, state=saga_.state, cursor=saga_.cursor, context=context, rounds=number)
    for start in range(0, len(found), 5000):
        part = found[start : start + 5000]
        log.advance(made.id, 1, after.present, part, {"A": {"user_id": 7}} if not start else {})
    return after


def test_no_answer_about_a_saga_reads_a_long_log(log: SagaLog, client: FlaskClient, read: Read) -> None:
    saga_id = stalled(log, MANY).id
    read.lines = 0
    for path in ("/sagas", f"/sagas?q={saga_id}"):
        assert client.get(path).status_code == 200
        assert read.lines == 0, path
    for _ in range(2):  # since when a saga is stuck is read once
        assert client.get("/").status_code == 200
        assert read.lines == SEARCHED_LINES
    read.lines = 0
    assert client.get(f"/sagas/{saga_id}").status_code == 200
    assert read.lines == LINES_CHECKED  # whether they can be read
    read.lines = 0
    page = client.get(f"/ui/sagas/{saga_id}").text
    assert read.lines == LINES_CHECKED + FIRST_LINES + LATEST_LINES
    assert f"{MANY + 2 - FIRST_LINES - LATEST_LINES} lines of the log are left out here" in page
    assert "Stuck at undo A" in page
    assert len(page) < 1_000_000
    claimed, _ = log.claim(saga_id, 1, "two", due_by=FAR, due_at=FAR)
    assert claimed.context.lines == MANY + 2
    assert read.lines == 2 * LINES_CHECKED + FIRST_LINES + LATEST_LINES
    assert read.json_bytes < 1_000_000


def test_a_long_log_is_paged(log: SagaLog, client: FlaskClient, read: Read) -> None:
    saga_id = stalled(log, 2500).id
    whole, after = [], 0
    while True:
        page = client.get(f"/sagas/{saga_id}/log?after={after}").json
        whole += page["lines"]
        if "next" not in page:
            break
        assert len(page["lines"]) == LINES
        after = page["next"]
    assert [line["seq"] for line in whole] == list(range(1, len(log.lines(saga_id)) + 1))
    assert len(client.get(f"/sagas/{saga_id}/log?limit=10000").json["lines"]) == len(whole)
    assert client.get(f"/sagas/{saga_id}/log?after={len(whole)}").json == {"lines": []}
    exactly = client.get(f"/sagas/{saga_id}/log?after=0&limit={len(whole)}").json
    assert exactly.keys() == {"lines"}
    for wrong in ("limit=0", "limit=10001", "after=-1", "after=x", "since=1"):
        refused = client.get(f"/sagas/{saga_id}/log?{wrong}")
        assert refused.status_code == 400
        assert wrong.split("=")[0] in refused.json["error"]


def test_a_driver_goes_on_with_a_long_log_without_reading_or_keeping_it(log: SagaLog, read: Read) -> None:
    after = stalled(log, 3000)
    read.lines = 0

    class Undoes:
        def post(self, *_: Any) -> HttpAnswer:
            return HttpAnswer(1.0, 200, {}, b"{}")

    deps = DriverDeps(
        log,
        Undoes(),
        "two",
        lambda: NOW,
        lambda _: None,
        lambda: 0.5,
        lambda: False,
        lambda *_: None,  # type: ignore[arg-type]
    )
    claimed, held = log.claim(after.id, 1, "two", due_by=FAR, due_at=FAR)
    driver = Driver(claimed, deps, Claim(held))
    while call := driver.next_call():
        driver.make(call)
    assert driver.row.state == State.COMPENSATED
    assert read.lines == LINES_CHECKED  # by the claim: whether they can be read
    assert max((len(value) for value in vars(driver).values() if isinstance(value, list)), default=0) < 10
    assert [line.seq for line in log.lines(after.id, after=after.context.lines)] == [
        after.context.lines + n for n in (1, 2, 3)
    ]


def test_a_follower_hears_of_a_long_saga_without_reading_or_keeping_its_log(log: SagaLog, read: Read) -> None:
    after = stalled(log, 3000, CHOREOGRAPHY)
    read.lines = 0
    observer = Observer(log, EndSignals(), lambda: NOW, lambda *_: None)
    observer.overdue(after)
    observer.replayed(after.id, 1, "saga.signup.A.done")
    assert read.lines == 0
    found = log.find(after.id)
    assert found
    assert found.context.lines == after.context.lines + 2
    assert [line.event for line in log.lines(after.id, after=after.context.lines)] == ["overdue", "replayed"]


def test_what_is_parked_is_shown_though_its_line_is_left_out(log: SagaLog, client: FlaskClient) -> None:
    after = stalled(log, 150, CHOREOGRAPHY)
    detail = {
        "subject": "saga.signup.B.undone",
        "message": "no such table",
        "letter": 7,
        "stored_at": "x",
        "service": "A",
    }
    lines = [Line(after.context.lines + 1, NOW, PARKED, "A", detail=detail)]
    lines += [Line(lines[0].seq + n, NOW, "released") for n in range(1, 301)]
    saga_, context = replay(after.definition, after.input, [*log.lines(after.id), *lines], after.results)
    log.advance(after.id, 1, replace(after, context=context).present, lines)
    assert saga_.state == after.state
    page = client.get(f"/ui/sagas/{after.id}").text
    assert "no such table" in page
    assert "lines of the log are left out here" in page
    assert ">Older</a>" in page


@pytest.mark.parametrize("size", [100_000, 3_000_000])
def test_a_page_of_sagas_is_bounded_in_bytes(log: SagaLog, client: FlaskClient, read: Read, size: int) -> None:
    text = "x" * size
    made = [begun(log, number, input={"username": text}, due_at=FAR) for number in range(1, 9)]
    for each in made:
        log.advance(each.id, 1, present(each), [Line(2, NOW, "action_done", "A")], {"A": {"a": text}})
    read.json_bytes = 0
    found, before, pages = [], "", 0
    while page := client.get(f"/sagas?before={before}").json["sagas"]:
        assert read.json_bytes < PAGE_BYTES + 1_000_000
        assert all(saga["input"]["username"] == saga["result"]["a"] == text for saga in page)
        found += [saga["saga_id"] for saga in page]
        before, pages, read.json_bytes = page[-1]["saga_id"], pages + 1, 0
    assert found == [each.id for each in reversed(made)]
    assert pages == (1 if size < 1_000_000 else 8)
    read.json_bytes = 0
    assert client.get("/").status_code == 200
    assert read.json_bytes < 100_000


def test_masking_the_lines_of_many_sagas_holds_the_inputs_of_a_few(
    log: SagaLog, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [begun(log, number, input={"username": f"u{number}"}, due_at=FAR) for number in range(1, 61)]
    read, find_many = list[int](), SagaLog.find_many

    def counted(self: SagaLog, saga_ids: Iterable[str], bare: bool = False) -> dict[str, Any]:
        ids = list(saga_ids)
        read.append(len(ids))
        return find_many(self, ids, bare)

    monkeypatch.setattr(SagaLog, "find_many", counted)
    lines = client.get("/logs?limit=500").json["lines"]
    assert [line["saga_id"] for line in lines] == [each.id for each in reversed(made)]
    assert sum(read) == 60 and max(read) == SAGAS_AT_ONCE


def test_a_saga_larger_than_a_page_is_a_page_of_its_own(log: SagaLog, client: FlaskClient) -> None:
    for number in (1, 2):
        begun(log, number, input={"username": "x" * (PAGE_BYTES // 2 + 100)}, due_at=FAR)
    huge = begun(log, 3, input={"username": "x" * (PAGE_BYTES + 100)}, due_at=FAR)
    assert [saga["saga_id"] for saga in client.get("/sagas").json["sagas"]] == [huge.id]
    assert len(client.get(f"/sagas?before={huge.id}").json["sagas"]) == 1


def test_a_write_holds_only_what_its_own_action_answered(log: SagaLog) -> None:
    """Twenty results of half a megabyte each: none of them is written a second time."""
    size, count = 500_000, 20
    steps = tuple(Step(f"S{n}", f"http://s{n}/do", f"http://s{n}/undo") for n in range(count))
    made = begun(log, definition=SagaDefinition("large", steps), due_at=NOW + 1000)
    sizes: list[int] = []
    submit: Callable[[Any], Any] = log._writes.submit

    def measured(write: Any) -> Any:
        sizes.append(write.size())
        return submit(write)

    log._writes.submit = measured  # type: ignore[method-assign]

    class Gives:
        def post(self, url: str, *_: Any) -> HttpAnswer:
            return HttpAnswer(1.0, 200, {}, json.dumps({url: "x" * size}).encode())

    deps = DriverDeps(
        log, Gives(), "one", lambda: NOW, lambda _: None, lambda: 0.5, lambda: False, lambda *_: None,  # type: ignore[arg-type]
        lease=1000,
    )  # fmt: skip
    driver = Driver(made, deps)
    while call := driver.next_call():
        driver.make(call)
    found = log.find(made.id)
    assert found
    assert found.state == State.COMPLETED
    assert found.results == {f"S{n}": {f"http://s{n}/do": "x" * size} for n in range(count)}
    assert len(sizes) == count
    assert max(sizes) < size + 20_000


def test_what_is_forgotten_leaves_no_results(log: SagaLog) -> None:
    made = begun(log, state=State.COMPLETED, ended_at=NOW - 1)
    log.advance(made.id, 1, present(made), [Line(2, NOW, "action_done", "A")], {"A": {"a": 1}})
    assert prune(log, NOW, 10) == 1
    assert log.begin(row(), [Line(1, NOW, STARTED)]) is None
    again = log.find(made.id)
    assert again
    assert again.results == {}
