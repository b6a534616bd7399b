"""A saga's time as a chart: what is drawn of each log, and what holds for any."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.dashboard.formatting import length
from orchestrator.dashboard.time_axis import Tick
from orchestrator.dashboard.timeline import BARS_AT_MOST, Timeline, TimelineRow, timeline
from orchestrator.dashboard.timeline_bars import ATTEMPTS
from saga.definition import CHOREOGRAPHY
from saga.machine import CANCEL_REQUESTED, RELEASED, Event
from tests.support.log_writer import START, WORDS_OF_THE_LOG, LogWriter, written_logs

E = Event


def drawn(writer: LogWriter, now: float | None = None) -> Timeline:
    return timeline(*writer.shown(), now=now)


def bars(chart: Timeline) -> list[tuple[str, str, float, float, str]]:
    """(row, kind, left, width, outcome) of every bar."""
    return [(row.label, bar.kind, bar.left, bar.width, bar.outcome) for row in chart.rows for bar in row.bars]


def titles(chart: Timeline, label: str) -> list[str]:
    return [bar.title for row in chart.rows if row.label == label for bar in row.bars]


def test_an_attempt_ends_when_its_line_says_and_is_as_long_as_it_took() -> None:
    writer = LogWriter("A B")
    writer.call(took=0.2, seconds=0.3)
    writer.call(took=0.6, seconds=0.7)
    chart = drawn(writer)
    assert bars(chart) == [("A", "attempt", 10.0, 20.0, "done"), ("B", "attempt", 40.0, 60.0, "done")]
    assert (chart.start, chart.end) == (START, START + 1)


def test_of_a_choreographed_saga_nobody_is_said_to_answer() -> None:
    writer = LogWriter("A", mode=CHOREOGRAPHY)
    writer.attempt(500, took=0.2, seconds=0.2)
    assert titles(drawn(writer, writer.now + 1), "A") == [
        "A action, attempt 1: unknown in 200 ms",
        "A action, attempt 2: nothing heard yet",
    ]


def test_between_two_attempts_it_waits() -> None:
    writer = LogWriter("A")
    writer.attempt(500, took=0.2, seconds=0.2)
    writer.attempt(None, took=0.1, seconds=0.5)
    writer.attempt(None, "refused", took=0.0, seconds=0.2)
    writer.call(took=0.1, seconds=0.1)
    chart = drawn(writer)
    assert bars(chart) == [
        ("A", "attempt", 0.0, 20.0, "unknown"),
        ("A", "wait", 20.0, 40.0, ""),
        ("A", "attempt", 60.0, 10.0, "unknown"),
        ("A", "wait", 70.0, 20.0, ""),
        ("A", "attempt", 90.0, 10.0, "done"),
    ]
    assert titles(chart, "A") == [
        "A action, attempt 1: HTTP 500 in 200 ms (unknown)",
        "waited 400 ms before attempt 2",
        "A action, attempt 2: no answer in 100 ms (unknown)",
        "waited 200 ms before attempt 3",
        "2 attempts in 100 ms: 1 refused, 1 done; the last: A action, attempt 4: HTTP 200 in 100 ms (done)",
    ]
    assert [(bar.count, bar.counted) for bar in chart.rows[0].bars] == [(1, "")] * 4 + [(2, "×2")]


def test_crowded_attempts_are_one_bar_that_counts_them_and_none_is_moved() -> None:
    """Of nine attempts within a hundredth of the width, and one a long time after them."""
    writer = LogWriter("A B")
    writer.call()
    writer.call(409)
    for _ in range(3):
        for _ in range(2):
            writer.attempt(500, took=0.001, seconds=0.002)
        writer.call(500, took=0.001, seconds=0.002)
        writer.event(E.RESUMED, seconds=0.01)
    writer.now += 10
    writer.call(took=1, seconds=1)
    chart = drawn(writer)
    undo = next(row for row in chart.rows if row.label == "undo A")
    crowd, *_, last = undo.bars
    assert (crowd.count, crowd.counted, crowd.outcome) == (9, "×9", "unknown")
    assert crowd.left == pytest.approx(100 * 0.02 / (chart.end - chart.start), abs=0.02)
    second = 100 / (chart.end - START)
    assert (last.left, last.width) == pytest.approx((100 - second, second), abs=0.02)


def test_every_step_has_a_row_and_compensations_follow_in_the_order_of_their_calls() -> None:
    writer = LogWriter("A B C D")
    writer.call()
    writer.call()
    writer.call(409)
    writer.call()
    writer.call()
    chart = drawn(writer)
    assert [row.label for row in chart.rows] == ["A", "B", "C", "D", "undo B", "undo A"]
    assert chart.rows[3] == TimelineRow("D", (), "D")
    assert titles(chart, "undo B") == ["B compensation, attempt 1: HTTP 200 in 10 ms (done)"]


def test_a_stall_lasts_until_it_is_tried_again() -> None:
    writer = LogWriter("A! B")
    writer.call(took=0.5, seconds=0.5)
    writer.call(400, took=0.5, seconds=0.5)
    writer.event(E.RESUMED, seconds=1)
    writer.call(400, took=0.5, seconds=0.5)
    writer.event(E.RESOLVED, seconds=1.5)
    chart = drawn(writer)
    assert bars(chart)[1:] == [
        ("B", "attempt", 12.5, 12.5, "refused"),
        ("B", "stalled", 25.0, 25.0, ""),
        ("B", "attempt", 50.0, 12.5, "refused"),
        ("B", "stalled", 62.5, 37.5, ""),
    ]
    assert titles(chart, "B")[1::2] == ["stalled 1 s (round 1)", "stalled 1.5 s (round 2)"]


def test_a_stall_goes_on_to_now_and_on_the_row_of_the_call_that_stalled() -> None:
    writer = LogWriter("A B!")
    writer.call()
    writer.call(None)
    writer.call(500)
    chart = drawn(writer, writer.now + 4.2)
    assert titles(chart, "undo B")[-1] == "stalled 4.2 s so far (round 1)"
    stalled = chart.rows[-1].bars[-1]
    assert stalled.left + stalled.width == pytest.approx(chart.now, abs=0.01)
    assert stalled.until.startswith("2001-09-09T01:46:4")  # it grows on, to the end of the axis
    assert chart.end > writer.now + 4.2
    assert drawn(writer).end == pytest.approx(writer.now)


@pytest.mark.parametrize(
    ("calls", "label", "title"),
    [
        ([200], "B", "B action, attempt 1: no answer yet"),
        ([200, 409], "undo A", "A compensation, attempt 1: no answer yet"),
    ],
)
def test_what_has_no_answer_yet_runs_up_to_now(calls: list[int], label: str, title: str) -> None:
    writer = LogWriter("A B C")
    for status in calls:
        writer.call(status)
    chart = drawn(writer, writer.now + 1)
    assert [(row, kind) for row, kind, *_ in bars(chart)][-1] == (label, "running")
    assert titles(chart, label) == [title]
    assert "running" not in {kind for _, kind, *_ in bars(drawn(writer))}


def test_an_attempt_that_a_crash_may_have_cut_short_counts() -> None:
    writer = LogWriter("A")
    writer.claim(seconds=2)
    gone = "A action, attempt 1: no answer is recorded; after 2 s the orchestrator was gone, and another took over"
    assert titles(drawn(writer, writer.now + 1), "A") == [gone, "A action, attempt 2: no answer yet"]
    writer.call(took=1, seconds=1)
    assert titles(drawn(writer), "A") == [gone, "A action, attempt 2: HTTP 200 in 1 s (done)"]
    chart = drawn(writer)
    assert [kind for _, kind, *_ in bars(chart)] == ["lost", "attempt"]
    assert [(band.left, band.label) for band in chart.bands] == [(0.0, "orchestrator gone, about 2 s")]
    assert chart.bands[0].width == pytest.approx(100 * 2 / 3, abs=0.1)


def test_a_crash_in_a_compensation_is_on_the_row_of_that_compensation() -> None:
    writer = LogWriter("A B")
    writer.call()
    writer.call(409)
    writer.claim(seconds=2)
    for chart in (drawn(writer, writer.now + 1), drawn(after_call(writer))):
        assert next(kind for row, kind, *_ in bars(chart) if row == "undo A") == "lost"
        assert len(chart.bands) == 1
        assert not [kind for _, kind, *_ in bars(chart) if kind == "wait"]


@pytest.mark.parametrize("why", [None, "cancelled"])
def test_a_cancel_is_no_crash(why: str | None) -> None:
    """Neither in a log that says why it was claimed, nor in an older one."""
    writer = LogWriter("A B C!")
    writer.call()
    writer.claim(seconds=2, why=why)
    writer.event(E.CANCELLED, "cancelled")
    writer.call()
    chart = drawn(writer)
    assert titles(chart, "B") == ["B action, attempt 1: no answer is recorded; after 2 s an operator took the saga"]
    assert [(row, kind) for row, kind, *_ in bars(chart)] == [("A", "attempt"), ("B", "cut"), ("undo B", "attempt")]
    assert chart.bands == ()


def test_a_cancel_between_two_calls_draws_no_call_of_the_step_that_was_never_called() -> None:
    writer = LogWriter("A B C!")
    writer.call()
    writer.claim(was_held=False, seconds=2, why="cancelled")
    writer.event(E.CANCELLED, "cancelled")
    writer.call()
    assert [(row, kind) for row, kind, *_ in bars(drawn(writer))] == [("A", "attempt"), ("undo A", "attempt")]


def after_call(writer: LogWriter) -> LogWriter:
    writer.call()
    return writer


def test_an_ended_saga_ends() -> None:
    writer = LogWriter("A")
    writer.call()
    assert drawn(writer, writer.now + 1000) == drawn(writer)


def test_notes_draw_nothing() -> None:
    writer = LogWriter("A")
    writer.add_line(RELEASED)
    writer.add_line(CANCEL_REQUESTED, {"by": "operator"}, step="A")
    assert bars(drawn(writer)) == []


def test_clocks_that_disagree_draw_nothing_backwards() -> None:
    """Another orchestrator's clock is half a second behind: its line is taken to be as late as the one before it."""
    writer = LogWriter("A B")
    writer.call(took=1, seconds=1)
    writer.call(took=1, seconds=-0.5)
    assert bars(drawn(writer)) == [("A", "attempt", 0.0, 100.0, "done"), ("B", "attempt", 99.6, 0.4, "done")]


def test_without_a_line_there_is_nothing_to_draw() -> None:
    saga, _ = LogWriter("A").shown()
    assert timeline(saga, [], 5.0) == Timeline(0.0, 0.0, (Tick(0.0, "0"),), (TimelineRow("A", (), "A"),))


def test_a_stall_is_drawn_as_long_as_it_was_however_long() -> None:
    """The axis is to scale: what happened before a long rest is as narrow as it was short."""
    writer = LogWriter("A! B")
    writer.call(took=0.5, seconds=0.5)
    writer.call(400, took=0.5, seconds=0.5)
    writer.event(E.RESUMED, seconds=98)
    writer.call(took=1, seconds=1)
    chart = drawn(writer)
    assert bars(chart) == [
        ("A", "attempt", 0.0, 0.5, "done"),
        ("B", "attempt", 0.5, 0.5, "refused"),
        ("B", "stalled", 1.0, 98.0, ""),
        ("B", "attempt", 99.0, 1.0, "done"),
    ]
    assert [(tick.left, tick.label) for tick in chart.ticks] == [
        (0.0, "0"), (20.0, "20 s"), (40.0, "40 s"), (60.0, "1 min"), (80.0, "1 min 20 s"), (100.0, "1 min 40 s"),
    ]  # fmt: skip


def test_what_runs_grows_and_the_axis_has_room_for_its_time_out() -> None:
    writer = LogWriter("A B")
    writer.call(took=1, seconds=1)
    chart = timeline(*writer.shown(), now=writer.now + 1, timeouts={"B": 3.0})
    running = chart.rows[1].bars[0]
    assert chart.end == pytest.approx(START + 4)
    assert (running.kind, running.left, running.width) == ("running", 25.0, 25.0)
    assert (running.since, running.until) == ("2001-09-09T01:46:41.000Z", "2001-09-09T01:46:44.000Z")
    assert chart.now == 50.0


def test_a_row_of_very_many_bars_begins_with_one_for_all_the_old_ones() -> None:
    writer = LogWriter("A! B")
    writer.call()
    for _ in range(100):
        writer.call(400, took=1, seconds=1)
        writer.event(E.RESUMED, seconds=299)
    chart = drawn(writer)
    assert len(chart.rows[1].bars) == BARS_AT_MOST
    assert titles(chart, "B")[0] == "51 earlier attempts, and the waits between them: 4 h 10 min"
    assert titles(chart, "B")[1] == "stalled 4 min 59 s (round 51)"


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        (0.042, ["0", "10 ms", "20 ms", "30 ms", "40 ms"]),
        (1.0, ["0", "200 ms", "400 ms", "600 ms", "800 ms", "1 s"]),
        (9.0, ["0", "2 s", "4 s", "6 s", "8 s"]),
        (240.0, ["0", "1 min", "2 min", "3 min", "4 min"]),
        (7000.0, ["0", "20 min", "40 min", "1 h", "1 h 20 min", "1 h 40 min"]),
        (400_000.0, ["0", "1 d", "2 d", "3 d", "4 d"]),
    ],
)
def test_the_axis_has_about_five_round_marks(seconds: float, labels: list[str]) -> None:
    writer = LogWriter("A")
    writer.call(took=seconds, seconds=seconds)
    ticks = drawn(writer).ticks
    assert [tick.label for tick in ticks] == labels
    assert ticks[0].left == 0.0
    assert ticks[1].left == pytest.approx(ticks[2].left / 2, abs=0.01)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 ms"), (0.00042, "0.4 ms"), (0.012, "12 ms"), (0.99994, "999.9 ms"), (0.99996, "1 s"), (4.23, "4.2 s"),
        (59.96, "1 min"), (90, "1 min 30 s"), (3600, "1 h"), (3661, "1 h 1 min"), (90_000, "1 d 1 h"),
        (86_405, "1 d"),
    ],
)  # fmt: skip
def test_a_length_is_told_in_the_unit_that_fits(seconds: float, words: str) -> None:
    assert length(seconds) == words


@given(written_logs(), st.sampled_from([None, 0.0, 0.5, 4000.0]))
def test_bars_lie_within_the_chart_in_order_none_too_narrow_to_see(writer: LogWriter, later: float | None) -> None:
    chart = drawn(writer, None if later is None else writer.now + later)
    for row in chart.rows:
        for bar in row.bars:
            assert bar.left >= 0
            assert bar.width >= 0.4
            assert bar.left + bar.width <= 100 + 1e-9
            assert (round(bar.left, 2), round(bar.width, 2)) == (bar.left, bar.width)
            assert bar.kind in ("attempt", "wait", "stalled", "running", "lost", "cut")
            assert bar.outcome in ("done", "refused", "unknown", "")
            assert bar.title
            assert "{}" not in bar.title
        for bar, following in pairwise(row.bars):
            assert bar.left + bar.width <= following.left + 1e-9
    attempts = sum(line.event == "attempt" for line in writer.lines)
    taken = sum(line.event == "claimed" for line in writer.lines)
    drawn_ones = sum(bar.count for row in chart.rows for bar in row.bars if bar.kind in ATTEMPTS)
    assert attempts <= drawn_ones <= attempts + taken


@given(written_logs(WORDS_OF_THE_LOG))
def test_a_log_whose_own_words_are_masked_can_be_drawn(writer: LogWriter) -> None:
    assert drawn(writer, writer.now + 1).rows[0].label == "A"


@given(written_logs())
def test_marks_lie_within_the_chart_in_order_and_apart(writer: LogWriter) -> None:
    ticks = drawn(writer).ticks
    assert 1 <= len(ticks) <= 20
    assert all(0 <= tick.left <= 100 for tick in ticks)
    assert all(before.left + 4.9 <= after.left for before, after in pairwise(ticks))
    assert len({tick.label for tick in ticks}) == len(ticks)
