"""When to try again: back-off delays, and `retry_request()`, which makes one call of up to 1 + retries attempts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

# The limits of a call whose step says nothing about them.
TIMEOUT = 5.0  # seconds for one attempt, from connecting to the last byte
RETRIES = 2  # further attempts after the first one
BACKOFF = 0.2  # seconds before the first retry; each further wait is twice as long

BACKOFF_AT_MOST = 5.0  # seconds: where the doubling ends
RETRY_AFTER_AT_MOST = 5.0  # seconds

T = TypeVar("T")


def jittered(delay: float, random: Callable[[], float]) -> float:
    """Between half of `delay` and all of it; `random` gives [0, 1)."""
    return delay * (0.5 + random() / 2)


def backoff_delay(backoff: float, retry: int) -> float:
    """The whole wait before the `retry`-th retry (from 1), in seconds: `backoff` doubling, up to 5 s.

    A `backoff` that is longer than that is kept as it is.
    """
    return min(backoff * 2.0 ** min(retry - 1, 62), max(backoff, BACKOFF_AT_MOST))


def delays(backoff: float, retries: int, random: Callable[[], float]) -> Iterator[float]:
    """The waits before each retry, in seconds, each jittered."""
    for retry in range(1, retries + 1):
        yield jittered(backoff_delay(backoff, retry), random)


@lru_cache
def longest(timeout: float, retries: int, backoff: float) -> float:
    """How long a call of 1 + `retries` attempts may take, in seconds."""
    waits = [max(backoff_delay(backoff, retry), RETRY_AFTER_AT_MOST) for retry in range(1, retries + 1)]
    return (1 + retries) * timeout + sum(waits)


def stall_delay(round: int, base: float, maximum: float, random: Callable[[], float]) -> float:
    """How long a saga rests after its `round`-th failed round (from 1), in seconds: doubling up to `maximum`."""
    return jittered(min(maximum, base * 2 ** min(round - 1, 62)), random)


def retry_request(
    attempt: Callable[[int], T],
    *,
    should_retry: Callable[[T], bool],
    retry_after: Callable[[T], float | None],
    sleep: Callable[[float], Any],
    random: Callable[[], float],
    retries: int = RETRIES,
    backoff: float = BACKOFF,
    first: int = 1,
    answered: Callable[[T, bool], None] = lambda answer, will_retry: None,
) -> T:
    """The last answer of up to 1 + `retries` attempts, numbered from `first`.

    `attempt(number)` makes one and gives its answer; what it raises ends the call. After each answer
    `answered(answer, will_retry)` is told, before the wait. A server's Retry-After (seconds) is honoured up to 5 s
    (RFC 9110, section 10.2.3).
    """
    waits = delays(backoff, retries, random)
    for number in range(first, first + retries + 1):
        answer = attempt(number)
        wait = next(waits, None) if should_retry(answer) else None
        answered(answer, wait is not None)
        if wait is None:
            return answer
        sleep(max(wait, min(retry_after(answer) or 0.0, RETRY_AFTER_AT_MOST)))
    raise AssertionError("unreachable: the last attempt has no wait after it")
