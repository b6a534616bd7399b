"""What every reader says of a saga that this version cannot decode, on SQLite and on MySQL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from unittest.mock import ANY
from urllib.parse import quote

import pytest
import requests
from sqlalchemy import Engine

from saga.runtime.log_lines import LogLines
from saga.saga_log import SagaLog
from saga.storage import log_tables
from saga.storage.database import connect, create_tables
from tests.conftest import databases, on_one_worker
from tests.support.stack import eventually
from tests.support.unreadable_rows import HEALTHY, INPUT, KINDS, PAIRS, Served, begun, kinds_of, raw, spoil


@dataclass
class Spoilt:
    """A log with a saga of every kind and healthy ones, and an orchestrator that was started on it."""

    served: Served
    engine: Engine
    ids: Mapping[str, str]  # by the kind's name
    before: Mapping[str, dict[str, Any]]  # their rows


@pytest.fixture(scope="module", params=on_one_worker("unreadable", "sqlite", "mysql"))
def spoilt(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spoilt]:
    url = databases(request, request.param, tmp_path_factory.mktemp("spoilt"))("orchestrator")
    engine = connect(url)
    create_tables(engine, log_tables.metadata)
    log, ids = SagaLog(engine), {}
    for number, (name, kind) in enumerate(kinds_of(request.param).items(), start=1):  # they are due before all others
        ids[name] = begun(log, number, idempotency_key=name)
        spoil(engine, kind, ids[name])
    before = {name: raw(engine, saga_id) for name, saga_id in ids.items()}
    for number in range(1000, 1000 + HEALTHY):
        begun(log, number)
    served = Served(url)
    yield Spoilt(served, engine, ids, before)
    served.close()
    engine.dispose()


def test_the_others_are_recovered_and_finish_beside_all_kinds_at_once(spoilt: Spoilt) -> None:
    served = spoilt.served
    assert eventually(lambda: served.completed() == HEALTHY, within=60)
    eventually(lambda: len(served.log.aside) == len(spoilt.ids), within=60)
    assert {name: raw(spoilt.engine, saga_id) for name, saga_id in spoilt.ids.items()} == spoilt.before
    assert f"saga_unreadable {len(spoilt.ids)}.0" in served.get("/metrics")
    found = served.get("/sagas?limit=500")["sagas"]
    assert len(found) == HEALTHY + len(spoilt.ids)
    assert len({tuple(each) for each in found}) == 1  # the same keys
    listed = served.get("/sagas?status=UNREADABLE&limit=500")["sagas"]
    assert {each["saga_id"] for each in listed} == set(spoilt.ids.values())
    assert served.get("/sagas?status=RUNNING")["sagas"] == []
    assert served.get("/audit") == {"checked": 0, "violations": [], "unreachable": ANY}
    assert len(served.get("/logs?limit=500")["lines"]) >= HEALTHY * 4
    last = LogLines(served.log).last_id()
    with requests.get(f"{served.url}/events", headers={"Last-Event-ID": "0"}, stream=True, timeout=60) as stream:
        assert any(told == f"id: {last}".encode() for told in stream.iter_lines(chunk_size=1))
    assert "UNREADABLE" in served.get("/?status=UNREADABLE")
    assert f"unreadable {len(spoilt.ids)}" in served.get("/")
    assert "UNREADABLE" in served.get("/?attention=1")
    assert served.cli("list", "--limit", "500").count("  UNREADABLE ") == len(spoilt.ids)


@pytest.mark.parametrize(
    ("spoilt", "name"),
    [pytest.param(*pair, marks=pytest.mark.xdist_group(f"unreadable {pair[0]}")) for pair in PAIRS],
    indirect=["spoilt"],
)
def test_every_reader_says_of_it_what_it_is(spoilt: Spoilt, name: str) -> None:
    served, kind, bad = spoilt.served, KINDS[name], spoilt.ids[name]
    assert eventually(lambda: served.get(f"/sagas/{bad}")["status"] == "UNREADABLE", within=60)
    shown = served.get(f"/sagas/{bad}")
    assert shown["error"] == {"step": None, "kind": "unreadable", "status_code": None, "message": ANY}
    assert kind.says in shown["error"]["message"]
    assert shown["needs_attention"] is True
    assert "4111" not in json.dumps(shown)
    assert served.get(f"/sagas?q={quote(name)}")["sagas"] == [shown]
    lines = served.get(f"/sagas/{bad}/log")["lines"]
    assert lines[0]["event"] == "started"
    assert [line["detail"] for line in lines[1:]] == [
        {"unreadable": shown["error"]["message"].removeprefix("line 2: ")}
    ] * kind.says.startswith("line 2")
    assert "cannot read it" in served.get(f"/ui/sagas/{bad}")
    assert "UNREADABLE" in served.cli("show", bad)
    exported = served.cli("export-row", bad)
    assert json.loads(exported)["row"]["id"] == bad
    assert "4111" not in exported

    again = served.post("/start", json=INPUT, headers={"Idempotency-Key": name})
    assert (again.status_code, again.json()) == (202, shown)
    for verb in ("cancel", "resume"):
        refused = served.post(f"/sagas/{bad}/{verb}")
        assert refused.status_code == 409, refused.text
        assert kind.says in refused.json()["error"]
    assert raw(spoilt.engine, bad) == spoilt.before[name]

    unsaid = served.post(f"/sagas/{bad}/resolve", json={"note": "seen to"})
    assert (unsaid.status_code, unsaid.json()["field"]) == (400, "outcome")
    said = {"note": "seen to", "outcome": "compensated"}
    resolved = served.post(f"/sagas/{bad}/resolve", json=said)
    assert resolved.status_code == 202, resolved.text
    assert resolved.json()["needs_attention"] is False
    after = raw(spoilt.engine, bad)
    assert (after["state"], after["owner"], after["due_at"]) == ("compensated", None, None)
    assert after["ended_at"]
    assert served.get(f"/sagas/{bad}/log")["lines"][-1]["event"] == "resolved"
    assert served.post(f"/sagas/{bad}/resolve", json=said).status_code == 409
    assert served.post("/start", json=INPUT, headers={"Idempotency-Key": name}).json()["saga_id"] == bad
