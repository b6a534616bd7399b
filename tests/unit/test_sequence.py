"""Who told whom, or who called whom: what is drawn of each log, and what holds for any."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given

from orchestrator.dashboard.log_reader import attempts_of, read_history
from orchestrator.dashboard.saga_stats import SagaStats, stats_of
from orchestrator.dashboard.sequence import HEIGHTS, LETTER, ROWS_AT_MOST, Diagram, sequence
from saga.definition import CHOREOGRAPHY
from saga.machine import CANCEL_REQUESTED, FAULT, OVERDUE, PARKED, RELEASED, REPLAYED, Event
from tests.support.log_writer import SECRET, WORDS_OF_THE_LOG, LogWriter, written_logs

E = Event


def drawn(writer: LogWriter) -> Diagram:
    return sequence(*writer.shown())


def heard(text: str = "A B C!") -> LogWriter:
    return LogWriter(text, mode=CHOREOGRAPHY)


def rows(writer: LogWriter) -> list[tuple[str, str, str, str]]:
    """(kind, from, to, label) of every row."""
    diagram = drawn(writer)
    names = [lane.name for lane in diagram.lanes]
    to = {None: ""} | dict(enumerate(names))
    return [(row.kind, names[row.source], to[row.target], row.label) for row in diagram.rows]


def words(writer: LogWriter) -> list[str]:
    return [row.title for row in drawn(writer).rows]


def test_every_call_is_the_orchestrators_and_has_its_answer() -> None:
    writer = LogWriter()
    writer.call()
    writer.call(500, times=3)
    writer.call()
    writer.call()
    assert rows(writer) == [
        ("call", "orchestrator", "A", "A"),
        ("call", "orchestrator", "B", "B ×3"),
        ("call", "orchestrator", "B", "undo B"),
        ("call", "orchestrator", "A", "undo A"),
    ]
    diagram = drawn(writer)
    assert [(row.answer, row.outcome) for row in diagram.rows] == [
        ("HTTP 200", "done"),
        ("HTTP 500", "unknown"),
        ("HTTP 200", "done"),
        ("HTTP 200", "done"),
    ]
    assert words(writer)[1] == "the orchestrator calls B, attempts 1 to 3: HTTP 500"
    assert words(writer)[3] == "the orchestrator calls A to undo it, attempt 1: HTTP 200"
    assert not diagram.observed


def test_an_answer_that_never_came_is_no_answer_and_one_under_way_is_drawn() -> None:
    writer = LogWriter("A B")
    writer.attempt(None)
    writer.attempt(None, "refused")
    assert [(row.label, row.answer, row.at) for row in drawn(writer).rows] == [
        ("A", "no answer", "10 ms"),
        ("A", "no connection", "20 ms"),
        ("A", "no answer yet", "now"),
    ]


def test_what_happens_to_the_orchestrator_is_noted_at_its_lane() -> None:
    writer = LogWriter("A B")
    writer.add_line(FAULT, {"fault": "before-A"})
    writer.claim()
    writer.add_line(RELEASED)
    writer.claim(was_held=False)
    writer.call()
    writer.add_line(CANCEL_REQUESTED, step="B")
    writer.event(E.CANCELLED)
    notes = [(kind, source, label) for kind, source, _, label in rows(writer) if kind in ("note", "gone")]
    assert notes == [
        (kind, "orchestrator", label)
        for kind, label in (
            ("note", "crashes"),
            ("gone", "orchestrator gone, about 10 s"),
            ("note", "it hands over"),
            ("note", "cancel: the pivot decides"),
            ("note", "cancelled"),
        )
    ]


def test_a_call_that_a_crash_cut_short_is_drawn_and_so_is_how_long_nobody_was_there() -> None:
    writer = LogWriter("A B C!")
    writer.call()
    writer.claim(seconds=12)
    writer.call()
    assert [(row.kind, row.label, row.outcome, row.seq) for row in drawn(writer).rows[1:4]] == [
        ("lost", "B, attempt 1: answer never recorded", "unknown", 4),
        ("gone", "orchestrator gone, about 12 s", "", 4),
        ("call", "B", "done", 5),
    ]
    assert words(writer)[1:4] == [
        "the orchestrator perhaps calls B, attempt 1: no answer is recorded",
        "another orchestrator takes it over: its own has crashed, stopped or lost its lease; nothing was written for "
        "12 s",
        "the orchestrator calls B, attempt 2: HTTP 200",
    ]


@pytest.mark.parametrize(("fault", "calls"), [("before-B", []), ("after-B", ["B, attempt 1: answer never recorded"])])
def test_a_crash_that_was_asked_for_happened_where_it_was_asked_for(fault: str, calls: list[str]) -> None:
    writer = LogWriter("A B C!")
    writer.call()
    writer.add_line(FAULT, {"fault": fault}, step="B")
    writer.claim(seconds=12)
    writer.call()
    assert [row[3] for row in rows(writer)][1:] == [*calls, "crashes", "orchestrator gone, about 12 s", "B", "C"]


@pytest.mark.parametrize("why", [None, "cancelled"])
def test_a_cancel_is_no_crash(why: str | None) -> None:
    """Neither in a log that says why the saga was claimed, nor in an older one."""
    writer = LogWriter("A B C!")
    writer.call()
    writer.attempt(500)
    writer.claim(seconds=0.5, why=why)
    writer.event(E.CANCELLED, "cancelled")
    writer.call()
    writer.call()
    assert [row[3] for row in rows(writer)][1:] == [
        "B",
        "B, attempt 2: answer not awaited",
        "cancelled",
        "undo B",
        "undo A",
    ]
    assert "gone" not in [row.kind for row in drawn(writer).rows]
    assert words(writer)[2] == "the orchestrator perhaps calls B, attempt 2: an operator does not wait for its answer"
    told = read_history(writer.shown()[1])
    assert (told.taken_over, told.crashes) == (0, 0)
    assert attempts_of(told) == {"A": 1, "B": 2}


def test_a_cancel_between_two_calls_draws_no_call_of_the_step_that_was_never_called() -> None:
    writer = LogWriter("A B C!")
    writer.call()
    writer.claim(was_held=False, why="cancelled")
    writer.event(E.CANCELLED, "cancelled")
    writer.call()
    assert [row[3] for row in rows(writer)] == ["A", "cancelled", "undo A"]
    assert attempts_of(read_history(writer.shown()[1]))["B"] == 0


@pytest.mark.parametrize("why", ["cancelled", "resumed", "resolved"])
def test_what_an_operator_took_was_not_taken_over_after_a_crash(why: str) -> None:
    writer = LogWriter("A B C!")
    writer.call()
    writer.claim(why=why)
    writer.call()
    assert "gone" not in [row[0] for row in rows(writer)]
    assert read_history(writer.shown()[1]).taken_over == 0


def test_events_go_from_step_to_step_and_the_orchestrator_only_listens() -> None:
    writer = heard()
    for _ in range(3):
        writer.call()
    assert rows(writer) == [
        ("event", "orchestrator", "A", "saga.test.started"),
        ("attempt", "A", "", "acts"),
        ("event", "A", "B", "saga.test.A.done"),
        ("attempt", "B", "", "acts"),
        ("event", "B", "C", "saga.test.B.done"),
        ("attempt", "C", "", "acts"),
        ("event", "C", "", "saga.test.C.done"),
    ]
    diagram = drawn(writer)
    assert diagram.observed
    assert [row.heard for row in diagram.rows if row.kind == "event"] == [False, True, True, True]
    assert words(writer)[2] == "A publishes saga.test.A.done: B hears it, and acts"
    assert words(writer)[6] == "C publishes saga.test.C.done: nobody has to act on it"


def test_the_way_back_runs_from_neighbour_to_neighbour() -> None:
    writer = heard("A B C")
    writer.call()
    writer.call()
    writer.call(409)
    writer.call()
    writer.call()
    assert rows(writer)[5:] == [
        ("attempt", "C", "", "refuses"),
        ("event", "C", "B", "saga.test.C.refused"),
        ("attempt", "B", "", "undoes itself"),
        ("event", "B", "A", "saga.test.B.undone"),
        ("attempt", "A", "", "undoes itself"),
        ("event", "A", "", "saga.test.A.undone"),
    ]
    assert words(writer)[6] == "C publishes saga.test.C.refused: B hears it, and undoes itself"


def test_a_step_that_cannot_be_undone_passes_it_on() -> None:
    writer = heard("A B* C")
    writer.call()
    writer.call()
    writer.call(409)
    writer.call()
    assert words(writer)[6:8] == [
        "C publishes saga.test.C.refused: B hears it, and cannot be undone: it passes it on",
        "A, attempt 1: it undoes itself",
    ]


def test_attempts_are_deliveries_of_the_same_event() -> None:
    writer = heard("A B")
    writer.attempt(500)
    writer.attempt(500)
    writer.attempt(None)
    writer.attempt(503, "refused")
    assert rows(writer)[1:] == [
        ("attempt", "A", "", "may have failed ×2"),
        ("attempt", "A", "", "takes too long"),
        ("attempt", "A", "", "fails"),
        ("attempt", "A", "", "nothing heard yet"),
    ]
    assert words(writer)[1] == "A, attempts 1 to 2 (what it heard is delivered again once): it may have failed"


def test_a_parked_event_waits_at_its_service_until_an_operator_replays_it() -> None:
    writer = heard("A B")
    writer.call()
    writer.add_line(PARKED, {"letter": 3, "subject": "saga.test.A.done"}, step="B")
    writer.add_line(OVERDUE)
    assert rows(writer)[3:] == [("note", "B", "", "parked"), ("note", "orchestrator", "", "overdue")]
    writer.add_line(REPLAYED, {"letter": 3, "subject": "saga.test.A.done"})
    writer.call()
    assert rows(writer)[5:] == [
        ("event", "orchestrator", "B", "replayed: saga.test.A.done"),
        ("attempt", "B", "", "acts"),
        ("event", "B", "", "saga.test.B.done"),
    ]


def test_rounds_are_told_once_and_a_rest_is_drawn_while_it_lasts() -> None:
    for writer, label, rests in (
        (LogWriter("A B"), "undo A ×4", "it rests"),
        (heard("A B"), "fails to undo itself ×4", "rests"),
    ):
        writer.call()
        writer.call(409)
        writer.call(500, times=2, verdict="refused")
        writer.event(E.RESUMED, seconds=1)
        writer.call(500, times=2, verdict="refused")
        assert [row[3] for row in rows(writer)][-2:] == [label, rests]
        assert "in 2 rounds" in words(writer)[-2]


def test_a_long_saga_is_drawn_with_its_middle_left_out() -> None:
    writer = heard(" ".join(f"S{number}" for number in range(100)))
    for _ in range(100):
        writer.call()
    diagram = drawn(writer)
    assert len(diagram.rows) == ROWS_AT_MOST
    assert diagram.rows[ROWS_AT_MOST // 2].label == "… 122 more"
    assert diagram.rows[-1].label == "saga.test.S99.done"


def test_what_it_cost_is_counted() -> None:
    for writer, messages in ((LogWriter(), 8), (heard(), 4)):
        writer.call(seconds=1.0)
        writer.call(500, times=3)
        assert stats_of(*writer.shown()) == SagaStats(messages - (2 if messages == 4 else 4), 4, 2, None)
        writer.attempt(500)
        writer.call()
        writer.call(seconds=0.5)
        cost = stats_of(*writer.shown())
        assert (cost.attempts, cost.again) == (7, 3)
        assert cost.seconds is not None
        assert 1.5 < cost.seconds < 1.6


@given(written_logs())
def test_nothing_overlaps_and_no_secret_is_drawn(writer: LogWriter) -> None:
    diagram = drawn(writer)
    assert all(after.y - before.y >= HEIGHTS[after.kind] for before, after in pairwise(diagram.rows))
    assert diagram.height > max((row.y for row in diagram.rows), default=0)
    gap = diagram.lanes[1].x - diagram.lanes[0].x
    across = [row for row in diagram.rows if row.kind in ("lost", "gone")]
    others = [row for row in diagram.rows if row not in across]
    assert all(LETTER * len(text) < gap for row in others for text in (row.label, row.answer))
    assert all(diagram.lanes[0].x + LETTER * len(row.label) < diagram.width for row in across)
    assert all(0 <= row.source < len(diagram.lanes) for row in diagram.rows)
    assert SECRET not in str(diagram)


@given(written_logs(WORDS_OF_THE_LOG))
def test_a_log_whose_own_words_are_masked_can_be_drawn(writer: LogWriter) -> None:
    drawn(writer)
    stats_of(*writer.shown())


@given(written_logs())
def test_every_arrow_between_services_is_one_to_a_neighbour(writer: LogWriter) -> None:
    for row in drawn(writer).rows:
        if row.kind == "event" and row.source and row.target is not None:
            assert abs(row.target - row.source) == 1
        if row.kind == "call":
            assert row.source == 0
