"""Whether somebody listens is asked of the broker once, not at every start."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator import listener_check
from orchestrator.listener_check import ListenerCheck
from saga.choreography.broker import ConsumerStatus
from saga.choreography.events import needed_subscriptions
from saga.definition import CHOREOGRAPHY
from saga.errors import BadInput, BrokerUnavailable
from tests.support.world import signup

SIGNUP = signup().in_mode(CHOREOGRAPHY)


class Broker:
    """Counts the questions; `there` is who listens, or nobody knows."""

    def __init__(self, there: list[ConsumerStatus] | None):
        self.there = there
        self.questions = 0

    def consumers(self, seconds: float) -> list[ConsumerStatus]:
        self.questions += 1
        if self.there is None:
            raise BrokerUnavailable("away")
        return self.there


def all_of_them(*but: str) -> list[ConsumerStatus]:
    needed = needed_subscriptions(SIGNUP)
    names = [name for name in ("A", "B", "C") if name not in but]
    return [ConsumerStatus(name, [subject for subject, step in needed.items() if step == name], 0) for name in names]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_check, "COMING_WITHIN", 0.0)


def made(there: Any) -> tuple[ListenerCheck, Broker]:
    broker = Broker(there)
    return ListenerCheck(broker), broker  # type: ignore[arg-type]


def test_the_broker_is_asked_once_for_many_starts() -> None:
    known, broker = made(all_of_them())
    for _ in range(50):
        known.check(SIGNUP)
    assert broker.questions == 1


def test_what_is_not_known_is_asked_again() -> None:
    known, broker = made(all_of_them("B"))
    for _ in range(2):
        with pytest.raises(BadInput, match="nobody listens to step B"):
            known.check(SIGNUP)
    broker.there = all_of_them()
    known.check(SIGNUP)
    known.check(SIGNUP)
    assert broker.questions == 3


def test_while_the_broker_is_away_nothing_is_refused_and_it_is_asked_again() -> None:
    known, broker = made(None)
    known.check(SIGNUP)
    broker.there = all_of_them("A")
    with pytest.raises(BadInput, match="nobody listens to step A"):
        known.check(SIGNUP)


def test_who_listens_under_another_name_is_not_the_service_of_the_step() -> None:
    known, _ = made([ConsumerStatus("Everything", ["saga.>"], 0)])
    with pytest.raises(BadInput, match=r"called 'A', as the step is.*the services that listen are Everything"):
        known.check(SIGNUP)


def test_what_must_be_heard_is_what_lets_each_step_act_and_what_undoes_it() -> None:
    assert needed_subscriptions(SIGNUP) == {
        "saga.signup.started": "A",
        "saga.signup.B.refused": "A",
        "saga.signup.B.undone": "A",
        "saga.signup.A.done": "B",
        "saga.signup.C.refused": "B",
        "saga.signup.C.undone": "B",
        "saga.signup.B.done": "C",
    }
