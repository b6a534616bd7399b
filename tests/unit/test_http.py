"""Answers into events: every row of the two tables that read a status code."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from saga.http import Attempt, Outcome, Request, Verdict, call
from saga.transport import Answer, Failure

DONE, REFUSED, UNKNOWN = Verdict.DONE, Verdict.REFUSED, Verdict.UNKNOWN


def answer(status: int, body: bytes = b"{}", **headers: str) -> Answer:
    return Answer(1.0, status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


TIMEOUT = Answer(1.0, failure=Failure.TIMED_OUT, message="no answer within 5 s")
RESET = Answer(1.0, failure=Failure.BROKEN, message="the connection broke")
DOWN = Answer(1.0, failure=Failure.NOT_CONNECTED, message="no connection")


class Script:
    """A transport that gives these answers, the last one again and again."""

    def __init__(self, *answers: Answer):
        self.answers = list(answers)
        self.headers: list[Mapping[str, str]] = []

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        self.headers.append(headers)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def made(*answers: Answer, **request: object) -> tuple[Outcome, Script]:
    script = Script(*answers)
    asked = Request("http://x", {}, b"{}", **request)  # type: ignore[arg-type]
    outcome = call(asked, script, sleep=lambda _: None, random=lambda: 0.0)  # type: ignore[arg-type]
    return outcome, script


@pytest.mark.parametrize(
    ("given", "verdict", "attempts", "kind"),
    [
        (answer(200, b'{"id": 1}'), DONE, 1, None),
        (answer(201), DONE, 1, None),
        (answer(400), REFUSED, 1, "refused"),
        (answer(404), REFUSED, 1, "refused"),
        (answer(409), REFUSED, 1, "refused"),
        (answer(422), REFUSED, 1, "refused"),
        (answer(425), REFUSED, 3, "refused"),
        (answer(429), REFUSED, 3, "refused"),
        (answer(503, retry_after="1"), REFUSED, 3, "failed"),
        (answer(503), UNKNOWN, 3, "failed"),
        (DOWN, REFUSED, 3, "failed"),
        (answer(500, saga_effect="none"), REFUSED, 3, "failed"),
        (answer(500, saga_effect="None"), REFUSED, 3, "failed"),
        (answer(500), UNKNOWN, 3, "failed"),
        (answer(502), UNKNOWN, 3, "failed"),
        (answer(408), UNKNOWN, 3, "refused"),
        (TIMEOUT, UNKNOWN, 3, "timeout"),
        (RESET, UNKNOWN, 3, "failed"),
        (answer(200, b"<html>"), UNKNOWN, 3, "failed"),
        (answer(200, b"[]"), UNKNOWN, 3, "failed"),
        (answer(200, b""), UNKNOWN, 3, "failed"),
        (answer(302), UNKNOWN, 3, "failed"),
    ],
)
def test_every_answer_has_its_event(given: Answer, verdict: Verdict, attempts: int, kind: str | None) -> None:
    outcome, script = made(given)
    assert (outcome.verdict, len(script.headers), outcome.kind) == (verdict, attempts, kind)


@pytest.mark.parametrize(
    ("answers", "verdict", "kind"),
    [
        ([TIMEOUT, answer(409)], UNKNOWN, "refused"),  # many services answer 409 to what they did before
        ([answer(500), answer(400)], UNKNOWN, "refused"),
        ([TIMEOUT, DOWN], UNKNOWN, "timeout"),
        ([TIMEOUT, answer(500, saga_effect="none")], UNKNOWN, "timeout"),
        ([DOWN, answer(409)], REFUSED, "refused"),
        ([DOWN, answer(500, saga_effect="none"), answer(429)], REFUSED, "refused"),
        ([TIMEOUT, answer(200)], DONE, None),
        ([DOWN, DOWN, answer(200)], DONE, None),
    ],
)
def test_refused_is_only_what_every_attempt_certainly_did_not_do(
    answers: list[Answer], verdict: Verdict, kind: str | None
) -> None:
    outcome, _ = made(*answers)
    assert (outcome.verdict, outcome.kind) == (verdict, kind)


def test_a_call_repeated_after_a_crash_counts_as_having_had_an_unknown_attempt() -> None:
    assert made(answer(409), uncertain_before=True)[0].verdict is UNKNOWN
    assert made(DOWN, uncertain_before=True)[0].verdict is UNKNOWN
    assert made(answer(200), uncertain_before=True)[0].verdict is DONE


@pytest.mark.parametrize(
    ("answers", "verdict"),
    [
        ([answer(200)], DONE),
        ([answer(409)], REFUSED),
        ([TIMEOUT, answer(409)], REFUSED),  # whatever came before it
        ([answer(404)], UNKNOWN),
        ([answer(400)], UNKNOWN),
        ([DOWN], UNKNOWN),
        ([answer(500, saga_effect="none")], UNKNOWN),
        ([answer(429)], UNKNOWN),
        ([TIMEOUT], UNKNOWN),
    ],
)
def test_while_sealing_only_a_409_says_committed(answers: list[Answer], verdict: Verdict) -> None:
    assert made(*answers, sealing=True, uncertain_before=True)[0].verdict is verdict


def test_attempts_are_numbered_over_rounds_and_told_to_the_participant() -> None:
    _, script = made(answer(500), first_attempt=4, retries=1)
    assert [headers["Saga-Attempt"] for headers in script.headers] == ["4", "5"]


def test_the_hooks_run_around_every_attempt() -> None:
    seen: list[object] = []

    def before(number: int) -> None:
        seen.append(number)

    def after(attempt: Attempt, will_retry: bool) -> None:
        seen.append((attempt.verdict, will_retry))

    call(
        Request("http://x", {}, b"{}"),
        Script(RESET, answer(200)),  # type: ignore[arg-type]
        sleep=lambda _: seen.append("wait"),
        random=lambda: 0.0,
        before_attempt=before,
        after_attempt=after,
    )
    assert seen == [1, (UNKNOWN, True), "wait", 2, (DONE, False)]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (answer(409, b'{"error": "no stock"}'), "no stock"),
        (answer(409, b'{"error": {"code": 7}}'), '{"code": 7}'),
        (answer(409, b"nope"), "HTTP 409"),
        (answer(200, b"nope"), "HTTP 200 with a body that is not a JSON object"),
        (TIMEOUT, "no answer within 5 s"),
        (answer(500, b'{"error": "' + b"x" * 9999 + b'"}'), "x" * 500),
    ],
)
def test_the_message_says_what_happened(given: Answer, message: str) -> None:
    assert made(given)[0].message == message
