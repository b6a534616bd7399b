"""Back-off, and the loop that makes a call of several attempts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saga.retry import delays, retry_request, stall_delay


@pytest.mark.parametrize(("random", "share"), [(0.0, 0.5), (0.5, 0.75), (0.999999, 1.0)])
def test_each_delay_doubles_and_is_jittered_between_half_and_all_of_itself(random: float, share: float) -> None:
    assert list(delays(0.2, 3, lambda: random)) == pytest.approx([0.2 * share, 0.4 * share, 0.8 * share], rel=1e-5)


@given(st.integers(1, 10_000), st.floats(0, 0.999))
def test_a_stalled_saga_waits_longer_each_round_up_to_the_limit(round: int, random: float) -> None:
    delay = stall_delay(round, 1, 300, lambda: random)
    whole = min(300, 2.0 ** min(round - 1, 62))
    assert whole / 2 <= delay <= whole


class World:
    """What a call meets: answers in turn; and what it did."""

    def __init__(self, *answers: str):
        self.answers = list(answers)
        self.attempts: list[int] = []
        self.waits: list[float] = []
        self.told: list[tuple[str, bool]] = []

    def call(self, **options: object) -> str:
        def attempt(number: int) -> str:
            self.attempts.append(number)
            return self.answers.pop(0)

        settings: dict = {
            "should_retry": lambda answer: answer != "good",
            "retry_after": lambda answer: float(answer[6:]) if answer.startswith("after ") else None,
            "sleep": self.waits.append,
            "random": lambda: 0.999999999,
            "answered": lambda answer, again: self.told.append((answer, again)),
            **options,
        }
        return retry_request(attempt, **settings)


def test_a_good_answer_is_not_asked_for_again() -> None:
    world = World("good")
    assert world.call() == "good"
    assert (world.attempts, world.waits) == ([1], [])


def test_two_retries_by_default_with_doubling_waits() -> None:
    world = World("bad", "bad", "worse")
    assert world.call() == "worse"
    assert world.attempts == [1, 2, 3]
    assert world.waits == pytest.approx([0.2, 0.4])
    assert world.told == [("bad", True), ("bad", True), ("worse", False)]


def test_numbers_go_on_where_an_earlier_round_ended() -> None:
    world = World("bad", "good")
    assert world.call(first=4, retries=1) == "good"
    assert world.attempts == [4, 5]


@pytest.mark.parametrize(("asked", "waited"), [("after 1", 1.0), ("after 60", 5.0), ("after 0", 0.2)])
def test_retry_after_is_honoured_up_to_five_seconds(asked: str, waited: float) -> None:
    world = World(asked, "good")
    world.call()
    assert world.waits == pytest.approx([waited])


def test_what_an_attempt_raises_ends_the_call() -> None:
    def attempt(number: int) -> str:
        raise KeyError(number)

    with pytest.raises(KeyError):
        retry_request(attempt, should_retry=bool, retry_after=lambda _: None, sleep=lambda _: None, random=lambda: 0.0)
