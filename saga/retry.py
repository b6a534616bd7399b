"""This module says when to try again: `retry_request` for one call, `stall_delay` for a saga that has stalled.

All waits double from one to the next, up to a limit, and are jittered between half and all of themselves, so that
many callers of a service that has failed do not come back at the same moment. Sleep and randomness are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

# The limits of a call whose step says nothing about them.
ATTEMPT_SECONDS = 5.0  # for one attempt, from connecting to the last byte
RETRIES = 2  # further attempts after the first one
BACKOFF_SECONDS = 0.2  # before the first retry; each further wait is twice as long

BACKOFF_SECONDS_AT_MOST = 5.0  # at which the doubling ends
RETRY_AFTER_SECONDS_AT_MOST = 5.0  # that a service may ask for

T = TypeVar("T")


def jittered(delay: float, random: Callable[[], float]) -> float:
    """Return a time between half of `delay` and all of it; `random` gives [0, 1)."""
    return delay * (0.5 + random() / 2)


def backoff_delay(backoff: float, retry: int) -> float:
    """Return the wait before the `retry`-th retry (from 1), in seconds, before it is jittered.

    It is `backoff`, doubled with each retry up to 5 s. A `backoff` that is longer than 5 s stays as it is.
    """
    return min(backoff * 2.0 ** min(retry - 1, 62), max(backoff, BACKOFF_SECONDS_AT_MOST))


def delays(backoff: float, retries: int, random: Callable[[], float]) -> Iterator[float]:
    """Yield the wait before each retry, in seconds, jittered."""
    for retry in range(1, retries + 1):
        yield jittered(backoff_delay(backoff, retry), random)


@lru_cache
def longest(timeout: float, retries: int, backoff: float) -> float:
    """Return how long a call of 1 + `retries` attempts may take at most, in seconds."""
    waits = [max(backoff_delay(backoff, retry), RETRY_AFTER_SECONDS_AT_MOST) for retry in range(1, retries + 1)]
    return (1 + retries) * timeout + sum(waits)


def stall_delay(round: int, base: float, maximum: float, random: Callable[[], float]) -> float:
    """Return how long a stalled saga rests after its `round`-th failed round (from 1), in seconds, jittered.

    It is `base`, doubled with each round up to `maximum`.
    """
    return jittered(min(maximum, base * 2 ** min(round - 1, 62)), random)


def retry_request(
    attempt: Callable[[int], T],
    *,
    should_retry: Callable[[T], bool],
    retry_after: Callable[[T], float | None],
    sleep: Callable[[float], Any],
    random: Callable[[], float],
    retries: int = RETRIES,
    backoff: float = BACKOFF_SECONDS,
    first: int = 1,
    answered: Callable[[T, bool], None] = lambda answer, will_retry: None,
) -> T:
    """Make up to 1 + `retries` attempts, numbered from `first`, and return the last answer.

    `attempt(number)` makes one attempt and gives its answer; what it raises ends the call. `should_retry(answer)` says
    whether another attempt is worth it. `answered(answer, will_retry)` runs after each answer, before the wait. What
    `retry_after(answer)` gives, in seconds, makes the wait longer, up to 5 s (RFC 9110, section 10.2.3).
    """
    waits = delays(backoff, retries, random)
    for number in range(first, first + retries + 1):
        answer = attempt(number)
        wait = next(waits, None) if should_retry(answer) else None
        answered(answer, wait is not None)
        if wait is None:
            return answer
        sleep(max(wait, min(retry_after(answer) or 0.0, RETRY_AFTER_SECONDS_AT_MOST)))
    raise AssertionError("unreachable: the last attempt has no wait after it")
