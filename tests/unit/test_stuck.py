"""What a saga is stuck at, as the panel on its page says it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.dashboard.log_reader import read_history
from orchestrator.dashboard.stuck import Stuck, flight_of, stuck_at
from saga.definition import CHOREOGRAPHY
from saga.machine import OVERDUE, PARKED, REPLAYED, Event
from tests.support.log_writer import LogWriter

E = Event


def stuck(writer: LogWriter) -> Stuck | None:
    saga, lines = writer.shown()
    return stuck_at(writer.row, saga, read_history(lines), lines)


def stalled_at_a() -> LogWriter:
    writer = LogWriter()
    writer.call()
    writer.call(409)
    writer.call(500, times=3, message="locked")
    return writer


def test_a_stalled_saga_says_which_call_where_since_when_and_what_was_answered_last() -> None:
    writer = stalled_at_a()
    found = stuck(writer)
    assert found
    assert (found.kind, found.call, found.undoing) == ("stalled", "undo A", True)
    assert (found.address, found.service) == ("http://A/undo", "http://A")
    assert (found.rounds, found.last_answer, found.command_result) == (1, "HTTP 500: locked", "")
    assert found.due_at == writer.shown()[0]["due_at"]
    assert found.since == writer.shown()[1][-1]["at"]


def test_what_came_of_a_retry_is_said_in_place() -> None:
    writer = stalled_at_a()
    since = stuck(writer).since  # type: ignore[union-attr]
    writer.event(E.RESUMED, seconds=1, by="operator")
    under_way = stuck(writer)
    assert under_way
    assert (under_way.trying, under_way.command_result) == (True, "Retried: attempt 4 is under way")
    writer.call(500, times=3, message="locked")
    again = stuck(writer)
    assert again
    assert (again.command_result, again.rounds, again.since) == ("Retried: HTTP 500 again", 2, since)
    writer.event(E.RESUMED, seconds=1)  # by itself
    writer.call(503, times=1, verdict="refused")
    assert stuck(writer).command_result == ""  # type: ignore[union-attr]
    writer.event(E.RESUMED, seconds=1, by="operator")
    writer.call(500, times=1)
    assert stuck(writer).command_result == "Retried: HTTP 500"  # type: ignore[union-attr]


def test_past_the_pivot_it_is_stuck_at_an_action() -> None:
    writer = LogWriter("A! B")
    writer.call()
    writer.call(None)
    found = stuck(writer)
    assert found
    assert (found.call, found.undoing, found.address, found.last_answer) == ("B", False, "http://B/do", "no answer")


def test_of_a_choreographed_saga_the_service_to_mend_is_named() -> None:
    writer = LogWriter("A B", mode=CHOREOGRAPHY)
    writer.call()
    writer.call(409)
    writer.add_line(PARKED, {"letter": 1, "subject": "saga.test.B.refused", "message": "disk full"}, step="A")
    found = stuck(writer)
    assert found
    assert (found.kind, found.step, found.call, found.service) == ("parked", "A", "undo A", "http://A")
    assert (found.last_answer, found.parked, found.due_at) == ("disk full", 1, None)
    writer.add_line(REPLAYED, {"letter": 1, "subject": "saga.test.B.refused"})
    assert stuck(writer) is None
    writer.add_line(PARKED, {"letter": 2, "subject": "saga.test.B.refused", "message": "disk full"}, step="A")
    assert stuck(writer).command_result == "Replayed: parked again (disk full)"  # type: ignore[union-attr]


def test_an_overdue_saga_names_the_service_that_it_waits_for() -> None:
    writer = LogWriter("A B", mode=CHOREOGRAPHY)
    writer.call()
    writer.add_line(OVERDUE)
    found = stuck(writer)
    assert found
    assert (found.kind, found.step, found.call, found.service) == ("overdue", "B", "B", "http://B")


def test_what_goes_on_or_has_ended_is_not_stuck() -> None:
    writer = LogWriter("A B")
    assert stuck(writer) is None
    writer.call()
    writer.call()
    assert stuck(writer) is None


def test_an_attempt_that_may_be_under_way_has_a_number_and_a_beginning() -> None:
    writer = LogWriter("A B")
    writer.call(seconds=1)
    flight = flight_of(writer.row)
    assert flight
    assert (flight.step, flight.number, flight.first, flight.undoing) == ("B", 1, True, False)
    assert flight.since == writer.shown()[1][-1]["at"]
    writer.attempt(503, "refused")
    assert flight_of(writer.row).number == 2  # type: ignore[union-attr]
    writer.call(409)
    undoing = flight_of(writer.row)
    assert undoing
    assert (undoing.step, undoing.undoing) == ("A", True)
    assert flight_of(replace(writer.row, owner=None)) is None
