"""A call of a participant: attempts over HTTP in, one outcome out. The only place that reads status codes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from saga.errors import BadInput
from saga.payload import parse_object, readable
from saga.retry import retry_request
from saga.transport import Answer, Failure, Transport

MESSAGE_AT_MOST = 500  # characters of a participant's own message


class Verdict(StrEnum):
    """What a call did at the participant, as far as its answers tell."""

    DONE = "done"
    REFUSED = "refused"  # certainly nothing
    UNKNOWN = "unknown"  # perhaps something


@dataclass(frozen=True)
class Attempt:
    """One attempt and what it says, taken for itself."""

    number: int
    verdict: Verdict
    retryable: bool
    status_code: int | None
    duration_ms: float
    message: str | None = None
    timed_out: bool = False
    result: Mapping[str, Any] | None = None
    retry_after: float | None = None


@dataclass(frozen=True)
class Request:
    """A call to make: up to 1 + `retries` attempts, numbered from `first_attempt`. Times are in seconds."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout: float = 5.0
    retries: int = 2
    backoff: float = 0.2
    first_attempt: int = 1
    sealing: bool = False  # a pivot's compensation that asks whether it has committed
    uncertain_before: bool = False  # an earlier attempt of this very call may have had an effect


@dataclass(frozen=True)
class Outcome:
    """What a call came to; `kind` is the error's: refused, timeout, failed, or None where it is done."""

    verdict: Verdict
    result: Mapping[str, Any] | None = None
    status_code: int | None = None
    kind: str | None = None
    message: str | None = None


def call(
    request: Request,
    transport: Transport,
    *,
    sleep: Callable[[float], Any],
    random: Callable[[], float],
    before_attempt: Callable[[int], None] = lambda number: None,
    after_attempt: Callable[[Attempt, bool], None] = lambda attempt, will_retry: None,
) -> Outcome:
    """Make the call. `before_attempt(number)` runs before every attempt, and what it raises ends the call;
    `after_attempt(attempt, will_retry)` runs after every answer, before the wait."""
    attempts: list[Attempt] = []

    def attempt(number: int) -> Attempt:
        before_attempt(number)
        headers = {**request.headers, "Saga-Attempt": str(number)}
        answer = transport.post(request.url, headers, request.body, request.timeout)
        attempts.append(judge(answer, number))
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
    return conclude(request, attempts)


def judge(answer: Answer, number: int) -> Attempt:
    """What one answer says: the table of the participant contract, row by row."""
    verdict, retryable, result = _classify(answer)
    return Attempt(
        number,
        verdict,
        retryable,
        answer.status,
        answer.duration_ms,
        None if verdict is Verdict.DONE else _message(answer),
        answer.failure is Failure.TIMED_OUT,
        result,
        _retry_after(answer),
    )


def _classify(answer: Answer) -> tuple[Verdict, bool, Mapping[str, Any] | None]:
    """(verdict, is it worth another attempt, result)."""
    status = answer.status
    if status is None:
        certain = answer.failure is Failure.NOT_CONNECTED
        return (Verdict.REFUSED if certain else Verdict.UNKNOWN), True, None
    if 200 <= status < 300:
        result = _object(answer)
        return (Verdict.UNKNOWN, True, None) if result is None else (Verdict.DONE, False, result)
    if status == 408:
        return Verdict.UNKNOWN, True, None
    if status in (425, 429):
        return Verdict.REFUSED, True, None
    if 400 <= status < 500:
        return Verdict.REFUSED, False, None
    if 500 <= status < 600 and answer.headers.get("saga-effect", "").strip().lower() == "none":
        return Verdict.REFUSED, True, None
    if status == 503 and "retry-after" in answer.headers:
        return Verdict.REFUSED, True, None
    return Verdict.UNKNOWN, True, None


def conclude(request: Request, attempts: list[Attempt]) -> Outcome:
    """What all attempts together say: refused only where every one of them certainly changed nothing."""
    last = attempts[-1]
    if last.verdict is Verdict.DONE:
        return Outcome(Verdict.DONE, last.result, last.status_code)
    verdict = last.verdict
    if request.sealing:
        verdict = Verdict.REFUSED if last.status_code == 409 else Verdict.UNKNOWN
    elif request.uncertain_before or any(made.verdict is Verdict.UNKNOWN for made in attempts):
        verdict = Verdict.UNKNOWN
    return Outcome(verdict, None, last.status_code, _kind(attempts), last.message)


def _kind(attempts: list[Attempt]) -> str:
    last = attempts[-1].status_code
    if last is not None and 400 <= last < 500:
        return "refused"
    return "timeout" if any(made.timed_out for made in attempts) else "failed"


def _object(answer: Answer) -> dict[str, Any] | None:
    try:
        return parse_object(answer.body, strict=False)
    except BadInput:
        return None


def _message(answer: Answer) -> str:
    if answer.status is None:
        return answer.message
    if 200 <= answer.status < 300:
        return f"HTTP {answer.status} with a body that is not a JSON object{_why(answer)}"
    said = (_object(answer) or {}).get("error")
    if not said:
        return f"HTTP {answer.status}{_why(answer)}"
    text = said if isinstance(said, str) else readable(said)
    return text[:MESSAGE_AT_MOST]


def _why(answer: Answer) -> str:
    """What keeps a body of JSON from being read, where that is worth a word; it quotes none of its values."""
    try:
        parse_object(answer.body, "it", strict=False)
    except BadInput as error:
        if error.field:
            return f": the number {error.field} cannot be kept exactly"
        if "nested" in str(error):
            return f": {error}"
    return ""


def _retry_after(answer: Answer) -> float | None:
    """Retry-After in seconds; its other form, a date, is not worth a clock here and counts as absent."""
    said = answer.headers.get("retry-after")
    try:
        return None if said is None else max(0.0, float(said))
    except ValueError:
        return None
