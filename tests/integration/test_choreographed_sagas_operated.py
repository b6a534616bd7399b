"""What an operator does to choreographed sagas: abandoned ones are never acted for, replays go on counting."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from saga.choreography import inbox, step_transactions
from saga.choreography.broker import ACK, Delivery, Reaction
from saga.choreography.dead_letter import DELIVERIES
from saga.choreography.outbox import withdraw
from saga.definition import SagaDefinition
from saga.errors import Conflict, LeaseLost, LogUnavailable
from saga.machine import PARKED
from tests.support.choreographed_world import ChoreographedWorld
from tests.support.world import signup

NONE = {"A": 0, "B": 0, "C": 0}
ONE_EACH = {"A": 1, "B": 1, "C": 1}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChoreographedWorld]:
    monkeypatch.setattr(step_transactions, "WAIT_LOOK_EVERY", 0.0)
    made = ChoreographedWorld(tmp_path)
    yield made
    made.close()


def started(world: ChoreographedWorld, number: int = 1, abandoned: bool = True) -> Delivery:
    """The event that starts the latest saga, as it is delivered to A."""
    for relay in world.relays.values():
        relay.round()
    index, (subject, payload) = next(
        (index, event) for index, event in enumerate(world.broker.stream) if event[0] == "saga.signup.started"
    )
    return Delivery(subject, payload, number, index, {}, abandoned=abandoned)


@pytest.mark.parametrize("number", [1, 2, 5])
def test_an_abandoned_saga_is_sealed_and_refused_by_its_first_step(world: ChoreographedWorld, number: int) -> None:
    """Also where its event was delivered before, to a process that died with it."""
    saga_id = world.start()
    abandoned = started(world, number)
    world.broker.queues["A"].waiting.clear()
    assert world.listeners["A"].handle(abandoned) == ACK
    assert world.barriers(saga_id) == {"A": "sealed"}
    world.play()
    saga = world.row(saga_id)
    assert (saga["status"], saga["error"]["kind"]) == ("COMPENSATED", "cancelled")
    assert world.listeners["A"].handle(replace(abandoned, abandoned=False)) == ACK  # a late copy
    assert world.rows(saga_id) == NONE
    assert not world.done


def test_what_has_been_acted_upon_is_not_undone_by_abandoning(world: ChoreographedWorld) -> None:
    saga_id = world.start()
    first = started(world)
    while world.broker.deliver("A"):
        pass
    assert world.listeners["A"].handle(first) == ACK
    world.play()
    assert world.row(saga_id)["status"] == "COMPLETED"
    assert world.rows(saga_id) == ONE_EACH


def test_a_step_that_was_added_since_lets_no_abandoned_saga_pass(world: ChoreographedWorld) -> None:
    """B is first in the file that its service was started with, and not in the saga: it tells nobody to act."""
    saga_id = world.start()
    event = started(world)
    body = {**json.loads(event.payload), "steps": ["Before", "C"]}
    world.broker.queues["A"].waiting.clear()
    assert world.listeners["A"].handle(replace(event, payload=json.dumps(body).encode())) == ACK
    assert world.relays["A"].round() is False  # there is nothing to publish
    assert world.barriers(saga_id) == {}


PIVOT_ALONE = replace(signup(), steps=(replace(signup().steps[0], pivot=True),))


@pytest.mark.parametrize("definition", [signup(), PIVOT_ALONE])
def test_the_log_says_who_abandoned_it_and_why(tmp_path: Path, definition: SagaDefinition) -> None:
    made = ChoreographedWorld(tmp_path, definition)
    saga_id = made.start()
    made.observer.abandoned(saga_id, "gone for good")
    saga = made.row(saga_id)
    assert (saga["status"], saga["error"]["kind"], saga["ended_at"] is not None) == ("COMPENSATED", "cancelled", True)
    assert {step["effect"] for step in saga["steps"]} == {"none"}
    lines = made.log.lines(saga_id)
    assert [line.event for line in lines][:2] == ["started", "abandoned"]
    assert (lines[1].detail or {})["note"] == "gone for good"
    with pytest.raises(Conflict, match="it is compensated"):
        made.observer.abandoned(saga_id, "again")
    made.close()


@pytest.mark.parametrize("service", ["A", "orchestrator"])
def test_a_parked_beginning_is_abandoned_where_no_service_has_got_it(world: ChoreographedWorld, service: str) -> None:
    """The orchestrator parks what its outbox cannot publish; a service what it has heard."""
    saga_id = world.start()
    letter = {"Saga-Service": service, "Saga-Reason": "no"}
    payload = json.dumps({"saga_id": saga_id}).encode()
    world.observer.handle(Delivery("dead.saga.signup.started", payload, 1, 7, letter))
    assert [line.event for line in world.log.lines(saga_id)] == ["started", PARKED]
    if service == "A":
        with pytest.raises(Conflict, match="a service has acted, or has tried to"):
            world.observer.abandoned(saga_id, "gone")
    else:
        world.observer.abandoned(saga_id, "gone")
        assert world.row(saga_id)["status"] == "COMPENSATED"


@pytest.mark.parametrize("flags", ["", "b", "a:before:1"])
def test_a_saga_that_a_service_has_acted_for_is_never_abandoned(world: ChoreographedWorld, flags: str) -> None:
    """At no moment of its life once the log has a line of a service's."""
    saga_id = world.start(flags)
    for _ in range(200):
        told = [line for line in world.log.lines(saga_id) if line.step]
        if told and not world.row(saga_id)["ended_at"]:
            with pytest.raises(Conflict, match="it cannot be abandoned"):
                world.observer.abandoned(saga_id, "gone")
        if not world.round():
            break
    assert world.row(saga_id)["ended_at"]


@pytest.mark.parametrize("command", ["abandoned", "replayed"])
def test_where_others_keep_writing_a_saga_an_operator_is_to_try_again(
    world: ChoreographedWorld, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LogUnavailable is a 503 with Retry-After; the LeaseLost of a driver would be a 500."""

    def lose(saga_id: str, *_: Any, **__: Any) -> None:
        raise LeaseLost(saga_id)

    saga_id = world.start()
    monkeypatch.setattr(world.log, "advance", lose)
    with pytest.raises(LogUnavailable, match="try again"):
        if command == "abandoned":
            world.observer.abandoned(saga_id, "gone")
        else:
            world.observer.replayed(saga_id, 1, "saga.signup.started")


def test_what_is_withdrawn_is_published_by_nobody(world: ChoreographedWorld) -> None:
    from saga.choreography.events import started as events

    saga_id = world.start()
    row = world.log.find(saga_id)
    assert row
    withdraw(world.engines["orchestrator"], events(row.definition, saga_id, row.input, row.started_at))
    world.play()
    assert world.broker.stream == []


def parked(world: ChoreographedWorld, name: str, event: Delivery) -> tuple[list[int], Reaction]:
    """The numbers of the attempts until the event is parked, and how."""
    numbers: list[int] = []
    for number in range(event.number, 200):
        reaction = world.listeners[name].handle(replace(event, number=number))
        numbers.append(number)
        if reaction.park is not None:
            return numbers, reaction
    raise AssertionError("it is not parked")


def test_attempts_are_counted_over_replays(world: ChoreographedWorld) -> None:
    """The log has each of them once, and each replay has as many rounds as the first time."""
    saga_id = world.start("b&a:undo")
    world.play()

    def attempts() -> list[int | None]:
        lines = world.log.lines(saga_id)
        return [line.attempt for line in lines if (line.detail or {}).get("call") == "compensation"]

    first = attempts()
    assert first == list(range(1, len(first) + 1))
    subject, payload = next(event for event in world.broker.stream if event[0] == "saga.signup.B.refused")
    for replay in (1, 2):
        world.observer.replayed(saga_id, replay, subject)
        event = Delivery(subject, payload, 1, 1, {DELIVERIES: str(replay * len(first))})
        numbers, reaction = parked(world, "A", event)
        assert len(numbers) == len(first)
        assert reaction.attempts == (replay + 1) * len(first)
        world.play()
        assert attempts() == list(range(1, (replay + 1) * len(first) + 1))


@pytest.mark.parametrize("content", ["'{broken'", "'[]'", "''", "'7'"])
def test_what_a_step_remembers_and_nobody_can_read_parks_its_event_and_holds_up_no_other_saga(
    world: ChoreographedWorld, content: str
) -> None:
    saga_id = world.start("c")
    world.reach("C")
    while world.broker.deliver("C"):
        pass
    with world.engines["A"].begin() as connection:
        found = connection.execute(text(f"UPDATE saga_inbox SET fields = {content} WHERE giver = {inbox.OWN}"))
        assert found.rowcount == 1
    other = world.start()
    world.play()
    ((subject, reason),) = world.broker.parked
    assert subject == "saga.signup.B.undone"
    assert "mend its row in the saga_inbox of A, giver -2" in reason
    assert world.row(other)["status"] == "COMPLETED"
    saga: Any = world.row(saga_id)
    assert saga["status"] == "COMPENSATING"  # nobody says that it is undone
    assert world.rows(saga_id)["A"] == 1
