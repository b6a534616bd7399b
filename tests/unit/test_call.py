"""From answers to outcomes: every row of the participant contract's table, and what several attempts say together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.call import (
    LOCATION_CHARACTERS_AT_MOST,
    MESSAGE_CHARACTERS_AT_MOST,
    Attempt,
    CallRequest,
    Outcome,
    Verdict,
    authorization,
    classify_attempt,
    make_call,
)
from saga.errors import LeaseLost
from saga.http_client.transport import Failure, HttpAnswer

DONE, REFUSED, UNKNOWN = Verdict.DONE, Verdict.REFUSED, Verdict.UNKNOWN


def said(status: int, body: Any = None, **headers: str) -> HttpAnswer:
    content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    return HttpAnswer(1.0, status, {name.replace("_", "-"): value for name, value in headers.items()}, content)


OK = said(200, {"user_id": 7})
NO = said(409, {"error": "no"})
UNDONE = said(500, saga_effect="none")  # a failure that certainly changed nothing
BROKE = said(500)
GONE = HttpAnswer(1.0, failure=Failure.NOT_CONNECTED, message="no connection to b:5002: Connection refused")
LATE = HttpAnswer(5000.0, failure=Failure.TIMED_OUT, message="no answer within 5 s")
NOT_IN_TIME = HttpAnswer(5000.0, failure=Failure.NOT_CONNECTED, message="no connection to b:5002 within 5 s")
RESET = HttpAnswer(1.0, failure=Failure.BROKEN, message="the connection broke: Connection reset by peer")


class Participant:
    """A transport that plays a script of answers, the last one for ever, and keeps what was asked."""

    def __init__(self, *answers: HttpAnswer):
        self.answers = list(answers)
        self.asked: list[tuple[str, Mapping[str, str], bytes, float]] = []

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
        self.asked.append((url, headers, body, timeout))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def call(self, request: CallRequest | None = None, **hooks: Any) -> Outcome:
        given_request = request or CallRequest("http://b/invoke", {"Saga-Id": "s"}, b"{}")
        return make_call(given_request, self, sleep=lambda seconds: None, random=lambda: 0.5, **hooks)  # type: ignore[arg-type]


def outcome(*answers: HttpAnswer, **request: Any) -> Outcome:
    return Participant(*answers).call(replace(CallRequest("http://b/invoke", {}, b"{}"), **request))


TABLE = {
    # 2xx with a JSON object
    "200 with a JSON object": (said(200, {"user_id": 7}), DONE, False),
    "200 with an empty JSON object": (said(200, {}), DONE, False),
    "201 with a JSON object": (said(201, {"user_id": 7}), DONE, False),
    # 204, an empty result
    "204": (said(204, b""), DONE, False),
    # 4xx, except below
    "400": (said(400), REFUSED, False),
    "401": (said(401), REFUSED, False),
    "404": (said(404), REFUSED, False),
    "409": (NO, REFUSED, False),
    "409 that is no JSON": (said(409, b"<html>"), REFUSED, False),
    "422": (said(422), REFUSED, False),
    "499": (said(499), REFUSED, False),
    # 425, 429, 503 with Retry-After; refused connection; any 5xx with Saga-Effect: none
    "425": (said(425), REFUSED, True),
    "429": (said(429), REFUSED, True),
    "429 with Retry-After": (said(429, retry_after="1"), REFUSED, True),
    "503 with Retry-After": (said(503, retry_after="1"), REFUSED, True),
    "503 with Retry-After as a date": (said(503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT"), REFUSED, True),
    "503 with an empty Retry-After": (said(503, retry_after=""), REFUSED, True),
    "503 with a Retry-After that says nothing": (said(503, retry_after="soon"), REFUSED, True),
    "no connection": (GONE, REFUSED, True),
    "no connection within the time-out": (NOT_IN_TIME, REFUSED, True),
    "500 with Saga-Effect: none": (UNDONE, REFUSED, True),
    "503 with Saga-Effect: none": (said(503, saga_effect="none"), REFUSED, True),
    "599 with Saga-Effect: none, otherwise written": (said(599, saga_effect=" None "), REFUSED, True),
    # other 5xx, 408, time-out, reset, 2xx that is not a JSON object
    "500": (BROKE, UNKNOWN, True),
    "500 with Retry-After": (said(500, retry_after="1"), UNKNOWN, True),
    "500 with another Saga-Effect": (said(500, saga_effect="none, some"), UNKNOWN, True),
    "502": (said(502), UNKNOWN, True),
    "503 without Retry-After": (said(503), UNKNOWN, True),
    "504": (said(504), UNKNOWN, True),
    "408": (said(408), UNKNOWN, True),
    "408 with Saga-Effect: none": (said(408, saga_effect="none"), UNKNOWN, True),
    "time-out": (LATE, UNKNOWN, True),
    "reset": (RESET, UNKNOWN, True),
    "200 that is no JSON": (said(200, b"OK"), UNKNOWN, True),
    "200 with an empty body": (said(200, b""), UNKNOWN, True),
    "200 with a JSON array": (said(200, []), UNKNOWN, True),
    "200 with null": (said(200, b"null"), UNKNOWN, True),
    "200 with NaN": (said(200, b'{"user_id": NaN}'), UNKNOWN, True),
    "200 that is not UTF-8": (said(200, b'{"a": "\xff"}'), UNKNOWN, True),
    "200 nested without end": (said(200, b'{"a":' + b"[" * 100_000), UNKNOWN, True),
    "202 with a JSON object": (said(202, {"user_id": 7}), UNKNOWN, True),
    "202 with Location": (said(202, {}, location="/jobs/1"), UNKNOWN, True),
    "203 that is no JSON": (said(203, b"OK"), UNKNOWN, True),
    # neither: a proxy or something that is no participant answered
    "100": (said(100), UNKNOWN, True),
    "103": (said(103), UNKNOWN, True),
    "301": (said(301), UNKNOWN, True),
    "304": (said(304), UNKNOWN, True),
    "307": (said(307, {"user_id": 7}, location="http://elsewhere/"), UNKNOWN, True),
    "600": (said(600, saga_effect="none"), UNKNOWN, True),
}


def too_large(status: int) -> HttpAnswer:
    return HttpAnswer(1.0, status, {"saga-effect": "none"}, failure=Failure.TOO_LARGE, message="HTTP 200 … too large")


TABLE |= {f"{status} over 1 MiB": (too_large(status), UNKNOWN, True) for status in (200, 204, 400, 409, 429, 500)}


@pytest.mark.parametrize(("answer", "verdict", "retried"), TABLE.values(), ids=TABLE.keys())
def test_each_row_of_the_table_of_answers(answer: HttpAnswer, verdict: Verdict, retried: bool) -> None:
    """Pitfall 7: only a 2xx with a JSON object counts as done, a compensation's 500 never."""
    participant = Participant(answer)
    assert participant.call().verdict is verdict
    assert len(participant.asked) == (3 if retried else 1)


def test_done_carries_the_result_and_no_error() -> None:
    assert outcome(OK) == Outcome(DONE, {"user_id": 7}, 200, None, None)


def test_a_failure_that_a_retry_mends_is_done() -> None:
    assert outcome(BROKE, LATE, OK).verdict is DONE


def test_one_call_makes_one_attempt_and_two_retries_by_default() -> None:
    """Pitfall 2: a retry does not hide a fault for ever, so an injected one comes to light."""
    participant = Participant(BROKE, BROKE, BROKE, OK)
    assert participant.call().verdict is UNKNOWN
    assert len(participant.asked) == 3


def test_every_attempt_sends_the_same_request_and_its_own_number() -> None:
    participant = Participant(LATE)
    participant.call(
        CallRequest("http://b/invoke", {"Saga-Id": "s"}, b'{"a": 1}', timeout=2.5, retries=1, first_attempt=4)
    )
    assert participant.asked == [
        ("http://b/invoke", {"Saga-Id": "s", "Saga-Attempt": "4"}, b'{"a": 1}', 2.5),
        ("http://b/invoke", {"Saga-Id": "s", "Saga-Attempt": "5"}, b'{"a": 1}', 2.5),
    ]


# Several attempts together: refused only where every one of them certainly changed nothing.


@pytest.mark.parametrize("uncertain", [BROKE, LATE, RESET, said(200, b"OK")], ids=["500", "late", "reset", "garbage"])
@pytest.mark.parametrize("last", [NO, UNDONE, GONE], ids=["409", "Saga-Effect: none", "no connection"])
def test_a_refusal_after_an_uncertain_attempt_is_unknown(uncertain: HttpAnswer, last: HttpAnswer) -> None:
    """Pitfalls 4 and 5: what may have committed before it failed or timed out is not left out of the compensation."""
    assert outcome(uncertain, last).verdict is UNKNOWN


def test_failures_that_all_changed_nothing_are_a_refusal() -> None:
    assert outcome(GONE, UNDONE, said(503, retry_after="0")).verdict is REFUSED


def test_a_refusal_after_failures_that_changed_nothing_is_a_refusal() -> None:
    assert outcome(GONE, UNDONE, NO).verdict is REFUSED


def test_204_is_done_with_an_empty_result() -> None:
    assert outcome(said(204, b"")) == Outcome(DONE, {}, 204, None, None)


@pytest.mark.parametrize("answer", [NO, UNDONE, GONE])
def test_a_refusal_of_a_call_that_was_uncertain_before_is_unknown(answer: HttpAnswer) -> None:
    """Pitfall 11: a call that is repeated after a crash may have had its effect before it."""
    assert outcome(answer, uncertain_before=True).verdict is UNKNOWN


def test_a_call_that_was_uncertain_before_can_still_be_done() -> None:
    assert outcome(OK, uncertain_before=True).verdict is DONE


@given(st.lists(st.sampled_from(list(TABLE.values())), min_size=3, max_size=3), st.booleans())
def test_refused_exactly_when_every_attempt_changed_nothing(
    rows: list[tuple[HttpAnswer, Verdict, bool]], before: bool
) -> None:
    participant = Participant(*(answer for answer, _, _ in rows))
    verdict = participant.call(CallRequest("http://b/invoke", {}, b"{}", uncertain_before=before)).verdict
    made = [verdict for _, verdict, _ in rows[: len(participant.asked)]]
    assert (verdict is DONE) == (made[-1] is DONE)
    assert (verdict is REFUSED) == (not before and all(one is REFUSED for one in made))


# Sealing: a pivot's compensation asks whether it has committed, and only a 409 says that it has.


@pytest.mark.parametrize("earlier", [(), (BROKE,), (LATE, RESET), (GONE, UNDONE)])
@pytest.mark.parametrize("before", [False, True])
def test_while_sealing_a_409_says_committed_whatever_came_before_it(
    earlier: tuple[HttpAnswer, ...], before: bool
) -> None:
    """Pitfall 24: a pivot whose outcome was unknown is asked, not compensated around."""
    assert outcome(*earlier, NO, sealing=True, uncertain_before=before).verdict is REFUSED


REFUSALS = {name: answer for name, (answer, verdict, _) in TABLE.items() if verdict is REFUSED and answer.status != 409}


@pytest.mark.parametrize("answer", REFUSALS.values(), ids=REFUSALS.keys())
def test_while_sealing_nothing_but_a_409_says_committed(answer: HttpAnswer) -> None:
    assert outcome(answer, sealing=True).verdict is UNKNOWN


@pytest.mark.parametrize("before", [False, True])
def test_while_sealing_a_200_says_sealed_and_a_time_out_says_nothing(before: bool) -> None:
    assert outcome(OK, sealing=True, uncertain_before=before).verdict is DONE
    assert outcome(LATE, OK, sealing=True, uncertain_before=before).verdict is DONE
    assert outcome(LATE, sealing=True, uncertain_before=before).verdict is UNKNOWN


def test_while_sealing_a_409_ends_the_call() -> None:
    participant = Participant(NO, OK)
    assert participant.call(CallRequest("http://c/compensate", {}, b"{}", sealing=True)).verdict is REFUSED
    assert len(participant.asked) == 1


def test_while_sealing_a_409_that_is_too_large_says_nothing() -> None:
    assert outcome(too_large(409), sealing=True).verdict is UNKNOWN


# error.kind says what the caller may believe (DESIGN, section 5).


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ([NO], "refused"),
        ([said(400)], "refused"),
        ([UNDONE, GONE, NO], "refused"),
        ([LATE, NO], "timeout"),
        ([BROKE, NO], "failed"),
        ([RESET, said(400)], "failed"),
        ([said(429)], "failed"),
        ([said(425)], "failed"),
        ([said(503, retry_after="1")], "failed"),
        ([said(429), said(429), NO], "refused"),
        ([said(408)], "timeout"),
        ([said(408), BROKE], "timeout"),
        ([said(408), NO], "timeout"),
        ([LATE], "timeout"),
        ([LATE, BROKE, BROKE], "timeout"),
        ([BROKE, LATE, GONE], "timeout"),
        ([GONE], "failed"),
        ([NOT_IN_TIME], "failed"),
        ([BROKE], "failed"),
        ([UNDONE], "failed"),
        ([RESET], "failed"),
        ([said(302)], "failed"),
        ([said(504)], "failed"),
        ([said(200, b"OK")], "failed"),
        ([said(202, {})], "failed"),
        ([too_large(409)], "failed"),
    ],
)
def test_the_kind_of_error(answers: list[HttpAnswer], kind: str) -> None:
    found = outcome(*answers)
    assert (found.kind, found.status_code, found.result) == (kind, answers[-1].status, None)


def test_a_409_of_a_call_that_was_uncertain_before_has_failed() -> None:
    assert outcome(NO, uncertain_before=True).kind == "failed"


@given(
    st.lists(st.sampled_from(list(TABLE.values())), min_size=3, max_size=3),
    st.booleans(),
    st.booleans(),
)
def test_the_kind_of_any_three_attempts(
    rows: list[tuple[HttpAnswer, Verdict, bool]], before: bool, sealing: bool
) -> None:
    """`refused` only where each attempt certainly changed nothing and the last one is a 4xx that says no for good."""
    participant = Participant(*(answer for answer, _, _ in rows))
    request = CallRequest("http://b/invoke", {}, b"{}", uncertain_before=before, sealing=sealing)
    found, made = participant.call(request), rows[: len(participant.asked)]
    if found.verdict is DONE:
        assert found.kind is None
        return
    status = made[-1][0].status or 0
    says_no = 400 <= status < 500 and status not in (408, 425, 429) and made[-1][1] is REFUSED
    certain = not before and all(verdict is REFUSED for _, verdict, _ in made)
    timed_out = any(answer.failure is Failure.TIMED_OUT or answer.status == 408 for answer, _, _ in made)
    refused = status == 409 and says_no if sealing else says_no and certain
    assert found.kind == ("refused" if refused else "timeout" if timed_out else "failed")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (said(409, {"error": "the card was declined"}), "the card was declined"),
        (said(500, {"error": {"code": 7}}), '{"code": 7}'),
        (said(409, {"error": "x" * 10_000}), "x" * MESSAGE_CHARACTERS_AT_MOST),
        (said(409, {"error": ""}), "HTTP 409"),
        (said(409, {"reason": "?"}), "HTTP 409"),
        (said(409, ["error"]), "HTTP 409"),
        (said(502, b"<html>bad gateway</html>"), "HTTP 502"),
        (said(200, b"OK"), "HTTP 200 with a body that is not a JSON object"),
        (
            said(202, {}),
            "HTTP 202: it says that it will be done later, and a step that takes that long is not supported yet",
        ),
        (too_large(409), "HTTP 200 … too large"),
        (said(302), "HTTP 302"),
        (said(302, location="http://b/other"), "HTTP 302 to http://b/other, and redirects are not followed"),
        (said(307, location="/login?token=x#y"), "HTTP 307 to /login?***, and redirects are not followed"),
        (said(301, location="http://u:secret@b/x"), "HTTP 301 to http://***@b/x, and redirects are not followed"),
        (said(301, location="//u:secret@b/x"), "HTTP 301 to //***@b/x, and redirects are not followed"),
        (said(301, location="http://u:se/cret@b/x"), "HTTP 301 to http://***@b/x, and redirects are not followed"),
        (
            said(301, location="http://b/\x9b\t\x1b"),
            "HTTP 301 to http://b/\ufffd\ufffd, and redirects are not followed",
        ),
        (said(301, location="http://[b"), "HTTP 301 to a Location that is no URL, and redirects are not followed"),
        (
            said(308, location="/" + "x" * 1000),
            f"HTTP 308 to /{'x' * (LOCATION_CHARACTERS_AT_MOST - 2)}…, and redirects are not followed",
        ),
        (LATE, "no answer within 5 s"),
        (NOT_IN_TIME, "no connection to b:5002 within 5 s"),
        (GONE, "no connection to b:5002: Connection refused"),
        (RESET, "the connection broke: Connection reset by peer"),
    ],
)
def test_the_message_is_the_participants_own_or_says_what_happened(answer: HttpAnswer, message: str) -> None:
    assert outcome(answer).message == message


# What the driver hears, and how it stops a call.


def test_the_driver_hears_of_every_attempt_before_and_after_it() -> None:
    heard: list[object] = []
    Participant(BROKE, OK).call(
        before_attempt=lambda number: heard.append(number),
        after_attempt=lambda attempt, will_retry: heard.append((attempt.number, str(attempt.verdict), will_retry)),
    )
    assert heard == [1, (1, "unknown", True), 2, (2, "done", False)]


def test_each_attempt_is_judged_for_itself() -> None:
    heard: list[Attempt] = []
    Participant(LATE, NO).call(after_attempt=lambda attempt, will_retry: heard.append(attempt))
    assert heard == [
        Attempt(1, UNKNOWN, True, None, 5000.0, "no answer within 5 s", timed_out=True),
        Attempt(2, REFUSED, False, 409, 1.0, "no"),
    ]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_lost_lease_stops_the_call_before_its_next_attempt(number: int) -> None:
    """Pitfall 22: a paused driver that wakes up makes no further attempt."""
    participant = Participant(LATE)

    def before(attempt: int) -> None:
        if attempt == number:
            raise LeaseLost("s")

    with pytest.raises(LeaseLost):
        participant.call(before_attempt=before)
    assert len(participant.asked) == number - 1


NOW = 784111770.0  # Sun, 06 Nov 1994 08:49:30 GMT


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("2", 2.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("3600", 3600.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 7.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 7.0),
        ("Sun Nov  6 08:49:37 1994", 7.0),
        ("Sun, 06 Nov 1994 08:49:20 GMT", 0.0),
        ("Sun, 32 Nov 1994 08:49:37 GMT", None),
        ("", None),
        ("soon", None),
        ("2, 2", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_any_of_the_three_dates(header: str, seconds: float | None) -> None:
    assert classify_attempt(said(503, retry_after=header), 1, lambda: NOW).retry_after == seconds


def test_a_retry_after_that_is_a_date_is_waited_for() -> None:
    waited: list[float] = []
    request = CallRequest("http://b/invoke", {}, b"{}", retries=2)
    dates = [said(429, retry_after=f"Sun, 06 Nov 1994 08:{minute} GMT") for minute in ("49:33", "59:00")]
    make_call(request, Participant(*dates, OK), sleep=waited.append, random=lambda: 0.5, clock=lambda: NOW)  # type: ignore[arg-type]
    assert waited == [3.0, 5.0]


def test_no_retry_after_asks_for_nothing() -> None:
    assert classify_attempt(BROKE, 1).retry_after is None


@pytest.mark.parametrize(
    ("url", "token", "headers"),
    [
        ("http://b/invoke", None, {}),
        ("http://b/invoke", "t", {"Authorization": "Bearer t"}),
        ("http://b/invoke?to=a@b", "t", {"Authorization": "Bearer t"}),
        ("http://u:p@b/invoke", "t", {}),
        ("http://u@b/invoke", None, {}),
        ("http://u:p@[b/invoke", "t", {}),
    ],
)
def test_the_token_is_not_shown_where_the_url_brings_its_own(
    url: str, token: str | None, headers: dict[str, str]
) -> None:
    assert authorization(url, token) == headers
