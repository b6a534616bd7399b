"""A saga in plain words: what each log comes to, and that nothing else is claimed."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given

from orchestrator.dashboard.log_reader import with_gaps
from orchestrator.dashboard.summary import root_cause, summarize
from saga.definition import CHOREOGRAPHY
from saga.machine import CANCEL_REQUESTED, FAULT, OVERDUE, PARKED, RELEASED, REPLAYED, Event, interrupted
from tests.support.log_writer import SECRET, WORDS_OF_THE_LOG, LogWriter, written_logs

E = Event


def fails_at_b(writer: LogWriter) -> None:
    writer.call()
    writer.call(500, times=3, message="out of disk")


def stalls_at_a(writer: LogWriter) -> None:
    """B refuses, and A does not let itself be undone, for two rounds."""
    writer.call()
    writer.call(409, message="no such address")
    writer.call(500, times=3)
    writer.event(E.RESUMED, seconds=1)
    writer.call(500, times=3, message="locked")


def sealing(writer: LogWriter) -> None:
    writer.call()
    writer.call()
    writer.call(None, times=3, message="no answer within 5 s")


def completed(s: LogWriter) -> None:
    for _ in range(3):
        s.call()


def retried(s: LogWriter) -> None:
    s.call()
    s.attempt(503, "refused")
    s.attempt(503, "refused")
    s.call()
    s.attempt(None)
    s.attempt(None, "refused")
    s.attempt(200, "unknown")
    s.call()


def refused(s: LogWriter) -> None:
    s.call()
    s.call(409, message="no such\n address")


def refused_after_no_answer(s: LogWriter) -> None:
    s.call()
    s.attempt(None)
    s.call(409, message="you again")


def refused_first(s: LogWriter) -> None:
    s.call(409)


def timed_out(s: LogWriter) -> None:
    s.call()
    s.call(None, times=3)
    s.call()
    s.call()


def failed_without_effect(s: LogWriter) -> None:
    s.call()
    s.call(500, times=3, verdict="refused", message="out of disk")
    s.call()


def deadline_between(s: LogWriter) -> None:
    s.call()
    s.event(E.DEADLINE_PASSED, "deadline")
    s.call()


def deadline_in_an_answer(s: LogWriter) -> None:
    s.call()
    s.attempt()
    s.event(E.DEADLINE_PASSED, "deadline")
    s.call()
    s.call()


def cancelled_in_a_call(s: LogWriter) -> None:
    s.call()
    s.claim(seconds=0)
    s.event(E.CANCELLED, "cancelled")
    s.call()
    s.call()


def cancelled_while_retrying(s: LogWriter) -> None:
    s.call()
    s.attempt(500)
    s.claim(seconds=0)
    s.event(E.CANCELLED, "cancelled")
    s.call()


def cancel_asked_at_the_pivot(s: LogWriter) -> None:
    s.call()
    s.call()
    s.claim(seconds=0)
    s.add_line(CANCEL_REQUESTED, {"by": "operator"}, step="C")
    s.call()


def committed(s: LogWriter) -> None:
    sealing(s)
    s.call(409)


def sealed(s: LogWriter) -> None:
    sealing(s)
    s.call()
    s.call()
    s.call()


def sealed_by_hand(s: LogWriter) -> None:
    sealing(s)
    s.call(500)
    s.event(E.RESOLVED, note="not charged, Ada")
    s.call()
    s.call()


def resolved(s: LogWriter) -> None:
    stalls_at_a(s)
    s.event(E.RESOLVED, note="removed by hand,\nAda")


def taken_over(s: LogWriter) -> None:
    s.call()
    s.claim()
    s.claim()
    s.call()
    s.add_line(RELEASED)
    s.claim(was_held=False)
    s.call()


def crashed_in_a_call_that_then_fails(s: LogWriter) -> None:
    s.call()
    s.claim()
    s.call(500, times=2)


def running(s: LogWriter) -> None:
    s.call()
    s.call()


def running_again(s: LogWriter) -> None:
    s.call()
    s.attempt(500)


def long_note(s: LogWriter) -> None:
    stalls_at_a(s)
    s.event(E.RESOLVED, note="x" * 1000)


TOLD: list[tuple[Callable[[LogWriter], None], str, str | None]] = [
    (completed, "All 3 steps took effect.", None),
    (
        retried,
        "All 3 steps took effect. B answered HTTP 503 twice before it succeeded; C gave no answer once, could not be "
        "reached once and answered HTTP 200 without a JSON object once before it succeeded.",
        None,
    ),
    (refused, "B refused (HTTP 409: “no such address”), so it turns back. The compensation of A has not answered yet "
     "(attempt 1).", "B refused (HTTP 409: “no such address”)"),
    (refused_first, "A refused, so nothing had to be undone.", "A refused"),
    (
        refused_after_no_answer,
        "B refused after 2 attempts (HTTP 409: “you again”); whether it took effect was unknown, so it turns back. "
        "The compensation of B has not answered yet (attempt 1).",
        "B refused after 2 attempts (HTTP 409: “you again”)",
    ),
    (
        timed_out,
        "B timed out after 3 attempts; whether it took effect was unknown, so B was undone as well as A.",
        "B timed out after 3 attempts",
    ),
    (
        failed_without_effect,
        "B failed after 3 attempts (HTTP 500: “out of disk”) and changed nothing, so A was undone.",
        "B failed after 3 attempts (HTTP 500: “out of disk”)",
    ),
    (deadline_between, "The deadline passed before B was called, so A was undone.",
     "The deadline passed before B was called"),
    (
        deadline_in_an_answer,
        "The deadline passed at B; B had taken effect, so B was undone as well as A.",
        "The deadline passed at B",
    ),
    (
        cancelled_in_a_call,
        "An operator cancelled it at B; B may have been called, so B was undone as well as A.",
        "An operator cancelled it at B",
    ),
    (
        cancelled_while_retrying,
        "An operator cancelled it at B, so it turns back. B was undone; the compensation of A has not answered yet "
        "(attempt 1).",
        "An operator cancelled it at B",
    ),
    (
        cancel_asked_at_the_pivot,
        "All 3 steps took effect. An operator asked to cancel it at C, which was left to the outcome of C.",
        None,
    ),
    (
        sealing,
        "C timed out after 3 attempts (no answer within 5 s); whether it took effect was unknown, so C was asked to "
        "undo it. The compensation of C has not answered yet (attempt 1).",
        "C timed out after 3 attempts (no answer within 5 s)",
    ),
    (
        committed,
        "C failed after 3 attempts (no answer within 5 s); whether it took effect was unknown. Asked to undo it, C "
        "answered that it had committed, so the saga went forward and all 3 steps took effect.",
        None,
    ),
    (
        sealed,
        "C timed out after 3 attempts (no answer within 5 s); whether it took effect was unknown. Asked to undo it, C "
        "answered that it had not committed, and is sealed, so B and A were undone.",
        "C timed out after 3 attempts (no answer within 5 s)",
    ),
    (
        sealed_by_hand,
        "C timed out after 3 attempts (no answer within 5 s); whether it took effect was unknown. An operator marked "
        "the compensation of C as done by hand: “not charged, Ada”, so B and A were undone.",
        "C timed out after 3 attempts (no answer within 5 s)",
    ),
    (
        stalls_at_a,
        "B refused (HTTP 409: “no such address”), so it turns back. Stalled since 2001-09-09 01:46:40 UTC: the "
        "compensation of A failed in 2 rounds (HTTP 500: “locked”); it is tried again by itself at 2001-09-09 01:46:51 "
        "UTC, and an operator can try it now or mark it as done by hand.",
        "B refused (HTTP 409: “no such address”)",
    ),
    (
        resolved,
        "B refused (HTTP 409: “no such address”), so it turned back; an operator marked the compensation of A as done "
        "by hand: “removed by hand, Ada”.",
        "B refused (HTTP 409: “no such address”)",
    ),
    (
        taken_over,
        "All 3 steps took effect. It was taken over twice, from an orchestrator that had crashed, stopped or lost its "
        "lease. It was handed over once by an orchestrator that shut down.",
        None,
    ),
    (
        crashed_in_a_call_that_then_fails,
        "B failed after 3 attempts, 1 of them perhaps cut short; whether it took effect was unknown, so it turns back. "
        "The compensation of B has not answered yet (attempt 1). It was taken over once, from an orchestrator that had "
        "crashed, stopped or lost its lease.",
        "B failed after 3 attempts, 1 of them perhaps cut short",
    ),
    (running, "A and B took effect; C has not answered yet (attempt 1).", None),
    (running_again, "A took effect; B answered HTTP 500 once; attempt 2 has no answer yet.", None),
]  # fmt: skip


@pytest.mark.parametrize(("happened", "told", "cause"), TOLD, ids=[row[0].__name__ for row in TOLD])
def test_what_happened_is_told_in_plain_words(
    happened: Callable[[LogWriter], None], told: str, cause: str | None
) -> None:
    writer = LogWriter()
    happened(writer)
    saga, lines = writer.shown()
    assert summarize(saga, lines) == told
    assert root_cause(saga, lines) == cause


def test_beside_a_panel_it_does_not_say_again_what_it_is_stuck_at() -> None:
    writer = LogWriter()
    stalls_at_a(writer)
    assert summarize(*writer.shown(), in_a_panel=True) == "B refused (HTTP 409: “no such address”), so it turns back."


def test_before_its_first_answer_it_says_what_it_waits_for() -> None:
    assert summarize(*LogWriter().shown()) == "A has not answered yet (attempt 1)."


def test_a_step_that_cannot_be_undone_is_said_to_stay() -> None:
    writer = LogWriter("A* B* C")
    writer.call()
    writer.call(None)
    assert summarize(*writer.shown()) == (
        "B timed out; whether it took effect was unknown, so it turned back; A has no compensation, so what it did "
        "stays; B has no compensation, so what it may have done stays."
    )


def test_a_pivot_that_nobody_can_ask_is_said_to_be_what_it_is_stalled_at() -> None:
    writer = LogWriter("A B*!")
    writer.call()
    writer.call(None, times=2)
    assert root_cause(*writer.shown()) == (
        "B failed in 1 round, and has no compensation that could tell whether it took effect"
    )
    writer.event(E.RESOLVED, note="it is paid")
    assert summarize(*writer.shown()) == "A took effect; an operator marked B as done by hand: “it is paid”."


def test_past_the_pivot_it_only_goes_forward() -> None:
    writer = LogWriter("charge! mail")
    writer.call()
    writer.call(400, message="no such address")
    assert root_cause(*writer.shown()) == (
        "mail failed in 1 round (HTTP 400: “no such address”), and past the pivot a saga only goes forward"
    )
    writer.event(E.RESUMED)
    assert summarize(*writer.shown()) == "charge took effect; mail answered HTTP 400 once; attempt 2 has no answer yet."
    writer.call()
    assert summarize(*writer.shown()) == "All 2 steps took effect. mail answered HTTP 400 once before it succeeded."


def test_it_goes_forward_from_a_pivot_that_had_committed_and_says_where_it_is() -> None:
    writer = LogWriter("charge! mail")
    writer.call(None)
    writer.call(409)
    assert summarize(*writer.shown()) == (
        "charge failed; whether it took effect was unknown. Asked to undo it, charge answered that it had committed, "
        "so the saga went forward. charge took effect; mail has not answered yet (attempt 1)."
    )


def test_after_ten_rounds_it_is_said_to_need_attention() -> None:
    writer = LogWriter("A B")
    writer.call()
    writer.call(409)
    for _ in range(10):
        writer.call(500)
        writer.event(E.RESUMED, seconds=1)
    writer.call(500)
    assert "UTC and in need of attention: the compensation of A failed in 11 rounds" in summarize(*writer.shown())
    writer.event(E.RESUMED, seconds=1)
    writer.call()
    assert summarize(*writer.shown()) == (
        "B refused, so A was undone. The compensation of A answered HTTP 500 (11 times) before it succeeded."
    )


def heard(text: str = "A B C!") -> LogWriter:
    """A choreographed saga."""
    return LogWriter(text, mode=CHOREOGRAPHY)


def test_of_a_choreographed_saga_nobody_is_said_to_call_or_to_answer() -> None:
    """Every way that is told above, told of a saga that nobody drives."""
    for happened, told, _ in TOLD:
        if re.search("perator|taken over|deadline", told):
            continue  # who could?
        writer = heard()
        happened(writer)
        said = re.sub("“.*?”", "", summarize(*writer.shown()))
        assert not re.search("answer|HTTP|asked|call|could not be reached|try it now", said), said


def test_what_a_choreographed_saga_waits_for_is_what_nothing_is_heard_of() -> None:
    writer = heard()
    assert summarize(*writer.shown()) == "Nothing is heard of A yet (attempt 1)."
    writer.call()
    writer.attempt(500)
    assert summarize(*writer.shown()) == (
        "A took effect; B failed with an unknown effect once; nothing is heard of attempt 2 yet."
    )
    writer.attempt(None)
    writer.call(503, verdict="refused")
    assert summarize(*writer.shown()) == (
        "B failed after 3 attempts; whether it took effect was unknown, so it turns back. Nothing is heard of undoing "
        "B yet (attempt 1)."
    )


def test_attempts_of_which_nothing_was_heard_are_told() -> None:
    writer = heard("A B")
    writer.call()
    writer.saga = interrupted(writer.saga)
    writer.attempt(500)
    writer.call()
    assert summarize(*writer.shown()) == (
        "All 2 steps took effect. B failed with an unknown effect once before it succeeded; nothing was heard of 1 "
        "attempt of B."
    )


def test_a_pivot_in_doubt_asks_its_own_barrier() -> None:
    writer = heard("A B!")
    writer.call()
    writer.call(None, message="no answer within 5 s")
    doubt = "B timed out (“no answer within 5 s”); whether it took effect was unknown"
    assert summarize(*writer.shown()) == (
        f"{doubt}, so B asks its own barrier row. Nothing is heard of undoing B yet (attempt 1)."
    )
    writer.call(409)
    assert summarize(*writer.shown()) == (
        "B failed (“no answer within 5 s”); whether it took effect was unknown. Its own barrier row told B that it had "
        "committed, so the saga went forward and all 2 steps took effect."
    )


def test_a_pivot_that_had_not_committed_is_sealed_by_its_own_barrier() -> None:
    writer = heard("A B!")
    writer.call()
    writer.call(None)
    writer.call()
    writer.call()
    assert summarize(*writer.shown()) == (
        "B timed out; whether it took effect was unknown. Its own barrier row told B that it had not "
        "committed, and sealed it, "
        "so A was undone."
    )


def test_a_parked_event_is_told_until_it_is_replayed() -> None:
    writer = heard()
    stalls_at_a(writer)
    stalled = "Stalled since 2001-09-09 01:46:40 UTC: undoing A failed in 2 rounds (“locked”)"
    turned = "B refused (“no such address”), so it turns back."
    assert summarize(*writer.shown()) == (
        f"{turned} {stalled}; its service tries it again by itself, and no operator can make it try now."
    )
    parked = {"letter": 7, "subject": "saga.test.B.refused", "message": "locked", "service": "A"}
    writer.add_line(PARKED, parked, step="A")
    assert summarize(*writer.shown()) == (
        f"{turned} {stalled.replace('UTC', 'UTC and in need of attention')}; its event is parked. A could not handle "
        "saga.test.B.refused (“locked”): it is parked until somebody replays it."
    )
    writer.add_line(REPLAYED, {"letter": 7, "subject": "saga.test.B.refused"})
    writer.event(E.RESUMED)
    writer.call()
    assert summarize(*writer.shown()) == (
        "B refused (“no such address”), so A was undone. A parked event was replayed once by an operator. Undoing A "
        "failed without effect six times before it succeeded."
    ).replace("without effect", "with an unknown effect")


def test_past_its_deadline_nobody_is_in_charge() -> None:
    writer = heard("A B")
    writer.call()
    writer.add_line(OVERDUE)
    assert summarize(*writer.shown()) == (
        "A took effect; nothing is heard of B yet (attempt 1). Its deadline has passed, and nobody is in charge who "
        "could roll it back."
    )
    writer.call()
    assert summarize(*writer.shown()) == (
        "All 2 steps took effect. Its deadline passed before it ended, and nobody was in charge."
    )


def test_what_is_on_its_way_back_when_its_deadline_passes_needs_nobody_to_turn_it_back() -> None:
    writer = heard()
    stalls_at_a(writer)
    writer.add_line(OVERDUE)
    assert summarize(*writer.shown()).endswith("no operator can make it try now. Its deadline has passed.")


@pytest.mark.parametrize(
    ("event", "kind", "told"),
    [
        (E.CANCELLED, "cancelled", "An operator cancelled it at B."),
        (E.DEADLINE_PASSED, "deadline", "The deadline passed at B."),
    ],
)
def test_why_it_turned_back_is_told_though_the_lines_that_say_so_are_left_out(
    event: Event, kind: str, told: str
) -> None:
    writer = LogWriter("A B C!")
    writer.call()
    writer.event(event, kind)
    writer.call()
    saga, lines = writer.shown()
    assert summarize(saga, with_gaps([lines[1], *lines[-2:]])).startswith(told)


def test_a_crash_of_who_only_listens_holds_up_nobody() -> None:
    writer = heard("A")
    writer.add_line(FAULT, {"fault": "after-A"}, step="A")
    writer.call()
    assert summarize(*writer.shown()) == (
        "Its one step took effect. The orchestrator, which only listens, crashed once; that held up nobody."
    )


def test_a_long_note_is_cut() -> None:
    writer = LogWriter()
    long_note(writer)
    assert "“" + "x" * 199 + "…”" in summarize(*writer.shown())


def test_one_step_is_one_step() -> None:
    writer = LogWriter("A")
    writer.call()
    assert summarize(*writer.shown()) == "Its one step took effect."


def test_a_log_whose_words_are_masked_is_told_without_them() -> None:
    """A payment of "completed" is masked wherever that word is said, also in the log's own words."""
    writer = LogWriter("A", {"pin": "completed"})
    writer.call()
    assert summarize(*writer.shown()) == "It is COMPLETED."


@given(written_logs())
def test_whatever_happened_can_be_told_and_no_secret_is(writer: LogWriter) -> None:
    saga, lines = writer.shown()
    told, cause = summarize(saga, lines), root_cause(saga, lines)
    assert told.endswith(".")
    assert SECRET not in told + str(cause)
    assert ".." not in told
    assert "  " not in told
    assert "None" not in told


@given(written_logs(WORDS_OF_THE_LOG))
def test_a_log_whose_own_words_are_masked_can_be_told(writer: LogWriter) -> None:
    """A secret may be a word that the log itself uses: it is then masked there too."""
    saga, lines = writer.shown()
    root_cause(saga, lines)
    assert summarize(saga, lines).endswith(".")


@given(written_logs())
def test_nothing_is_said_to_be_undone_or_to_have_taken_effect_that_is_not(writer: LogWriter) -> None:
    saga, lines = writer.shown()
    told = summarize(saga, lines)
    effects = {step["name"]: step["effect"] for step in saga["steps"]}
    for undone in re.findall(r"so (\w) was undone", told):
        assert effects[undone] == "undone"
    for said in re.findall(r"((?:\w, )*(?:\w and )?\w) took effect", told):
        assert all(effects[name] == "applied" for name in re.findall(r"\b[A-D]\b", said)), told
    if told.startswith("All "):
        assert set(effects.values()) == {"applied"}
    assert ("nothing had to be undone" in told) <= ("applied" not in effects.values())
