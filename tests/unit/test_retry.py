"""When to try again: the delays, and the loop over attempts, with everything from outside held in the test's hand."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.retry import BACKOFF_SECONDS_AT_MOST, delays, longest, retry_request, stall_delay

LATEST = 1 - 2**-53  # the largest number that random() gives


class Script:
    """Attempts that answer what the script says: a number is a Retry-After, None an answer worth no retry."""

    def __init__(self, *answers: float | None):
        self.answers = list(answers)
        self.happened: list[object] = []

    def attempt(self, number: int) -> float | None:
        self.happened.append(f"attempt {number}")
        return self.answers.pop(0)

    def run(self, retries: int = 2, first: int = 1, random: Callable[[], float] = lambda: LATEST) -> float | None:
        return retry_request(
            self.attempt,
            should_retry=lambda answer: answer is not None,
            retry_after=lambda answer: answer or None,
            sleep=lambda seconds: self.happened.append(round(seconds, 3)),
            random=random,
            retries=retries,
            backoff=0.2,
            first=first,
            answered=lambda answer, will_retry: self.happened.append("goes on" if will_retry else "ends"),
        )


def test_delays_double_and_are_jittered_between_half_and_all_of_themselves() -> None:
    assert list(delays(0.2, 3, lambda: 0.0)) == pytest.approx([0.1, 0.2, 0.4])
    assert list(delays(0.2, 3, lambda: LATEST)) == pytest.approx([0.2, 0.4, 0.8])


def test_the_doubling_ends_at_five_seconds() -> None:
    assert list(delays(1.0, 5, lambda: LATEST)) == pytest.approx([1.0, 2.0, 4.0, 5.0, 5.0])


def test_a_backoff_over_five_seconds_is_kept_and_does_not_double() -> None:
    assert list(delays(30.0, 3, lambda: LATEST)) == pytest.approx([30.0] * 3)


@given(st.integers(0, 100), st.floats(0, 60))
def test_a_hundred_retries_take_minutes_and_not_years(retries: int, backoff: float) -> None:
    waits = list(delays(backoff, retries, lambda: LATEST))
    assert all(wait <= max(backoff, BACKOFF_SECONDS_AT_MOST) for wait in waits)
    assert sum(waits) <= longest(0.0, retries, backoff) <= 100 * 60


def test_no_retries_means_no_delays() -> None:
    assert list(delays(0.2, 0, lambda: 0.5)) == []


@given(st.integers(1, 10**6), st.floats(0.001, 10), st.floats(10, 1000), st.floats(0, LATEST))
def test_a_stalled_saga_rests_between_half_and_all_of_its_doubled_base_and_never_longer_than_the_maximum(
    round: int, base: float, maximum: float, drawn: float
) -> None:
    """Pitfall 25: a service that is down is not hammered."""
    full = min(maximum, base * 2.0 ** min(round - 1, 100))
    assert full / 2 <= stall_delay(round, base, maximum, lambda: drawn) <= full


def test_the_first_rest_of_a_stalled_saga_is_its_base() -> None:
    assert stall_delay(1, 1.0, 300.0, lambda: LATEST) == pytest.approx(1.0)


def test_an_answer_that_is_worth_no_retry_ends_the_call_without_a_wait() -> None:
    script = Script(None)
    assert script.run() is None
    assert script.happened == ["attempt 1", "ends"]


def test_the_observer_hears_of_each_answer_before_the_wait() -> None:
    script = Script(0, None)
    script.run()
    assert script.happened == ["attempt 1", "goes on", 0.2, "attempt 2", "ends"]


def test_retries_used_up_give_the_last_answer_without_a_wait_after_it() -> None:
    script = Script(0, 0, 0, None)
    assert script.run(retries=2) == 0
    assert script.happened == [
        "attempt 1", "goes on", 0.2, "attempt 2", "goes on", 0.4, "attempt 3", "ends",
    ]  # fmt: skip


def test_two_retries_and_two_tenths_of_a_second_are_the_defaults() -> None:
    waits: list[float] = []
    numbers = retry_request(
        lambda number: number,
        should_retry=lambda answer: True,
        retry_after=lambda answer: None,
        sleep=waits.append,
        random=lambda: LATEST,
    )
    assert (numbers, waits) == (3, pytest.approx([0.2, 0.4]))


def test_attempts_are_counted_on_from_where_an_earlier_round_ended() -> None:
    """Pitfall 23: the retry count outlives the round, and the process."""
    script = Script(0, None)
    script.run(first=4)
    assert [what for what in script.happened if str(what).startswith("attempt")] == ["attempt 4", "attempt 5"]


@pytest.mark.parametrize(("asked", "waited"), [(0.05, 0.2), (1.5, 1.5), (5.0, 5.0), (3600.0, 5.0), (float("inf"), 5.0)])
def test_a_retry_after_lengthens_the_wait_up_to_five_seconds_and_never_shortens_it(asked: float, waited: float) -> None:
    script = Script(asked, None)
    script.run()
    assert script.happened[2] == waited


def test_what_an_attempt_raises_ends_the_call() -> None:
    def attempt(number: int) -> None:
        raise LookupError(number)

    with pytest.raises(LookupError, match="7"):
        retry_request(
            attempt,
            should_retry=lambda answer: True,
            retry_after=lambda answer: None,
            sleep=pytest.fail,
            random=lambda: 0.0,
            first=7,
        )
