"""Numbers, depth and idempotency keys over the whole way, from the client to a participant and back; two databases."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from sqlalchemy import Column, String
from werkzeug.serving import make_server

from orchestrator.app import create_app
from orchestrator.bootstrap import bootstrap
from saga.kits.flask import Participant, Refused, Transaction, business_table, load_settings
from tests.conftest import Database

AMOUNT = "12345678901234567890.123"
SAGAS = """
name: {name}
{input}
steps:
  - name: A
    action: ${{SERVICE_A_URL}}/invoke
    compensation: ${{SERVICE_A_URL}}/compensate
    send: [username, amount, want]
    retries: 0
  - name: B
    action: ${{SERVICE_A_URL}}/invoke
    compensation: ${{SERVICE_A_URL}}/compensate
    send: [username, amount, got]{hasty}
"""
HASTY = "\n    timeout: 0.4\n    retries: 0"
things = business_table("TABLE_A", Column("username", String(255), nullable=False))


class Stack:
    """An orchestrator in this process, and one participant behind HTTP; `returns` is what its action gives."""

    def __init__(self, database: Database, tmp_path: Path):
        self.seen: list[tuple[str, Any]] = []
        self.returns: Callable[[Any], Any] = lambda fields: {"got": fields.get("amount")}
        service = Participant("A", things, self._act, self._undo, {"type": "object"})
        sagas = tmp_path / "sagas"
        sagas.mkdir()
        schemas = {"pay": "input: {properties: {amount: {minimum: 0}}}", "other": "input: {required: [other]}"}
        for name in ("pay", "other", "third", "hasty"):
            text = SAGAS.format(name=name, input=schemas.get(name, ""), hasty=HASTY if name == "hasty" else "")
            (sagas / f"{name}.yaml").write_text(text)
        environ = {"SERVICE_A_DB_URL": database("service_a"), "SAGA_LOG_URL": database("orchestrator")}
        environ |= {
            "SAGAS_DIR": str(sagas),
            "NATS_URL": "off",
            "STALL_BASE_SECONDS": "0.05",
            "STALL_MAX_SECONDS": "0.1",
        }
        self.participant = service.create_app(load_settings(environ))
        self._server = make_server("127.0.0.1", 0, self.participant, threaded=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        environ["SERVICE_A_URL"] = f"http://127.0.0.1:{self._server.port}"
        settings = load_settings(environ)
        self.app: Flask = create_app(settings, bootstrap(settings))

    def _act(self, tx: Transaction, fields: Any) -> Any:
        self.seen.append(("action", fields))
        tx.execute(things.insert(), {"saga_id": tx.saga_id, "username": "ada"})
        return self.returns(fields)

    def _undo(self, tx: Transaction, fields: Any) -> None:
        self.seen.append(("compensation", fields))
        tx.execute(things.delete().where(things.c.saga_id == tx.saga_id))

    def start(self, body: str, key: str | None = None, query: str = "saga=pay") -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.app.test_client().post(f"/start?{query}", data=body, headers=headers)

    def get(self, path: str) -> str:
        return self.app.test_client().get(path).get_data(as_text=True)

    def rows(self, saga_id: str) -> int:
        found = self.participant.test_client().get(f"/records/{saga_id}").json
        return len(found["records"]) if found else 0

    def close(self) -> None:
        self.app.close()  # type: ignore[attr-defined]
        self._server.shutdown()


@pytest.fixture
def stack(database: Database, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(database, tmp_path)
    yield made
    made.close()


def exact(text: str) -> Any:
    return json.loads(text, parse_float=str, parse_int=str)


NUMBERS = [AMOUNT, "0.1", "1E5", "123456789012345678901234567890", "1e23", "0.30000000000000000001"]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_keeps_its_value_from_the_client_to_the_log_and_back(stack: Stack, number: str) -> None:
    answer = stack.start(f'{{"username": "ada", "amount": {number}}}')
    assert answer.status_code == 200, answer.text
    saga_id = answer.json["saga_id"]
    assert {Decimal(str(fields["amount"])) for _, fields in stack.seen} == {Decimal(number)}
    later = stack.get(f"/sagas/{saga_id}")
    for told in (answer.text, later):
        shown = exact(told)
        assert Decimal(shown["input"]["amount"]) == Decimal(shown["result"]["got"]) == Decimal(number)
    assert Decimal(exact(stack.get("/sagas?limit=1"))["sagas"][0]["result"]["got"]) == Decimal(number)
    assert number not in (AMOUNT,) or number in stack.get(f"/ui/sagas/{saga_id}")


def test_a_number_that_cannot_be_kept_is_400_with_its_field_and_starts_nothing(stack: Stack) -> None:
    for number in ("1e400", "1e-400", "9" * 5000, "-1"):
        answer = stack.start(f'{{"amount": {number}}}')
        assert (answer.status_code, answer.json["field"]) == (400, "amount")
    twice = stack.start('{"username": "a", "username": "b"}')
    assert (twice.status_code, twice.json["field"]) == (400, "username")
    assert exact(stack.get("/sagas"))["sagas"] == []


def test_a_service_may_return_a_decimal_an_id_and_a_date(stack: Stack) -> None:
    stack.returns = lambda fields: {"got": Decimal("19.90"), "more": Decimal(AMOUNT), "id": UUID(int=1)}
    answer = stack.start('{"username": "ada"}')
    shown = exact(answer.text)
    assert answer.status_code == 200
    assert shown["result"] == {"got": "19.9", "more": AMOUNT, "id": str(UUID(int=1))}
    assert stack.seen[1][1]["got"] == 19.9


@pytest.mark.parametrize(
    ("result", "named"),
    [({"a": {1}}, "a: set is not JSON"), ({"a": [b""]}, "a[0]: bytes"), ({"a": 1e999}, "a:")],
)
def test_what_a_service_cannot_say_is_rolled_back_and_named(stack: Stack, result: Any, named: str) -> None:
    stack.returns = lambda fields: result
    answer = stack.start('{"username": "ada"}')
    assert (answer.status_code, answer.json["error"]["kind"]) == (500, "failed")
    assert named in answer.json["error"]["message"]
    assert answer.json["steps"][0]["effect"] == "none"
    assert stack.rows(answer.json["saga_id"]) == 0


def test_a_value_600_deep_is_refused_everywhere_and_harms_no_list(
    stack: Stack, capfd: pytest.CaptureFixture[str]
) -> None:
    deep = "[" * 600 + "]" * 600
    assert stack.start(f'{{"username": {deep}}}').status_code == 400
    stack.returns = lambda fields: {"got": json.loads(deep)}
    by_kit = stack.start('{"username": "ada"}')
    assert (by_kit.status_code, by_kit.json["steps"][0]["effect"]) == (500, "none")
    assert "nested too deeply" in by_kit.json["error"]["message"]
    saga_id = by_kit.json["saga_id"]
    client = stack.app.test_client()
    assert client.post(f"/sagas/{saga_id}/resolve", data=f'{{"note": "x", "more": {deep}}}').status_code == 400
    assert stack.participant.test_client().post("/invoke", data=f'{{"username": {deep}}}').status_code == 400
    for path in ("/", "/sagas", f"/sagas/{saga_id}", f"/sagas/{saga_id}/log", "/logs", f"/ui/sagas/{saga_id}"):
        assert client.get(path).status_code == 200
    assert "RecursionError" not in "".join(capfd.readouterr())


def test_an_answer_600_deep_is_unknown_and_undone_and_harms_no_list(
    stack: Stack, capfd: pytest.CaptureFixture[str]
) -> None:
    deep = b'{"got": ' + b"[" * 600 + b"]" * 600 + b"}"

    @stack.participant.after_request
    def answer_deep(response: Any) -> Any:
        if b'"deep"' in response.get_data():
            response.set_data(deep)
        return response

    stack.returns = lambda fields: {"got": "deep"}
    answer = stack.start('{"username": "ada"}')
    assert (answer.status_code, answer.json["status"], answer.json["error"]["kind"]) == (500, "COMPENSATED", "failed")
    assert "nested too deeply: 64 levels" in answer.json["error"]["message"]
    assert stack.rows(answer.json["saga_id"]) == 0
    for path in ("/", "/sagas", "/logs", f"/ui/sagas/{answer.json['saga_id']}"):
        assert stack.app.test_client().get(path).status_code == 200
    assert "RecursionError" not in "".join(capfd.readouterr())


def test_a_key_finds_its_saga_whatever_came_of_it(stack: Stack) -> None:
    def refuse(fields: Any) -> Any:
        raise Refused("no")

    first = stack.start('{"amount": 1, "username": "ada"}', "k")
    again = stack.start('{"username": "ada", "amount": 1.0}', "k")
    flagged = stack.start('{"username": "ada", "amount": 1e0}', "k", "saga=pay&fail=a&delay=a:1")
    assert first.status_code == again.status_code == flagged.status_code == 200
    assert first.json["saga_id"] == again.json["saga_id"] == flagged.json["saga_id"]
    stack.returns = refuse
    refused = stack.start('{"amount": 1}', "no")
    assert refused.status_code == stack.start('{"amount": 1}', "no").status_code == 409


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ('{"amount": 2}', "saga=pay"),
        ('{"amount": -1}', "saga=pay"),  # one that does not even fit
        ('{"amount": 12345678901234567890.124}', "saga=pay"),
        ('{"amount": 12345678901234567890.123}', "saga=other"),  # which wants another field
        ('{"amount": 12345678901234567890.123}', "saga=third"),
    ],
)
def test_a_key_with_another_body_or_saga_is_422(stack: Stack, body: str, query: str) -> None:
    assert stack.start(f'{{"amount": {AMOUNT}}}', "k").status_code == 200
    before = len(stack.seen)
    answer = stack.start(body, "k", query)
    assert (answer.status_code, len(stack.seen)) == (422, before)
    assert "'k'" in answer.json["error"]


def test_keys_are_compared_byte_by_byte(stack: Stack) -> None:
    keys = ["key", "KEY", "Key", "key.", "k ey", "k  ey", "!" * 255, "~" * 255, "a,b", '"key"']
    ids = {stack.start('{"amount": 1}', key).json["saga_id"] for key in keys}
    assert len(ids) == len(keys)


@pytest.mark.parametrize("key", ["", " ", " k", "k ", "\tk", "x" * 256, "k\x7f", "schlüssel"])
def test_a_key_that_is_none_is_400(stack: Stack, key: str) -> None:
    answer = stack.start('{"amount": 1}', key)
    assert (answer.status_code, answer.json["field"]) == (400, "Idempotency-Key")


def test_of_first_uses_at_once_with_two_bodies_one_starts_and_the_other_is_422(stack: Stack) -> None:
    for key in ("k1", "k2", "k3"):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda n: stack.start(f'{{"amount": {n % 2}}}', key), range(8)))  # noqa: B023
        assert sorted(answer.status_code for answer in answers) == [200] * 4 + [422] * 4
        assert len({answer.json["saga_id"] for answer in answers if answer.status_code == 200}) == 1


def test_a_delay_with_times_lets_the_next_attempt_through(stack: Stack) -> None:
    participant = stack.participant.test_client()
    for attempt in ("1", "2"):
        headers = {"Saga-Id": f"s{attempt}", "Saga-Attempt": attempt}
        stack.participant.extensions["saga"].closed.wait = stack.seen.append
        assert participant.post("/invoke?delay=8000:1", data="{}", headers=headers).status_code == 200
    assert [seen for seen in stack.seen if isinstance(seen, float)] == [8.0]
    assert participant.post("/invoke?delay=8000:0", data="{}").status_code == 400


def test_an_undo_that_is_delayed_beyond_its_time_out_once_stalls_and_then_succeeds(stack: Stack) -> None:
    """So is the action, whose outcome is unknown then; the step before it is undone as ever, and after it."""
    answer = stack.start('{"username": "ada"}', query="saga=hasty&delay=b:1200:1")
    assert (answer.status_code, answer.json["status"]) == (504, "COMPENSATED"), answer.text
    assert (answer.json["error"]["step"], answer.json["error"]["kind"]) == ("B", "timeout")
    saga_id = answer.json["saga_id"]
    lines = [(line["event"], line["step"]) for line in json.loads(stack.get(f"/sagas/{saga_id}/log"))["lines"]]
    events = [line for line in lines if line[0] != "attempt"]
    stalled, undone = events.index(("compensation_unknown", "B")), events.index(("compensation_done", "B"))
    assert events.index(("action_unknown", "B")) < stalled < undone < events.index(("compensation_done", "A"))
    assert "resumed" in [event for event, _ in events[stalled:undone]]
    assert stack.rows(saga_id) == 0
