"""What is kept of an attempt's request and response: nothing secret, and no more than 4 KiB of each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.call import Attempt, CallRequest, Exchange, Verdict
from saga.http_client.transport import Failure, HttpAnswer
from saga.views.masked_exchange import KEPT_AT_MOST, Kept, masked_exchange
from tests.support.builders import a_saga_row

CARD = "4242 4242 4242 4242"
ROW = a_saga_row(input={"username": "ada", "payment": CARD}, results={})
FAILED = Attempt(1, Verdict.UNKNOWN, True, 500, 3.0)


def kept(
    answer: HttpAnswer | None = None,
    body: bytes = b"{}",
    headers: Mapping[str, str] | None = None,
    url: str = "http://c",
) -> tuple[Kept, Kept]:
    request = CallRequest(url, headers or {}, body)
    return masked_exchange(ROW, Exchange(3, request, FAILED, answer or HttpAnswer(3.0, 500)))


def answer(body: bytes, **headers: str) -> HttpAnswer:
    return HttpAnswer(3.0, 500, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def body_of(answered: bytes) -> Any:
    return kept(answer(answered))[1]["body"]


def test_a_request_and_its_response_are_kept_as_they_were() -> None:
    sent, received = kept(answer(b'{"error": "no"}', retry_after="3"), b'{"user_id": 7}', {"Saga-Step": "C"})
    assert sent == {
        "method": "POST", "url": "http://c", "headers": {"Saga-Step": "C", "Saga-Attempt": "1"},
        "body": '{"user_id": 7}', "bytes": 14, "cut": False,
    }  # fmt: skip
    assert received == {
        "status": 500, "headers": {"retry-after": "3"}, "body": '{"error": "no"}', "bytes": 15, "cut": False,
        "failure": None, "message": None,
    }  # fmt: skip


def test_an_attempt_without_an_answer_says_why() -> None:
    _, received = kept(HttpAnswer(5000.0, failure=Failure.TIMED_OUT, message="no answer within 5 s"))
    assert (received["status"], received["failure"], received["message"], received["body"]) == (
        None, "timed out", "no answer within 5 s", "",
    )  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["Authorization", "cookie", "Set-Cookie", "Proxy-Authorization", "X-Api-Key", "X-Auth-Token", "x-amz-signature"],
)
def test_a_header_that_holds_credentials_is_masked_wherever_its_value_is_repeated(name: str) -> None:
    sent, received = kept(
        answer(b'{"you_sent": "s3cr3t", "all": "Bearer s3cr3t"}', echo="s3cr3t"), headers={name: "Bearer s3cr3t"}
    )
    assert sent["headers"][name] == "***"
    assert "s3cr3t" not in json.dumps([sent, received])


def test_the_idempotency_key_is_shown() -> None:
    assert kept(headers={"Idempotency-Key": "0193:C:action"})[0]["headers"]["Idempotency-Key"] == "0193:C:action"


@pytest.mark.parametrize(
    "body",
    [
        b'{"payment": "1111", "deep": [{"payment": {"number": 5}}]}',
        b'["4242 4242 4242 4242"]',
        b'{"error": "card 4242 4242 4242 4242 was declined"}',
        b"<html>card 4242 4242 4242 4242 was declined</html>",
        b"user=7&payment=1111&x=1",
        b"payment=4242+4242+4242+4242&x=1",
        b"4242%204242%204242%204242",
        b'{"payment": "1111", broken',
        b"{'payment': '1111'}",
        b"<payment>1111</payment>",
        b"payment: 1111\nnext: 2",
    ],
)
def test_a_secret_field_and_every_text_that_repeats_it_are_masked(body: bytes) -> None:
    shown = body_of(body)
    assert "***" in shown
    assert "1111" not in shown
    assert "5}" not in shown
    assert "4242" not in shown


def test_a_secret_that_only_the_answer_knows_is_masked_where_the_answer_repeats_it() -> None:
    assert body_of(b'{"payment": "tok_99887", "note": "made tok_99887"}') == '{"payment": "***", "note": "made ***"}'


def test_a_short_secret_is_masked_where_it_stands_alone() -> None:
    assert (
        body_of(b'{"payment": "12", "note": "12 of 3123", "n": 12}')
        == '{"payment": "***", "note": "*** of 3123", "n": ***}'
    )


def test_a_password_in_the_address_is_masked_also_where_it_is_repeated_as_authorization() -> None:
    sent, received = kept(answer(b'{"got": "Basic dTpwYXNzd29yZA=="}'), url="http://u:password@c/invoke?payment=1111")
    assert sent["url"] == "http://***@c/invoke?payment=***"
    assert received["body"] == '{"got": "***"}'


def test_a_long_body_is_cut_after_it_was_masked() -> None:
    before = b"x" * (KEPT_AT_MOST - 12)  # the secret would be cut in its middle
    _, received = kept(answer(before + CARD.encode() + b"y" * 9000))
    assert (received["cut"], received["bytes"]) == (True, KEPT_AT_MOST - 12 + len(CARD) + 9000)
    assert len(received["body"].encode()) <= KEPT_AT_MOST
    assert "4242" not in received["body"]
    assert "***" in received["body"]


def test_what_is_no_text_is_not_kept() -> None:
    assert body_of(b"\x00\x01\x02") is None


def test_headers_are_kept_up_to_the_same_limit() -> None:
    headers = kept(HttpAnswer(1.0, 500, {f"x-{number}": "v" * 100 for number in range(100)}))[1]["headers"]
    assert sum(len(name) + len(value) for name, value in headers.items()) < KEPT_AT_MOST + 50
    assert headers["…"].endswith("more, left out")


@given(st.binary(max_size=200), st.text(max_size=50))
def test_any_body_and_header_can_be_stored_without_the_secret(body: bytes, header: str) -> None:
    made = kept(answer(body + CARD.encode() + body, x=header), body + CARD.encode())
    assert CARD not in json.dumps(made, ensure_ascii=False).encode().decode()
