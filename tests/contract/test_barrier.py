"""The barrier, on SQLite and on MySQL: every cell of its table in turn and at once, and failures around the COMMIT."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from saga import barrier
from saga.errors import Refused
from tests.conftest import Database
from tests.support.service import Service, deadlock, fail, refuse


@pytest.fixture(params=["0", "1"], ids=["batches", "plain"])
def service(database: Database, request: pytest.FixtureRequest) -> Service:
    return Service(database("service_a"), SAGA_PLAIN=request.param)


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


@pytest.mark.parametrize("call", ["invoke", "compensate"])
@pytest.mark.parametrize("took_effect", [True, False])
@pytest.mark.parametrize("of_the_driver", [True, False])
def test_a_commit_in_doubt_says_nothing_about_its_effect_and_may_be_sent_again(
    service: Service, monkeypatch: pytest.MonkeyPatch, call: str, took_effect: bool, of_the_driver: bool
) -> None:
    """Pitfall 1: the answer to the COMMIT was lost, so the caller asks again, and it still happens once."""
    if call == "compensate":
        service.post("invoke")
    dialect = service.own_engine.dialect
    commit = dialect.do_commit

    def lose_the_answer(connection: Any) -> None:
        if took_effect:
            commit(connection)
        error = dialect.loaded_dbapi.OperationalError if of_the_driver else OSError
        raise error("the connection is gone")

    monkeypatch.setattr(dialect, "do_commit", lose_the_answer)
    failed = service.post(call)
    monkeypatch.undo()
    assert failed.status_code == 500
    assert "Saga-Effect" not in failed.headers
    assert service.post(call).status_code == 200
    assert service.ran.count("action" if call == "invoke" else "compensation") == (1 if took_effect else 2)
    assert service.rows() == (1 if call == "invoke" else 0)


@pytest.mark.parametrize("call", ["invoke", "compensate"])
def test_the_victim_of_deadlocks_is_run_again(service: Service, call: str) -> None:
    if call == "compensate":
        service.post("invoke")
    deadlocks = iter([deadlock] * 6)
    service.instead = dict.fromkeys(("action", "compensation"), lambda: next(deadlocks, lambda: None)())
    assert service.post(call).status_code == 200
    assert service.rows() == (1 if call == "invoke" else 0)
    assert service.ran.count("action" if call == "invoke" else "compensation") == 7


def test_one_who_never_gets_the_lock_is_told_that_nothing_was_changed(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(barrier, "LOCK_TRIES_SECONDS", 0)
    service.instead["action"] = deadlock
    failed = service.post("invoke")
    assert (failed.status_code, failed.headers["Saga-Effect"]) == (500, "none")
    assert (service.ran, service.rows(), service.state()) == (["action"], 0, None)


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


CALLS_BEFORE = {
    "no row": (),
    "applied": ("invoke",),
    "refused": ("refused invoke",),
    "compensated": ("invoke", "compensate"),
    "sealed": ("compensate",),
}


@pytest.mark.parametrize("duplicates", [1, 16])
@pytest.mark.parametrize(
    ("before", "call", "code", "after"),
    [
        ("no row", "invoke", 200, "applied"),
        ("no row", "refused invoke", 409, "refused"),
        ("applied", "invoke", 200, "applied"),
        ("refused", "invoke", 409, "refused"),
        ("compensated", "invoke", 409, "compensated"),
        ("sealed", "invoke", 409, "sealed"),
        ("no row", "compensate", 200, "sealed"),
        ("applied", "compensate", 200, "compensated"),
        ("applied", "refused compensate", 409, "applied"),
        ("refused", "compensate", 200, "sealed"),
        ("compensated", "compensate", 200, "compensated"),
        ("sealed", "compensate", 200, "sealed"),
    ],
)
def test_each_cell_of_the_table_however_many_ask_at_once(
    service: Service, before: str, call: str, code: int, after: str, duplicates: int
) -> None:
    """Pitfalls 1, 9 and 21: all of them get the one answer."""
    for earlier in CALLS_BEFORE[before]:
        make(service, earlier)
    together = threading.Barrier(duplicates)

    def one(_: int) -> tuple[int, Any]:
        together.wait(10)
        return make(service, call)

    with ThreadPoolExecutor(duplicates) as pool:
        answers = list(pool.map(one, range(duplicates)))
    assert [said for said, _ in answers] == [code] * duplicates
    assert all(body == answers[0][1] for _, body in answers)
    assert (service.state(), service.rows()) == (after, 1 if after == "applied" else 0)


def make(service: Service, call: str) -> tuple[int, Any]:
    """Make a call; a "refused" one is refused by the business, where it gets that far."""
    refused, _, name = call.rpartition(" ")
    service.instead = {"action": refuse, "compensation": refuse} if refused else {}
    answer = service.post(name)
    return answer.status_code, answer.json


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


@pytest.mark.parametrize(("flag", "rows"), [("crash", 0), ("crash-after", 1)])
def test_a_crash_before_or_after_the_commit_leaves_no_half(service: Service, flag: str, rows: int) -> None:
    """Pitfall 12."""
    with pytest.raises(SystemExit):
        service.post("invoke", query=f"?fail={flag}")
    assert (service.exits, service.rows()) == ([17], rows)
    assert service.post("invoke").status_code == 200
    assert service.rows() == 1


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
