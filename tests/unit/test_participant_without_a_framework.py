"""The participant contract as data: what a kit for another web framework stands on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from saga.barrier import Barrier, saga_barrier
from saga.errors import BadInput
from saga.local_transaction import LocalTransactions
from saga.participant import CallHeaders, Endpoints, ParticipantDefinition, ParticipantRequest
from saga.storage.database import connect, create_tables
from service_a.app import service

FIELDS = b'{"username": "ada"}'
NOW = 1_700_000_000.0


@pytest.fixture
def make_endpoints(tmp_path: Path) -> Callable[..., Endpoints]:
    def make(token: str | None = None) -> Endpoints:
        engine = connect(f"sqlite:///{tmp_path}/a.db")
        create_tables(engine, service.table.metadata)
        create_tables(engine, saga_barrier.metadata)
        barrier = Barrier(engine, clock=lambda: NOW)
        described = ParticipantDefinition("A", service.table, service.action, service.compensation, service.schema)
        return Endpoints(described, LocalTransactions(barrier, service.action, service.compensation), token)

    return make


def asked(body: bytes = FIELDS, **headers: str) -> ParticipantRequest:
    named: Mapping[str, str] = {name.replace("_", "-"): value for name, value in headers.items()}
    return ParticipantRequest(named, (), body)


def test_a_call_is_answered_by_status_text_and_headers(make_endpoints: Callable[..., Endpoints]) -> None:
    endpoints = make_endpoints()
    done = endpoints.invoke(asked(Saga_Id="s1"))
    assert (done.status, done.text, done.headers) == (200, '{"user_id":1}', {"Saga-Id": "s1"})
    undone = endpoints.compensate(asked(b"", Saga_Id="s1"))
    assert (undone.status, json.loads(undone.text)) == (200, {"undone": True})
    late = endpoints.invoke(asked(Saga_Id="s1"))
    assert (late.status, late.headers) == (409, {"Saga-Id": "s1"})


def test_the_barriers_clock_is_passed_in(make_endpoints: Callable[..., Endpoints]) -> None:
    endpoints = make_endpoints()
    endpoints.invoke(asked(Saga_Id="s1"))
    row = json.loads(endpoints.records("s1").text)["barrier"][0]
    assert row["created_at"].startswith("2023-11-14T22:13:20")


def test_an_error_is_an_answer_that_names_the_field_and_the_saga(make_endpoints: Callable[..., Endpoints]) -> None:
    wrong = make_endpoints().invoke(asked(b"{}", Saga_Id="s1"))
    assert (wrong.status, json.loads(wrong.text)["field"], wrong.headers) == (400, "username", {"Saga-Id": "s1"})


def test_a_token_is_wanted_everywhere_but_where_the_process_is_watched(
    make_endpoints: Callable[..., Endpoints],
) -> None:
    endpoints = make_endpoints(token="sesame")
    refused = endpoints.check_token("/invoke", "Bearer sesam")
    assert refused is not None
    assert (refused.status, refused.headers) == (401, {"WWW-Authenticate": "Bearer"})
    assert endpoints.check_token("/invoke", "Bearer sesame") is None
    assert endpoints.check_token("/readyz", "") is None


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        ({"Saga-Id": ""}, "Saga-Id"),
        ({"Saga-Id": "é"}, "Saga-Id"),
        ({"Saga-Step": "1 step"}, "Saga-Step"),
        ({"Saga-Attempt": "0"}, "Saga-Attempt"),
    ],
)
def test_a_wrong_header_is_named(headers: dict[str, Any], named: str) -> None:
    with pytest.raises(BadInput) as caught:
        CallHeaders.read(headers, "A")
    assert caught.value.field == named


def test_without_headers_a_call_is_the_first_attempt_of_the_services_own_step_in_a_saga_of_its_own() -> None:
    call, another = CallHeaders.read({}, "A"), CallHeaders.read({}, "A")
    assert (call.step, call.attempt, call.dry_run, call.anonymous) == ("A", 1, False, True)
    assert call.saga_id != another.saga_id
