"""The participant contract, on SQLite and on MySQL: every cell of its table, in turn and at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import Column, Engine, String, event, func, select
from sqlalchemy.exc import OperationalError

from saga.barrier import saga_barrier
from saga.database import connect, create_tables
from saga.participant import Participant, Refused, Transaction, business_table, load_settings
from tests.conftest import Database

things = business_table("TABLE_A", Column("username", String(255), nullable=False))
SCHEMA = {"type": "object", "required": ["username"], "properties": {"username": {"type": "string", "maxLength": 255}}}


class Service:
    """Service A's table behind the kit, with functions that can be told to misbehave."""

    def __init__(self, url: str, **environ: str):
        self.settings = load_settings({"SERVICE_A_DB_URL": url, "FAULT_HOLD_SECONDS": "0.3", **environ})
        self.engine: Engine = connect(url)
        create_tables(self.engine, things.metadata)
        self.ran: list[str] = []
        self.instead: dict[str, Callable[[], Any]] = {}  # what a function does besides, by its name
        self.exits: list[int] = []
        self.app: Flask = Participant("A", things, self.action, self.compensation, SCHEMA).create_app(
            self.settings, exit=self.exit
        )

    def action(self, tx: Transaction, fields: Any) -> dict[str, Any]:
        self.ran.append("action")
        made = tx.execute(things.insert().values(saga_id=tx.saga_id, username=fields["username"]))
        self.instead.get("action", lambda: None)()
        return {"user_id": made.inserted_primary_key[0]}

    def compensation(self, tx: Transaction, fields: Any) -> None:
        self.ran.append("compensation")
        tx.execute(things.delete().where(things.c.saga_id == tx.saga_id))
        self.instead.get("compensation", lambda: None)()

    def exit(self, code: int) -> None:
        self.exits.append(code)
        raise SystemExit(code)

    def post(self, call: str, saga: str = "s1", body: Any = None, headers: Any = None, query: str = "") -> Any:
        sent = {"Saga-Id": saga, "Saga-Step": "A", **(headers or {})}
        client = self.app.test_client()
        return client.post(f"/{call}{query}", json={"username": "ada"} if body is None else body, headers=sent)

    def rows(self) -> int:
        with self.engine.begin() as connection:
            return int(connection.execute(select(func.count()).select_from(things)).scalar_one())

    def state(self, saga: str = "s1") -> str | None:
        with self.engine.begin() as connection:
            query = select(saga_barrier.c.state).where(saga_barrier.c.saga_id == saga)
            return connection.execute(query).scalar_one_or_none()


@pytest.fixture
def service(database: Database) -> Service:
    return Service(database("service_a"))


def refuse() -> None:
    raise Refused("no stock")


def fail() -> None:
    raise RuntimeError("a bug of the service's")


def test_an_action_runs_once_and_its_answer_is_saved(service: Service) -> None:
    """Pitfall 1."""
    first, again = service.post("invoke"), service.post("invoke")
    assert first.status_code == again.status_code == 200
    assert first.json == again.json
    assert (service.ran, service.rows(), service.state()) == (["action"], 1, "applied")


def test_a_refusal_is_remembered_and_leaves_nothing(service: Service) -> None:
    service.instead["action"] = refuse
    first = service.post("invoke")
    del service.instead["action"]
    again = service.post("invoke")
    assert (first.status_code, first.json) == (409, {"error": "no stock"})
    assert (again.status_code, again.json) == (409, {"error": "no stock"})
    assert (service.ran, service.rows(), service.state()) == (["action"], 0, "refused")


def test_a_compensation_that_comes_between_a_refusal_and_its_record_wins(service: Service) -> None:
    """A refused action is rolled back first and recorded after: in between somebody may seal it."""

    def sealed_meanwhile() -> None:
        raise SealedMeanwhile

    class SealedMeanwhile(Refused):
        def __str__(self) -> str:  # told when the refusal is recorded: the roll-back is over by then
            if service.state() is None:
                service.post("compensate")
            return "no stock"

    service.instead["action"] = sealed_meanwhile
    late = service.post("invoke")
    assert late.status_code == 409
    assert "too late" in late.json["error"]
    assert service.state() == "sealed"


def test_a_compensation_undoes_once_and_its_answer_is_saved(service: Service) -> None:
    """Pitfall 9."""
    service.post("invoke")
    service.post("invoke", saga="s2")
    first, again = service.post("compensate"), service.post("compensate")
    assert first.status_code == again.status_code == 200
    assert first.json == again.json == {"undone": True}
    assert service.ran.count("compensation") == 1
    assert (service.rows(), service.state(), service.state("s2")) == (1, "compensated", "applied")


def test_a_compensation_with_nothing_to_undo_seals(service: Service) -> None:
    """Pitfall 6: it never reaches the business's function, so it cannot harm another's row."""
    assert service.post("compensate").status_code == 200
    assert service.post("compensate").json == {"undone": False}
    assert (service.ran, service.state()) == ([], "sealed")


@pytest.mark.parametrize("before", [[], ["invoke"]])
def test_an_action_after_its_compensation_does_nothing(service: Service, before: list[str]) -> None:
    """Pitfall 21."""
    for call in [*before, "compensate"]:
        service.post(call)
    ran = list(service.ran)
    for body in ({"username": "ada"}, {"username": "eve"}):
        assert service.post("invoke", body=body).status_code == 409
    assert (service.ran, service.rows()) == (ran, 0)


def test_the_compensation_of_a_refused_action_seals(service: Service) -> None:
    service.instead["action"] = refuse
    service.post("invoke")
    assert service.post("compensate").status_code == 200
    assert service.state() == "sealed"
    assert "compensation" not in service.ran


def test_a_compensation_that_refuses_leaves_the_action_applied(service: Service) -> None:
    """A pivot that has committed."""
    service.post("invoke")
    service.instead["compensation"] = refuse
    refused = service.post("compensate")
    assert (refused.status_code, refused.json) == (409, {"error": "no stock"})
    assert (service.rows(), service.state()) == (1, "applied")
    assert service.post("invoke").status_code == 200


@pytest.mark.parametrize("outcome", ["applied", "refused"])
def test_the_same_key_with_another_body_is_422(service: Service, outcome: str) -> None:
    if outcome == "refused":
        service.instead["action"] = refuse
    service.post("invoke")
    assert service.post("invoke", body={"username": "eve"}).status_code == 422
    assert service.state() == outcome


def test_a_compensation_is_compared_with_an_earlier_compensation_only(service: Service) -> None:
    service.post("invoke")
    assert service.post("compensate", body={}).status_code == 200
    assert service.post("compensate", body={}).status_code == 200
    assert service.post("compensate", body={"username": "ada"}).status_code == 422


def test_equal_json_values_are_the_same_body(service: Service) -> None:
    assert service.post("invoke", body={"username": "ada", "n": 1}).status_code == 200
    assert service.post("invoke", body={"n": 1.0, "username": "ada"}).status_code == 200


@pytest.mark.parametrize("call", ["invoke", "compensate"])
def test_a_failure_before_the_commit_says_that_nothing_was_changed(service: Service, call: str) -> None:
    """Pitfall 12: nothing is left in progress, so the next call runs."""
    if call == "compensate":
        service.post("invoke")
    before = service.rows(), service.state()
    service.instead = {"action": fail, "compensation": fail}
    failed = service.post(call)
    assert (failed.status_code, failed.headers["Saga-Effect"]) == (500, "none")
    assert "bug" not in failed.text
    assert (service.rows(), service.state()) == before
    service.instead = {}
    assert service.post(call).status_code == 200


def test_a_failed_commit_says_nothing_about_its_effect(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(connection: Any) -> None:
        raise OperationalError("COMMIT", {}, Exception("the connection is gone"))

    engine = service.app.view_functions["invoke"].__self__.engine  # type: ignore[attr-defined]
    event.listen(engine, "commit", broken)
    try:
        failed = service.post("invoke")
    finally:
        event.remove(engine, "commit", broken)
    assert failed.status_code == 500
    assert "Saga-Effect" not in failed.headers


@pytest.mark.parametrize("duplicates", [16])
@pytest.mark.parametrize("calls", [["invoke"], ["compensate"], ["invoke", "compensate"]])
def test_concurrent_duplicates_take_effect_at_most_once(service: Service, duplicates: int, calls: list[str]) -> None:
    together = threading.Barrier(duplicates)

    def call(number: int) -> tuple[str, int, Any]:
        name = calls[number % len(calls)]
        together.wait(10)
        answer = service.post(name)
        return name, answer.status_code, answer.json

    with ThreadPoolExecutor(duplicates) as pool:
        answers = list(pool.map(call, range(duplicates)))
    for name in calls:
        own = [(code, body) for called, code, body in answers if called == name]
        if name == "compensate" or len(calls) == 1:
            assert [code for code, _ in own] == [200] * len(own)
            assert all(body == own[0][1] for _, body in own)
        else:
            assert {code for code, _ in own} <= {200, 409}
    assert service.rows() == (1 if calls == ["invoke"] else 0)
    committed = service.state()
    assert committed in {"invoke": ["applied"], "compensate": ["sealed", "compensated"]}[calls[-1]]
    if committed != "sealed" or calls == ["compensate"]:  # a deadlock's victim runs again, so count what it left
        assert (committed == "compensated") == ("compensation" in service.ran)


def test_a_duplicate_waits_for_the_one_that_runs_and_gets_its_answer(service: Service) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        inside.set()
        assert go_on.wait(10)

    service.instead["action"] = hold
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(service.post, "invoke")
        assert inside.wait(10)
        second = pool.submit(service.post, "invoke")
        go_on.set()
        assert first.result().json == second.result().json
    assert service.ran == ["action"]


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


@pytest.mark.parametrize(("flag", "rows"), [("crash", 0), ("crash-after", 1)])
def test_a_crash_before_or_after_the_commit_leaves_no_half(service: Service, flag: str, rows: int) -> None:
    """Pitfall 12."""
    with pytest.raises(SystemExit):
        service.post("invoke", query=f"?fail={flag}")
    assert (service.exits, service.rows()) == ([17], rows)
    assert service.post("invoke").status_code == 200
    assert service.rows() == 1


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


def test_records_show_the_rows_and_the_barrier_of_a_saga(service: Service) -> None:
    service.post("invoke")
    service.post("invoke", saga="s2")
    shown = service.app.test_client().get("/records/s1").json
    assert [row["username"] for row in shown["records"]] == ["ada"]
    assert [row["state"] for row in shown["barrier"]] == ["applied"]
    latest = service.app.test_client().get("/records?limit=1").json
    assert [row["saga_id"] for row in latest["records"]] == ["s2"]
    assert service.app.test_client().get("/records?limit=0").status_code == 400
    assert service.app.test_client().get("/records/x' OR '1'='1").json["records"] == []  # pitfall 29


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
