"""The participant contract over HTTP, on SQLite and on MySQL: faults, bad input, records, and services A, B and C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from jsonschema import SchemaError
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import IntegrityError

import service_a.app
import service_b.app
import service_c.app
from saga.kits.flask import Participant, Settings, Transaction, load_settings
from saga.kits.metrics import OTHER_STEPS, STEPS_COUNTED_BY_NAME
from tests.conftest import Database
from tests.support.service import Service, fail, things


@pytest.fixture
def service(database: Database) -> Service:
    return Service(database("service_a"))


@pytest.mark.parametrize(
    ("flag", "code", "certain", "rows"),
    [
        ("before", 500, "none", 0),
        ("after", 500, None, 1),
        ("refuse", 409, None, 0),
        ("lost", 200, None, 1),
        ("late", 200, None, 1),
        ("garbage", 200, None, 1),
        ("undo", 200, None, 1),
    ],
)
def test_each_injected_fault_does_what_it_says(
    service: Service, flag: str, code: int, certain: str | None, rows: int
) -> None:
    answer = service.post("invoke", query=f"?fail={flag}")
    assert (answer.status_code, answer.headers.get("Saga-Effect"), service.rows()) == (code, certain, rows)
    assert (answer.get_json(silent=True) is None) == (flag == "garbage")


def test_undo_fails_the_first_compensations(service: Service) -> None:
    service.post("invoke")
    failed = service.post("compensate", query="?fail=undo:1", headers={"Saga-Attempt": "1"})
    assert (failed.status_code, service.rows()) == (500, 1)
    assert service.post("compensate", query="?fail=undo:1", headers={"Saga-Attempt": "2"}).status_code == 200
    assert service.rows() == 0


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"body": {}}, "username"),
        ({"body": {"username": 7}}, "username"),
        ({"body": []}, "object"),
        ({"headers": {"Saga-Id": ""}}, "Saga-Id"),
        ({"headers": {"Saga-Id": "x" * 256}}, "Saga-Id"),
        ({"headers": {"Saga-Step": "1 step"}}, "Saga-Step"),
        ({"headers": {"Saga-Attempt": "0"}}, "Saga-Attempt"),
        ({"query": "?fail=nope"}, "nope"),
        ({"query": "?delay=x"}, "delay"),
    ],
)
def test_bad_input_is_400_and_named(service: Service, arguments: dict[str, Any], named: str) -> None:
    answer = service.post("invoke", **arguments)
    assert answer.status_code == 400
    assert named in answer.json["error"]
    assert service.state() is None


def test_without_a_saga_id_the_service_makes_one_and_answers_with_it(service: Service) -> None:
    answer = service.app.test_client().post("/invoke", data='{"username": "test"}')
    assert answer.status_code == 200
    assert answer.json["saga_id"] == answer.headers["Saga-Id"]
    assert service.state(answer.json["saga_id"]) == "applied"


@pytest.mark.parametrize("flag", ["after", "garbage", "before"])
def test_a_failed_call_without_a_saga_id_still_names_the_saga(service: Service, flag: str) -> None:
    """Whoever made it by hand needs the id to compensate it."""
    client = service.app.test_client()
    answer = client.post(f"/invoke?fail={flag}", data='{"username": "test"}')
    undone = client.post("/compensate", headers={"Saga-Id": answer.headers["Saga-Id"]})
    assert (undone.status_code, service.rows()) == (200, 0)


def test_an_unexpected_failure_without_a_saga_id_still_names_the_saga(service: Service) -> None:
    service.instead["action"] = fail
    answer = service.app.test_client().post("/invoke", data='{"username": "test"}')
    assert answer.status_code == 500
    assert answer.headers["Saga-Id"]


def test_a_failure_after_the_commit_does_not_say_that_nothing_was_changed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail_to_count(*attempt: Any) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(service.app.extensions["saga"].transactions, "_count", fail_to_count)
    answer = service.post("invoke")
    assert (answer.status_code, service.rows()) == (500, 1)
    assert "Saga-Effect" not in answer.headers
    assert answer.json == {"error": "the service failed"}


def test_a_broken_rule_of_the_database_is_not_called_an_outage(service: Service) -> None:
    def duplicate() -> None:
        raise IntegrityError("INSERT", {}, Exception("Duplicate entry 'ada'"))

    service.instead["action"] = duplicate
    answer = service.post("invoke")
    assert (answer.status_code, answer.headers["Saga-Effect"]) == (500, "none")
    assert answer.json == {"error": "the service failed, and rolled back"}


@pytest.mark.parametrize("saga", ["a/b", "a//b", "a b", "~", "x" * 255])
def test_records_find_every_saga_id_that_an_action_takes(service: Service, saga: str) -> None:
    assert service.post("invoke", saga=saga).status_code == 200
    shown = service.app.test_client().get(f"/records/{saga}")
    assert [row["saga_id"] for row in shown.json["records"]] == [saga]


@pytest.mark.parametrize("saga", ["é", "x" * 256])
def test_records_of_what_is_no_saga_id_are_400(service: Service, saga: str) -> None:
    answer = service.app.test_client().get(f"/records/{saga}")
    assert answer.status_code == 400
    assert "saga id" in answer.json["error"]


def test_a_result_that_is_not_json_is_an_unexpected_failure_and_rolled_back(database: Database) -> None:
    settings = load_settings({"SERVICE_A_DB_URL": database("service_a"), "NATS_URL": "off"})

    def action(tx: Transaction, fields: Any) -> dict[str, float]:
        tx.execute(things.insert(), {"saga_id": tx.saga_id, "username": "ada"})
        return {"rate": float("nan")}

    client = Participant("A", things, action, lambda tx, fields: {}, {}).create_app(settings).test_client()
    answer = client.post("/invoke", json={}, headers={"Saga-Id": "s-1"})
    assert (answer.status_code, answer.headers["Saga-Effect"]) == (500, "none")
    assert client.get("/records/s-1").json == {"saga_id": "s-1", "records": [], "barrier": []}


def test_unknown_routes_and_methods_are_answered_in_json(service: Service) -> None:
    client = service.app.test_client()
    unknown, method = client.get("/nope"), client.get("/invoke")
    assert (unknown.status_code, method.status_code) == (404, 405)
    assert unknown.json["error"]
    assert method.json["error"]
    assert set(method.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}  # RFC 9110, section 15.5.6


def test_a_schema_that_is_no_json_schema_stops_the_service_at_its_start(database: Database) -> None:
    settings = load_settings({"SERVICE_A_DB_URL": database("service_a"), "NATS_URL": "off"})
    with pytest.raises(SchemaError, match="strnig"):
        Participant("A", things, lambda tx, fields: {}, lambda tx, fields: {}, {"type": "strnig"}).create_app(settings)


def test_a_service_needs_no_url_of_a_saga_and_no_right_file_beside_its_own(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A variable that only the orchestrator has is none of its business; a wrong file is named, and left out."""
    step = "steps: [{name: A, action: '${NOT_SET_HERE}/invoke', compensation: 'http://a:${NOR_THIS}/', send: [x]}]"
    (tmp_path / "right.yaml").write_text(f"name: right\n{step}\n")
    (tmp_path / "wrong.yaml").write_text(f"name: wrong\nsecret: ['${{NOT_SET_HERE}}']\n{step}\n")
    settings = {"SERVICE_A_DB_URL": database("service_a"), "NATS_URL": "nats://127.0.0.1:1", "SAGAS_DIR": str(tmp_path)}
    app = Participant("A", things, lambda tx, fields: {}, lambda tx, fields: {}, {}).create_app(load_settings(settings))
    listening = app.extensions["saga"].message_endpoint.broker._consuming.consumers
    assert [consumer.subjects for consumer in listening] == [["saga.right.started"]]
    assert "wrong.yaml:2: secret[0]: the environment variable NOT_SET_HERE is not set" in caplog.text
    app.close()  # type: ignore[attr-defined]


def test_a_dry_run_changes_nothing(service: Service) -> None:
    service.post("compensate")
    assert service.post("invoke", headers={"Saga-Dry-Run": "true"}).status_code == 200
    assert (service.rows(), service.state()) == (0, "sealed")


def test_a_body_over_one_mebibyte_is_413(service: Service) -> None:
    assert service.post("invoke", body={"username": "x" * (1 << 20)}).status_code == 413


def test_with_a_token_only_those_who_show_it_are_served(database: Database) -> None:
    service = Service(database("service_a"), SAGA_TOKEN="sesame")
    assert service.post("invoke").status_code == 401
    assert service.post("invoke", headers={"Authorization": "Bearer sesam"}).status_code == 401
    assert service.post("invoke", headers={"Authorization": "Bearer sesame"}).status_code == 200
    assert service.app.test_client().get("/records").status_code == 401
    assert service.app.test_client().get("/readyz").status_code == 200


def test_with_faults_off_a_flag_is_403(database: Database) -> None:
    service = Service(database("service_a"), FAULTS="off")
    assert service.post("invoke", query="?fail=before").status_code == 403
    assert service.post("compensate", query="?delay=1").status_code == 403
    assert service.post("invoke").status_code == 200


def counted(service: Service) -> dict[tuple[str, str, str], float]:
    """How many calls `GET /metrics` says that there were: (step, call, verdict)."""
    families = text_string_to_metric_families(service.app.test_client().get("/metrics").text)
    samples = [sample for family in families for sample in family.samples]
    return {
        (sample.labels["step"], sample.labels["call"], sample.labels["verdict"]): sample.value
        for sample in samples
        if sample.name == "saga_participant_calls_total"
    }


def test_calls_are_counted_by_how_they_were_dealt_with(service: Service) -> None:
    """Each once; what is no call, or wrong before it is one, is not counted."""
    for _ in range(3):
        service.post("invoke", saga="1")
    service.post("invoke", saga="1", body={"username": "another"})
    service.post("compensate", saga="1")
    service.post("compensate", saga="1")
    service.post("invoke", saga="1")
    service.post("invoke", saga="2", query="?fail=refuse")
    service.post("invoke", saga="2", query="?fail=refuse")
    service.post("compensate", saga="3")
    service.post("invoke", saga="4", query="?fail=before")
    service.post("invoke", saga="4", query="?fail=after")
    service.post("compensate", saga="4", query="?fail=undo")
    service.post("invoke", saga="5", body={"username": 7})
    service.post("invoke", saga="6", headers={"Saga-Dry-Run": "true"})
    assert counted(service) == {
        ("A", "action", "done"): 1,
        ("A", "action", "replayed"): 3,
        ("A", "action", "mismatch"): 1,
        ("A", "action", "conflict"): 1,
        ("A", "action", "refused"): 1,
        ("A", "action", "failed"): 2,
        ("A", "compensation", "done"): 1,
        ("A", "compensation", "replayed"): 1,
        ("A", "compensation", "sealed"): 1,
        ("A", "compensation", "failed"): 1,
    }


def test_names_that_a_caller_makes_up_do_not_fill_the_memory(service: Service) -> None:
    for number in range(2 * STEPS_COUNTED_BY_NAME):
        service.post("compensate", headers={"Saga-Step": f"step-{number}"})
    steps = {step: count for (step, _, _), count in counted(service).items()}
    assert len(steps) == STEPS_COUNTED_BY_NAME + 1
    assert steps[OTHER_STEPS] == STEPS_COUNTED_BY_NAME


def test_with_a_token_the_metrics_are_shown_to_those_who_show_it(database: Database) -> None:
    service = Service(database("service_a"), SAGA_TOKEN="sesame")
    client = service.app.test_client()
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer sesame"}).status_code == 200


SERVICES: dict[str, Callable[[Settings], Flask]] = {
    "a": service_a.app.create_app,
    "b": service_b.app.create_app,
    "c": service_c.app.create_app,
}
FULL = {
    "a": {"username": "Zoë 🎉"},
    "b": {"user_id": 7, "address": "1 Main St"},
    "c": {"user_id": 7, "payment": "4111 1111"},
}


def shipped(database: Database, letter: str) -> Any:
    """A client of service A, B or C."""
    url = database(f"service_{letter}")
    return SERVICES[letter](load_settings({f"SERVICE_{letter.upper()}_DB_URL": url, "NATS_URL": "off"})).test_client()


@pytest.mark.parametrize("letter", ["a", "b"])
def test_services_a_and_b_leave_their_table_as_it_was(database: Database, letter: str) -> None:
    """Pitfalls 6 and 17: only this saga's row goes, though another's holds the same values."""
    client = shipped(database, letter)
    for saga in ("kept", "undone"):
        assert client.post("/invoke", json=FULL[letter], headers={"Saga-Id": saga}).status_code == 200
    before = client.get("/records/kept").json
    assert client.post("/compensate", json=FULL[letter], headers={"Saga-Id": "undone"}).status_code == 200
    assert client.get("/records").json["records"] == before["records"]
    assert [{name: row[name] for name in FULL[letter]} for row in before["records"]] == [FULL[letter]]


def test_service_c_refuses_to_undo_a_payment_it_has_taken_and_seals_one_it_has_not(database: Database) -> None:
    """Pitfall 24."""
    client = shipped(database, "c")
    taken, sealed = {"Saga-Id": "taken"}, {"Saga-Id": "sealed"}
    assert client.post("/invoke", json=FULL["c"], headers=taken).status_code == 200
    assert client.post("/compensate", json=FULL["c"], headers=taken).status_code == 409
    assert client.post("/compensate", json=FULL["c"], headers=sealed).status_code == 200
    assert client.post("/invoke", json=FULL["c"], headers=sealed).status_code == 409
    assert [row["saga_id"] for row in client.get("/records").json["records"]] == ["taken"]


def test_service_c_shows_no_payment(database: Database) -> None:
    client = shipped(database, "c")
    client.post("/invoke", json=FULL["c"], headers={"Saga-Id": "s1"})
    for path in ("/records", "/records/s1"):
        shown = client.get(path)
        assert "4111" not in shown.text
        assert shown.json["records"][0]["payment"]
    refused = client.post("/invoke", json={"user_id": 7, "payment": 4111})
    assert (refused.status_code, refused.json["field"]) == (400, "payment")
    assert "4111" not in refused.text


@pytest.mark.parametrize(
    ("letter", "fields", "named"),
    [
        ("a", {}, "username"),
        ("a", {"username": ""}, "username"),
        ("a", {"username": "x" * 256}, "username"),
        ("b", {"address": "1 Main St"}, "user_id"),
        ("b", {"user_id": "7"}, "user_id"),
        ("b", {"user_id": 1 << 63}, "user_id"),
        ("b", {"user_id": 7, "address": 1}, "address"),
        ("c", {"payment": "4111"}, "user_id"),
        ("c", {"user_id": True}, "user_id"),
    ],
)
def test_each_service_names_the_field_that_is_wrong(
    database: Database, letter: str, fields: dict[str, Any], named: str
) -> None:
    client = shipped(database, letter)
    answer = client.post("/invoke", json=fields)
    assert (answer.status_code, answer.json["field"]) == (400, named)
    assert named in answer.json["error"]
    assert client.get("/records").json["records"] == []


@pytest.mark.parametrize("letter", ["b", "c"])
def test_an_address_and_a_payment_may_be_left_out(database: Database, letter: str) -> None:
    client = shipped(database, letter)
    assert client.post("/invoke", json={"user_id": 7}).status_code == 200
    assert client.get("/records").json["records"][0]["user_id"] == 7
