"""This module makes one call of a participant: up to 1 + `retries` attempts over HTTP, which come to one outcome.

Only this module judges the status codes of the orchestrator's calls. `make_call` makes the attempts, `classify_attempt`
says what one answer means, and `combine_attempts` what all of them mean together: the call is refused only where every
attempt certainly changed nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

from saga.errors import BadInput
from saga.http_client.transport import Failure, HttpAnswer, Transport
from saga.payload import MASK, parse_object, readable
from saga.retry import ATTEMPT_SECONDS, BACKOFF_SECONDS, RETRIES, retry_request
from saga.urls import credentials, masked

MESSAGE_CHARACTERS_AT_MOST = 500  # characters of a participant's own message
LOCATION_CHARACTERS_AT_MOST = 200  # characters of a redirect's Location
TRY_LATER_STATUSES = (425, 429)  # these change nothing, and are tried again
TIMED_OUT_STATUS = 408  # says as little as a time-out: the call may have had its effect


class Verdict(StrEnum):
    """What a call did at the participant, as far as its answers tell."""

    DONE = "done"  # it had its effect
    REFUSED = "refused"  # it certainly had no effect
    UNKNOWN = "unknown"  # it may have had its effect


@dataclass(frozen=True)
class Attempt:
    """One attempt of a call, and what its answer says by itself."""

    number: int
    verdict: Verdict
    retryable: bool
    status_code: int | None
    duration_ms: float
    message: str | None = None
    timed_out: bool = False  # also where the answer is a 408
    result: Mapping[str, Any] | None = None
    retry_after: float | None = None


@dataclass(frozen=True)
class CallRequest:
    """A call to make: up to 1 + `retries` attempts, numbered from `first_attempt`. Times are in seconds."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout: float = ATTEMPT_SECONDS
    retries: int = RETRIES
    backoff: float = BACKOFF_SECONDS
    first_attempt: int = 1
    sealing: bool = False  # it is a pivot's compensation, which answers 409 where the pivot's action took effect
    uncertain_before: bool = False  # an earlier attempt of this same call may have had an effect


@dataclass(frozen=True)
class Outcome:
    """What a call came to. `kind` is the error's: refused, timeout or failed; None where the call is done."""

    verdict: Verdict
    result: Mapping[str, Any] | None = None
    status_code: int | None = None
    kind: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class Exchange:
    """What was sent in one attempt, and what came back: for whoever keeps it. `line` is the number of its line."""

    line: int
    request: CallRequest
    attempt: Attempt
    answer: HttpAnswer


class DeadlinePassed(Exception):
    """Raised by `before_attempt` to end a call: the saga's deadline has passed, so it turns back instead."""


class Stopping(Exception):
    """Raised by `before_attempt` to end a call: the process shuts down, or nobody waits for the call any more."""


def authorization(url: str, token: str | None) -> dict[str, str]:
    """Return the headers that show a service who calls it. Every request to a service has them.

    A URL that holds `user:password@` has an Authorization of its own, which the transport sends; such a service is
    not shown the token.
    """
    try:
        own = credentials(url)
    except ValueError:  # it is not a URL; the transport says so
        return {}
    return {"Authorization": f"Bearer {token}"} if token and own is None else {}


def make_call(
    request: CallRequest,
    transport: Transport,
    *,
    sleep: Callable[[float], Any],
    random: Callable[[], float],
    clock: Callable[[], float] = time.time,
    before_attempt: Callable[[int], None] = lambda number: None,
    on_answer: Callable[[HttpAnswer], None] = lambda answer: None,
    after_attempt: Callable[[Attempt, bool], None] = lambda attempt, will_retry: None,
) -> Outcome:
    """Make the call and return its outcome.

    `before_attempt(number)` runs before every attempt; what it raises ends the call. `on_answer(answer)` runs after
    every answer, and `after_attempt(attempt, will_retry)` once it is judged, before the wait. `sleep` waits for
    seconds, `random` gives [0, 1), and `clock` the time of day, in seconds since the epoch.
    """
    attempts: list[Attempt] = []

    def attempt(number: int) -> Attempt:
        before_attempt(number)
        headers = {**request.headers, "Saga-Attempt": str(number)}
        answer = transport.post(request.url, headers, request.body, request.timeout)
        on_answer(answer)
        attempts.append(classify_attempt(answer, number, clock))
        return attempts[-1]

    retry_request(
        attempt,
        should_retry=lambda made: made.retryable,
        retry_after=lambda made: made.retry_after,
        sleep=sleep,
        random=random,
        retries=request.retries,
        backoff=request.backoff,
        first=request.first_attempt,
        answered=after_attempt,
    )
    return combine_attempts(attempts, sealing=request.sealing, uncertain_before=request.uncertain_before)


def classify_attempt(answer: HttpAnswer, number: int, clock: Callable[[], float] = time.time) -> Attempt:
    """Return what one answer says by itself: the participant contract's table of answers, row by row."""
    verdict, retryable, result = _classify(answer)
    return Attempt(
        number,
        verdict,
        retryable,
        answer.status,
        answer.duration_ms,
        None if verdict is Verdict.DONE else _message(answer),
        answer.failure is Failure.TIMED_OUT or answer.status == TIMED_OUT_STATUS,
        result,
        _retry_after(answer, clock),
    )


def _classify(answer: HttpAnswer) -> tuple[Verdict, bool, Mapping[str, Any] | None]:
    """Return (the verdict, whether another attempt is worth it, the result where it is done)."""
    status = answer.status
    if answer.failure is not None or status is None:
        certain = answer.failure is Failure.NOT_CONNECTED
        return (Verdict.REFUSED if certain else Verdict.UNKNOWN), True, None
    if 200 <= status < 300:
        result = _result(answer)
        return (Verdict.UNKNOWN, True, None) if result is None else (Verdict.DONE, False, result)
    if status in TRY_LATER_STATUSES:
        return Verdict.REFUSED, True, None
    if _refuses(status):
        return Verdict.REFUSED, False, None
    if 500 <= status < 600 and answer.headers.get("saga-effect", "").strip().lower() == "none":
        return Verdict.REFUSED, True, None
    if status == 503 and "retry-after" in answer.headers:  # whatever the header holds
        return Verdict.REFUSED, True, None
    return Verdict.UNKNOWN, True, None


def _refuses(status: int | None) -> bool:
    """Return whether the status code refuses the call for good."""
    return status is not None and 400 <= status < 500 and status not in (TIMED_OUT_STATUS, *TRY_LATER_STATUSES)


def _result(answer: HttpAnswer) -> Mapping[str, Any] | None:
    """Return the result in a 2xx answer; None where the answer does not say that anything was done."""
    if answer.status == 204:
        return {}
    return None if answer.status == 202 else _object(answer)


def combine_attempts(attempts: Sequence[Attempt], *, sealing: bool = False, uncertain_before: bool = False) -> Outcome:
    """Return what all attempts say together: refused only where every one of them certainly changed nothing.

    `uncertain_before`: an attempt that is not among them may have had an effect. A `sealing` call is different: a 409
    says that the pivot's action took effect, whatever was answered before it.
    """
    last = attempts[-1]
    if last.verdict is Verdict.DONE:
        return Outcome(Verdict.DONE, last.result, last.status_code)
    verdict = last.verdict
    if sealing:
        verdict = Verdict.REFUSED if verdict is Verdict.REFUSED and last.status_code == 409 else Verdict.UNKNOWN
    elif uncertain_before or any(made.verdict is Verdict.UNKNOWN for made in attempts):
        verdict = Verdict.UNKNOWN
    timed_out = any(made.timed_out for made in attempts)
    kind = error_kind(verdict is Verdict.REFUSED, last.status_code, timed_out)
    return Outcome(verdict, None, last.status_code, kind, last.message)


def error_kind(certain: bool, status: int | None, timed_out: bool) -> str:
    """Return what a caller may believe of a call that failed: refused, timeout or failed.

    `certain` says that no attempt can have had an effect, `status` is the last attempt's status code, and `timed_out`
    says that at least one attempt timed out.
    """
    if certain and _refuses(status):
        return "refused"
    return "timeout" if timed_out or status == TIMED_OUT_STATUS else "failed"


def _object(answer: HttpAnswer) -> dict[str, Any] | None:
    try:
        return parse_object(answer.body, strict=False)
    except BadInput:
        return None


def _message(answer: HttpAnswer) -> str:
    status = answer.status
    if answer.failure is not None or status is None:
        return answer.message
    if status == 202:
        return "HTTP 202: it says that it will be done later, and a step that takes that long is not supported yet"
    if 200 <= status < 300:
        return f"HTTP {status} with a body that is not a JSON object{_why(answer)}"
    if 300 <= status < 400:
        return _redirect(answer)
    said = (_object(answer) or {}).get("error")
    if not said:
        return f"HTTP {status}{_why(answer)}"
    text = said if isinstance(said, str) else readable(said)
    return text[:MESSAGE_CHARACTERS_AT_MOST]


def _why(answer: HttpAnswer) -> str:
    """Return why a body is no readable JSON, where that helps its author; it quotes no value of the body."""
    try:
        parse_object(answer.body, "it", strict=False)
    except BadInput as error:
        if error.field:
            return f": the number {error.field} cannot be kept exactly"
        if "nested" in str(error):
            return f": {error}"
    return ""


def _redirect(answer: HttpAnswer) -> str:
    """Return where a redirect points to, without what may be secret: a user, a password, a query, a fragment."""
    said = answer.headers.get("location", "").strip()
    if not said:
        return f"HTTP {answer.status}"
    try:
        parts = urlsplit(masked(said))
        host = parts.netloc.rpartition("@")[2]
        authority = f"//{MASK}@{host}" if "@" in parts.netloc else f"//{host}" if host else ""
        shown = (f"{parts.scheme}:" if parts.scheme else "") + authority + parts.path
        shown += f"?{MASK}" if parts.query else ""
    except ValueError:
        return f"HTTP {answer.status} to a Location that is no URL, and redirects are not followed"
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in shown)
    shown = shown if len(shown) <= LOCATION_CHARACTERS_AT_MOST else f"{shown[: LOCATION_CHARACTERS_AT_MOST - 1]}…"
    return f"HTTP {answer.status} to {shown}, and redirects are not followed"


def _retry_after(answer: HttpAnswer, clock: Callable[[], float]) -> float | None:
    """Return Retry-After in seconds from now (RFC 9110, section 10.2.3); None where it is no number and no date."""
    said = answer.headers.get("retry-after")
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        try:
            until = parsedate_to_datetime(said)
            seconds = (until if until.tzinfo else until.replace(tzinfo=UTC)).timestamp() - clock()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
