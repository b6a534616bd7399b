"""What an operator does to choreographed sagas: abandoned ones are never acted for, replays go on counting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from saga.choreography import inbox, listener
from saga.choreography.broker import ACK, Delivery, Reaction
from saga.choreography.dead_letter import DELIVERIES
from saga.choreography.outbox import withdraw
from saga.definition import SagaDefinition
from saga.errors import Conflict
from saga.machine import PARKED
from tests.support.ensemble import Ensemble
from tests.support.world import signup

NONE = {"A": 0, "B": 0, "C": 0}
ONE_EACH = {"A": 1, "B": 1, "C": 1}


@pytest.fixture
def ensemble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ensemble]:
    monkeypatch.setattr(listener, "LOOK", 0.0)
    made = Ensemble(tmp_path)
    yield made
    made.close()


def started(ensemble: Ensemble, number: int = 1, abandoned: bool = True) -> Delivery:
    """The event that starts the latest saga, as it is delivered to A."""
    for relay in ensemble.relays.values():
        relay.round()
    index, (subject, payload) = next(
        (index, event) for index, event in enumerate(ensemble.broker.stream) if event[0] == "saga.signup.started"
    )
    return Delivery(subject, payload, number, index, {}, abandoned=abandoned)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_an_abandoned_saga_is_sealed_and_refused_by_its_first_step(ensemble: Ensemble, number: int) -> None:
    """Also where its event was delivered before, to a process that died with it."""
    saga_id = ensemble.start()
    abandoned = started(ensemble, number)
    ensemble.broker.queues["A"].waiting.clear()
    assert ensemble.listeners["A"].handle(abandoned) == ACK
    assert ensemble.barriers(saga_id) == {"A": "sealed"}
    ensemble.play()
    saga = ensemble.record(saga_id)
    assert (saga["status"], saga["error"]["kind"]) == ("COMPENSATED", "cancelled")
    assert ensemble.listeners["A"].handle(replace(abandoned, abandoned=False)) == ACK  # a late copy
    assert ensemble.rows(saga_id) == NONE
    assert not ensemble.done


def test_what_has_been_acted_upon_is_not_undone_by_abandoning(ensemble: Ensemble) -> None:
    saga_id = ensemble.start()
    first = started(ensemble)
    while ensemble.broker.deliver("A"):
        pass
    assert ensemble.listeners["A"].handle(first) == ACK
    ensemble.play()
    assert ensemble.record(saga_id)["status"] == "COMPLETED"
    assert ensemble.rows(saga_id) == ONE_EACH


def test_a_step_that_was_added_since_lets_no_abandoned_saga_pass(ensemble: Ensemble) -> None:
    """B is first in the file that its service was started with, and not in the saga: it tells nobody to act."""
    saga_id = ensemble.start()
    event = started(ensemble)
    body = {**json.loads(event.payload), "steps": ["Before", "C"]}
    ensemble.broker.queues["A"].waiting.clear()
    assert ensemble.listeners["A"].handle(replace(event, payload=json.dumps(body).encode())) == ACK
    assert ensemble.relays["A"].round() is False  # there is nothing to publish
    assert ensemble.barriers(saga_id) == {}


PIVOT_ALONE = replace(signup(), steps=(replace(signup().steps[0], pivot=True),))


@pytest.mark.parametrize("definition", [signup(), PIVOT_ALONE])
def test_the_log_says_who_abandoned_it_and_why(tmp_path: Path, definition: SagaDefinition) -> None:
    made = Ensemble(tmp_path, definition)
    saga_id = made.start()
    made.follower.abandoned(saga_id, "gone for good")
    saga = made.record(saga_id)
    assert (saga["status"], saga["error"]["kind"], saga["ended_at"] is not None) == ("COMPENSATED", "cancelled", True)
    assert {step["effect"] for step in saga["steps"]} == {"none"}
    lines = made.log.lines(saga_id)
    assert [line.event for line in lines][:2] == ["started", "abandoned"]
    assert (lines[1].detail or {})["note"] == "gone for good"
    with pytest.raises(Conflict, match="it is compensated"):
        made.follower.abandoned(saga_id, "again")
    made.close()


@pytest.mark.parametrize("service", ["A", "orchestrator"])
def test_a_parked_beginning_is_abandoned_where_no_service_has_got_it(ensemble: Ensemble, service: str) -> None:
    """The orchestrator parks what its outbox cannot publish; a service what it has heard."""
    saga_id = ensemble.start()
    letter = {"Saga-Service": service, "Saga-Reason": "no"}
    payload = json.dumps({"saga_id": saga_id}).encode()
    ensemble.follower.handle(Delivery("dead.saga.signup.started", payload, 1, 7, letter))
    assert [line.event for line in ensemble.log.lines(saga_id)] == ["started", PARKED]
    if service == "A":
        with pytest.raises(Conflict, match="a service has acted, or has tried to"):
            ensemble.follower.abandoned(saga_id, "gone")
    else:
        ensemble.follower.abandoned(saga_id, "gone")
        assert ensemble.record(saga_id)["status"] == "COMPENSATED"


@pytest.mark.parametrize("flags", ["", "b", "a:before:1"])
def test_a_saga_that_a_service_has_acted_for_is_never_abandoned(ensemble: Ensemble, flags: str) -> None:
    """At no moment of its life once the log has a line of a service's."""
    saga_id = ensemble.start(flags)
    for _ in range(200):
        told = [line for line in ensemble.log.lines(saga_id) if line.step]
        if told and not ensemble.record(saga_id)["ended_at"]:
            with pytest.raises(Conflict, match="it cannot be abandoned"):
                ensemble.follower.abandoned(saga_id, "gone")
        if not ensemble.round():
            break
    assert ensemble.record(saga_id)["ended_at"]


def test_what_is_withdrawn_is_published_by_nobody(ensemble: Ensemble) -> None:
    from saga.choreography.events import started as events

    saga_id = ensemble.start()
    record = ensemble.log.find(saga_id)
    assert record
    withdraw(ensemble.engines["orchestrator"], events(record.definition, saga_id, record.input, record.started_at))
    ensemble.play()
    assert ensemble.broker.stream == []


def parked(ensemble: Ensemble, name: str, event: Delivery) -> tuple[list[int], Reaction]:
    """The numbers of the attempts until the event is parked, and how."""
    numbers: list[int] = []
    for number in range(event.number, 200):
        reaction = ensemble.listeners[name].handle(replace(event, number=number))
        numbers.append(number)
        if reaction.park is not None:
            return numbers, reaction
    raise AssertionError("it is not parked")


def test_attempts_are_counted_over_replays(ensemble: Ensemble) -> None:
    """The log has each of them once, and each replay has as many rounds as the first time."""
    saga_id = ensemble.start("b&a:undo")
    ensemble.play()

    def attempts() -> list[int | None]:
        lines = ensemble.log.lines(saga_id)
        return [line.attempt for line in lines if (line.detail or {}).get("call") == "compensation"]

    first = attempts()
    assert first == list(range(1, len(first) + 1))
    subject, payload = next(event for event in ensemble.broker.stream if event[0] == "saga.signup.B.refused")
    for replay in (1, 2):
        ensemble.follower.replayed(saga_id, replay, subject)
        event = Delivery(subject, payload, 1, 1, {DELIVERIES: str(replay * len(first))})
        numbers, reaction = parked(ensemble, "A", event)
        assert len(numbers) == len(first)
        assert reaction.attempts == (replay + 1) * len(first)
        ensemble.play()
        assert attempts() == list(range(1, (replay + 1) * len(first) + 1))


@pytest.mark.parametrize("content", ["'{broken'", "'[]'", "''", "'7'"])
def test_what_a_step_remembers_and_nobody_can_read_parks_its_event_and_holds_up_no_other_saga(
    ensemble: Ensemble, content: str
) -> None:
    saga_id = ensemble.start("c")
    ensemble.reach("C")
    while ensemble.broker.deliver("C"):
        pass
    with ensemble.engines["A"].begin() as connection:
        found = connection.execute(text(f"UPDATE saga_inbox SET fields = {content} WHERE giver = {inbox.OWN}"))
        assert found.rowcount == 1
    other = ensemble.start()
    ensemble.play()
    ((subject, reason),) = ensemble.broker.parked
    assert subject == "saga.signup.B.undone"
    assert "mend its row in the saga_inbox of A, giver -2" in reason
    assert ensemble.record(other)["status"] == "COMPLETED"
    saga: Any = ensemble.record(saga_id)
    assert saga["status"] == "COMPENSATING"  # nobody says that it is undone
    assert ensemble.rows(saga_id)["A"] == 1
