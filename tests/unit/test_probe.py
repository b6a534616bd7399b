"""POST /test_status: one call that is undone again, and none where that cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from orchestrator.probe import probe
from saga.definition import SagaDefinition, Step
from saga.errors import Conflict
from saga.http_client.transport import Failure, HttpAnswer

OK = HttpAnswer(1.0, 200, {}, b'{"x_id": 7}')


class Service:
    """Answers what it is told, by path, and keeps what it was sent."""

    def __init__(self, **answers: HttpAnswer):
        self.answers = answers
        self.sent: list[tuple[str, Mapping[str, str]]] = []

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
        self.sent.append((url, headers))
        return self.answers.get(url.rpartition("/")[2], OK)

    @property
    def paths(self) -> list[str]:
        return [url.rpartition("/")[2] for url, _ in self.sent]


def step(name: str, **changes: Any) -> Step:
    return Step(name, **{"action": f"http://{name}/do", "compensation": f"http://{name}/undo", **changes})


def tried(step_: Step, service: Service, *others: Step, token: str | None = None) -> dict[str, Any]:
    return probe(SagaDefinition("s", (*others, step_)), step_, service, token)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        ([step("A", compensation=None)], "A has no compensation"),
        ([step("A", compensation=None, pivot=True)], "A is a pivot without a compensation"),
        ([step("P", pivot=True), step("A")], "A comes after the pivot"),
        ([step("P", pivot=True), step("A", compensation=None)], "A has no compensation"),
    ],
)
def test_what_cannot_be_undone_is_refused_with_the_reason_and_nobody_is_called(there: list[Step], reason: str) -> None:
    service = Service()
    with pytest.raises(Conflict, match=reason):
        tried(there[-1], service, *there[:-1])
    assert service.sent == []


def test_a_step_is_called_once_and_undone_with_the_contracts_headers() -> None:
    service = Service()
    assert tried(step("A"), service, token="t") == {"status_code": 200, "answer": {"x_id": 7}}
    assert service.paths == ["do", "undo"]
    (_, do), (_, undo) = service.sent
    assert do["Saga-Id"] == undo["Saga-Id"]
    assert do["Idempotency-Key"] == f"{do['Saga-Id']}:A:action"
    assert (do["Saga-Attempt"], do["Authorization"]) == ("1", "Bearer t")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (HttpAnswer(1.0, failure=Failure.TIMED_OUT, message="no answer within 5 s"), "no answer within 5 s"),
        (
            HttpAnswer(1.0, failure=Failure.NOT_CONNECTED, message="no connection to A:80: x"),
            "no connection to A:80: x",
        ),
    ],
)
def test_a_call_that_is_not_answered_is_undone_too(answer: HttpAnswer, said: str) -> None:
    service = Service(do=answer)
    assert tried(step("A"), service) == {"status_code": None, "answer": {"error": said}}
    assert service.paths == ["do", "undo"]


def test_an_undo_that_fails_is_tried_three_times() -> None:
    service = Service(undo=HttpAnswer(1.0, 500))
    tried(step("A"), service)
    assert service.paths == ["do", "undo", "undo", "undo"]


def test_a_redirect_and_what_is_no_json_are_shown_as_they_are() -> None:
    assert tried(step("A"), Service(do=HttpAnswer(1.0, 302, {"location": "/x"}, b"moved"))) == {
        "status_code": 302,
        "answer": "moved",
    }


def test_a_pivot_is_sealed_before_it_is_tried_dry() -> None:
    service = Service()
    tried(step("P", pivot=True), service, step("A"))
    assert service.paths == ["undo", "do"]
    assert service.sent[1][1]["Saga-Dry-Run"] == "true"


def test_a_pivot_that_cannot_be_sealed_is_not_called() -> None:
    service = Service(undo=HttpAnswer(1.0, 409, {}, b'{"error": "no"}'))
    assert tried(step("P", pivot=True), service) == {"status_code": 409, "answer": {"error": "no"}}
    assert service.paths == ["undo"]
