"""The saga log's contract, on SQLite and on MySQL."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from saga.choreographed_notes import DeadLetter
from saga.context import Context
from saga.definition import TEMPORAL
from saga.errors import LeaseLost, Overtaken
from saga.machine import AttemptsSoFar, Line, State
from saga.runtime.due_sagas import DueSagas
from saga.runtime.log_lines import LogLines
from saga.runtime.pruning import prune
from saga.saga_log import SagaLog
from saga.saga_row import Present, SagaRow
from saga.step_summary import StepSummary
from saga.storage import log_tables
from saga.storage.database import connect, create_tables
from saga.views.backlog import count_states
from saga.views.saga_filter import SagaQuery
from saga.views.saga_search import SagaSearch
from tests.conftest import Database
from tests.support.builders import a_saga_id, a_saga_row
from tests.support.world import signup

NOW = 1_800_000_000.123456
CONTEXT = Context(1, NOW, NOW)


@pytest.fixture(params=[False, True], ids=["batches", "plain"])
def log(database: Database, request: pytest.FixtureRequest) -> SagaLog:
    engine = connect(database("orchestrator"), plain=request.param)
    create_tables(engine, log_tables.metadata)
    return SagaLog(engine)


def row(number: int = 1, **changes: Any) -> SagaRow:
    made = a_saga_row(
        id=a_saga_id(number), input={"username": "ada"}, context=CONTEXT, owner="one", due_at=NOW, request_hash="h",
        started_at=NOW,
    )  # fmt: skip
    return replace(made, **changes)


def begun(log: SagaLog, number: int = 1, **changes: Any) -> SagaRow:
    made = row(number, **changes)
    assert log.begin(made, [Line(1, NOW, "started")]) is None
    return made


def present(of: SagaRow, **changes: Any) -> Present:
    return replace(of.present, **changes)


VALUES = {
    "text": "grüß 🦆 \u0000 '; DROP",
    "big": 2**70,
    "float": 1.0,
    "small": 1e-9,
    "nothing": None,
    "list": [[], {}],
}


FULL = Context(
    lines=1,
    at=NOW,
    reached_at=NOW,
    calls=AttemptsSoFar(3, 1, uncertain=True),
    steps={"A": StepSummary("UNKNOWN", "unknown", 3, NOW, NOW, "ü", "why", 2), "B": StepSummary()},
    cancelled=True,
    stalled=True,
    overdue=True,
    faults=("before-A",),
    parked=(DeadLetter(7, "saga.x", "2026", 9),),
    replayed=(DeadLetter(6, None, None, 8),),
)


def test_what_is_written_is_read_back_as_it_was(log: SagaLog) -> None:
    made = begun(log, input=VALUES, context=FULL, error={"message": "ü"}, idempotency_key="k", deadline_at=NOW + 9)
    assert log.find(made.id) == made
    assert log.find_by_key("k") == made
    assert log.find_many([made.id, "nope"]) == {made.id: made}
    assert isinstance(made.input["float"], float)
    line = Line(2, NOW + 0.000001, "attempt", "B", 3, 503, 1.25, {"message": "🦆"})
    log.advance(made.id, 1, present(made), [line])
    assert log.lines(made.id) == [Line(1, NOW, "started"), line]
    assert log.lines(made.id, after=1) == log.lines_at(made.id, [2, 3]) == [line]
    assert log.lines(made.id, most=1) == [Line(1, NOW, "started")]
    assert log.find("nope") is None
    assert log.find_by_key("nope") is None


def test_a_known_key_writes_nothing_and_gives_its_saga(log: SagaLog) -> None:
    first = begun(log, 1, idempotency_key="key")
    assert log.begin(row(2, idempotency_key="key"), [Line(1, NOW, "started")]) == first
    assert log.find(row(2).id) is None
    assert log.lines(row(2).id) == []
    begun(log, 3, idempotency_key="KEY")  # compared byte by byte
    begun(log, 4, idempotency_key=None)
    begun(log, 5, idempotency_key=None)


def test_a_begin_whose_answer_was_lost_may_be_sent_again(log: SagaLog) -> None:
    made = begun(log, idempotency_key="key")
    assert log.begin(made, [Line(1, NOW, "started")]) is None
    assert len(log.lines(made.id)) == 1


def test_one_of_many_with_a_key_is_begun(log: SagaLog) -> None:
    def begin(number: int) -> SagaRow | None:
        return log.begin(row(number, idempotency_key="key"), [Line(1, NOW, "started")])

    with ThreadPoolExecutor(16) as pool:
        known = list(pool.map(begin, range(1, 17)))
    assert known.count(None) == 1
    assert len({found.id for found in known if found}) == 1


def test_advance_moves_everything_on_at_once(log: SagaLog) -> None:
    made = begun(log)
    moved = present(made, state=State.COMPENSATED, cursor=-1, context=FULL.as_json(), rounds=3, error={"e": 1},
                    ended_at=NOW + 1, owner=None, due_at=None)  # fmt: skip
    log.advance(made.id, 1, moved, [Line(2, NOW, "action_refused", "A")])
    found = log.find(made.id)
    assert found
    assert present(found) == moved
    assert found.ended
    assert found.epoch == 1


def test_an_older_epoch_writes_nothing(log: SagaLog) -> None:
    made = begun(log)
    log.claim(made.id, 1, "two", due_by=NOW, due_at=NOW + 10)
    for write in (
        lambda: log.advance(made.id, 1, present(made, cursor=2), [Line(2, NOW, "attempt")]),
        lambda: log.renew(made.id, 1, NOW + 99),
        lambda: log.claim(made.id, 1, "three", due_by=NOW + 99, due_at=NOW + 99),
        lambda: log.preempt(made.id, 1, State.EXECUTING, "three", NOW + 99),
    ):
        with pytest.raises(LeaseLost, match=r"0000|nope"):  # it says whose
            write()
    found = log.find(made.id)
    assert found
    assert (found.cursor, found.due_at, found.owner, found.epoch) == (0, NOW + 10, "two", 2)
    assert len(log.lines(made.id)) == 1


def test_a_write_whose_answer_was_lost_may_be_sent_again(log: SagaLog) -> None:
    made = begun(log)
    for _ in range(2):
        log.advance(made.id, 1, present(made, cursor=1), [Line(2, NOW, "action_done", "A")])
    assert len(log.lines(made.id)) == 2


WISH = Line(0, NOW, "cancel_requested", "C", detail={"by": "operator"})
OPEN = (State.DECIDING, State.STALLED_DECIDING)


def test_a_note_is_added_once_while_the_state_allows_it_and_changes_nothing_else(log: SagaLog) -> None:
    made = begun(log, state=State.DECIDING)
    assert log.add_line(made.id, OPEN, WISH) == replace(WISH, seq=2)
    assert log.add_line(made.id, OPEN, WISH) is None
    assert log.add_line("nope", OPEN, WISH) is None
    assert log.find(made.id) == made.after(replace(WISH, seq=2))
    assert log.lines(made.id) == [Line(1, NOW, "started"), replace(WISH, seq=2)]
    assert log.lines(made.id, 1) == [replace(WISH, seq=2)]
    moved = begun(log, 2, state=State.FINISHING)
    assert log.add_line(moved.id, OPEN, WISH) is None


def test_one_of_many_notes_is_added(log: SagaLog) -> None:
    made = begun(log, state=State.DECIDING)
    with ThreadPoolExecutor(8) as pool:
        added = list(pool.map(lambda _: log.add_line(made.id, OPEN, WISH), range(8)))
    assert [each for each in added if each] == [replace(WISH, seq=2)]


def test_a_note_takes_a_number_and_a_driver_that_had_it_is_told_and_writes_again(log: SagaLog) -> None:
    """Others that are written in the same transaction are written all the same."""
    made, other = begun(log, state=State.DECIDING), begun(log, 2)
    log.add_line(made.id, OPEN, WISH)
    late = Line(2, NOW, "action_done", "C")
    log._writes._expected = 2  # as after a batch of two
    with ThreadPoolExecutor(2) as pool:
        mate = pool.submit(log.advance, other.id, 1, present(other, cursor=1), [Line(2, NOW, "action_done", "A")])
        with pytest.raises(Overtaken):
            log.advance(made.id, 1, present(made, cursor=3, state=State.FINISHING), [late])
        mate.result()
    assert log.find(made.id) == made.after(replace(WISH, seq=2))
    for _ in range(2):  # the second time as one whose COMMIT's answer was lost
        log.advance(made.id, 1, present(made, cursor=3, state=State.FINISHING), [replace(late, seq=3)])
    assert [line.event for line in log.lines(made.id)] == ["started", "cancel_requested", "action_done"]
    assert len(log.lines(other.id)) == 2


def test_a_note_and_a_write_at_the_same_moment_both_end_up_in_the_log_or_the_note_is_refused(log: SagaLog) -> None:
    for number in range(1, 21):
        made = begun(log, number, state=State.DECIDING)
        done = present(made, cursor=3, state=State.FINISHING)
        with ThreadPoolExecutor(2) as pool:
            noting = pool.submit(log.add_line, made.id, OPEN, WISH)
            try:
                log.advance(made.id, 1, done, [Line(2, NOW, "action_done", "C")])
            except Overtaken:
                log.advance(made.id, 1, done, [Line(3, NOW, "action_done", "C")])
        lines = [line.event for line in log.lines(made.id)]
        wish = ["cancel_requested"] if noting.result() else []
        assert lines == ["started", *wish, "action_done"]
        found = log.find(made.id)
        assert found
        assert found.state == State.FINISHING


def test_renew_prolongs_what_is_open_only(log: SagaLog) -> None:
    made = begun(log)
    log.renew(made.id, 1, NOW + 5)
    found = log.find(made.id)
    assert found
    assert found.due_at == NOW + 5
    log.advance(made.id, 1, present(made, due_at=None), [])
    with pytest.raises(LeaseLost, match=r"0000|nope"):  # it says whose
        log.renew(made.id, 1, NOW + 5)


def test_only_what_is_due_is_claimed_and_by_one_alone(log: SagaLog) -> None:
    made = begun(log, due_at=NOW)
    with pytest.raises(LeaseLost, match=r"0000|nope"):  # it says whose
        log.claim(made.id, 1, "two", due_by=NOW - 1, due_at=NOW + 10)
    with pytest.raises(LeaseLost, match=r"0000|nope"):  # it says whose
        log.claim("nope", 1, "two", due_by=NOW, due_at=NOW + 10)

    def claim(number: int) -> str | None:
        try:
            claimed, held = log.claim(made.id, 1, f"owner-{number}", due_by=NOW, due_at=NOW + 10)
            assert (claimed.epoch, claimed.owner, claimed.due_at, held) == (2, f"owner-{number}", NOW + 10, True)
            return claimed.owner
        except LeaseLost:
            return None

    with ThreadPoolExecutor(16) as pool:
        winners = [owner for owner in pool.map(claim, range(16)) if owner]
    assert len(winners) == 1
    found = log.find(made.id)
    assert found
    assert found.owner == winners[0]


def test_a_claim_says_whether_somebody_held_it(log: SagaLog) -> None:
    made = begun(log, owner=None)
    assert log.claim(made.id, 1, "two", due_by=NOW, due_at=NOW)[1] is False
    assert log.preempt(made.id, 2, State.EXECUTING, "three", NOW + 99)[1] is True
    with pytest.raises(LeaseLost, match=r"0000|nope"):  # it says whose
        log.preempt(made.id, 3, State.COMPENSATING, "four", NOW)


def test_what_is_due_comes_longest_waiting_first(log: SagaLog) -> None:
    for number, due_at in enumerate([NOW + 1, NOW - 5, None, NOW, NOW - 9], start=1):
        begun(log, number, due_at=due_at)
    due = DueSagas(log).due(NOW, 10)
    assert [uuid.UUID(saga_id).int for saga_id, _ in due] == [5, 2, 4]
    assert {epoch for _, epoch in due} == {1}
    assert DueSagas(log).due(NOW, 2) == due[:2]
    assert DueSagas(log).due(NOW, 0) == []


def test_due_to_one_owner_is_what_it_holds_itself_and_what_nobody_holds(log: SagaLog) -> None:
    """When another's lease ends is that one's clock's word: it is among the doubted."""
    owners = ["one", "two", None, "", TEMPORAL]
    for number, owner in enumerate(owners, start=1):
        begun(log, number, owner=owner)
    assert [uuid.UUID(saga_id).int for saga_id, _ in DueSagas(log).due(NOW, 10, "one")] == [1, 3, 4]
    assert [uuid.UUID(saga_id).int for saga_id, _ in DueSagas(log).due(NOW, 10)] == [1, 2, 3, 4]


def doubted(log: SagaLog, most: int = 10) -> list[int]:
    bounds = {"soon": NOW + 5, "longest_lease": NOW + 10, "longest_rest": NOW + 300}
    return [uuid.UUID(saga_id).int for saga_id, _, _ in DueSagas(log).doubted("one", **bounds, most=most)]


def test_doubted_are_others_leases_that_end_soon_and_what_is_due_later_than_anybody_can_mean(log: SagaLog) -> None:
    stalled = State.STALLED_DECIDING
    for number, due_at in enumerate([NOW - 3600, NOW + 5, NOW + 5.1, NOW + 10, NOW + 10.1, NOW + 3600], start=1):
        begun(log, number, due_at=due_at)  # our own: its end is believed, unless it is too far
        begun(log, number + 10, due_at=due_at, owner="two")
        begun(log, number + 20, due_at=due_at, owner=None)
        begun(log, number + 30, due_at=due_at, owner=TEMPORAL)
        begun(log, number + 40, due_at=due_at, owner=None, state=stalled)
        begun(log, number + 50, due_at=due_at, owner=None, deadline_at=due_at)  # a choreographed saga's deadline
    begun(log, 70, due_at=NOW + 300, owner=None, state=stalled)
    assert doubted(log) == [11, 12, 5, 15, 25, 6, 16, 26, 46]
    assert doubted(log, 1) == [11, 5]
    known = begun(log, 80, due_at=NOW + 1), begun(log, 81, due_at=None)
    assert DueSagas(log).due_times([*(each.id for each in known), "nope"]) == [(known[0].id, 1, NOW + 1)]
    assert DueSagas(log).due_times([]) == []


def test_a_claim_of_what_is_not_believed_holds_only_while_it_is_as_it_was_seen(log: SagaLog) -> None:
    made = begun(log, due_at=NOW + 3600.654321)
    with pytest.raises(LeaseLost, match="0000"):
        log.claim(made.id, 1, "two", due_by=NOW, due_at=NOW + 10, seen=NOW + 3600.654322)
    (seen,) = DueSagas(log).doubted("two", soon=NOW, longest_lease=NOW, longest_rest=NOW, most=1)
    log.renew(made.id, 1, NOW + 3605)
    with pytest.raises(LeaseLost, match="0000"):
        log.claim(made.id, 1, "two", due_by=NOW, due_at=NOW + 10, seen=seen[2])
    log.renew(made.id, 1, NOW + 3600.654321)
    claimed, held = log.claim(made.id, 1, "two", due_by=NOW, due_at=NOW + 10, seen=seen[2])
    assert (claimed.owner, claimed.due_at, claimed.epoch, held) == ("two", NOW + 10, 2, True)


def test_what_is_let_go_is_due_at_once_and_its_call_may_be_under_way(log: SagaLog) -> None:
    made = begun(log, due_at=NOW + 9)
    log.let_go(made.id, 1, NOW)
    assert DueSagas(log).due(NOW, 10, "two") == [(made.id, 1)]
    assert log.claim(made.id, 1, "two", due_by=NOW, due_at=NOW + 10)[1] is True
    with pytest.raises(LeaseLost, match="0000"):
        log.let_go(made.id, 1, NOW)


def test_postpone_moves_what_nobody_holds(log: SagaLog) -> None:
    free, held = begun(log, 1, owner=None), begun(log, 2)
    DueSagas(log).postpone({(free.id, 1): NOW + 7, (held.id, 1): NOW + 7, ("nope", 1): NOW})
    DueSagas(log).postpone({})
    assert [found and found.due_at for found in (log.find(free.id), log.find(held.id))] == [NOW + 7, NOW]


def test_free_makes_due_what_an_owner_left(log: SagaLog) -> None:
    mine, other = begun(log, 1, due_at=NOW + 50), begun(log, 2, owner="two", due_at=NOW + 50)
    assert DueSagas(log).free("one", NOW, before=NOW + 3600) == 1
    assert [found and found.due_at for found in (log.find(mine.id), log.find(other.id))] == [NOW, NOW + 50]


def test_search_finds_newest_first_by_each_of_its_filters(log: SagaLog) -> None:
    begun(log, 1, state=State.COMPLETED, ended_at=NOW)
    begun(log, 2, state=State.COMPENSATED, ended_at=NOW + 5, idempotency_key="order%7")
    begun(log, 3, definition=signup(name="other"))
    numbers = {
        "all": SagaSearch(log).find(SagaQuery()),
        "states": SagaSearch(log).find(SagaQuery(states=[State.COMPLETED, State.COMPENSATED])),
        "name": SagaSearch(log).find(SagaQuery(name="other")),
        "before": SagaSearch(log).find(SagaQuery(before=row(3).id)),
        "most": SagaSearch(log).find(SagaQuery(most=1)),
        "id": SagaSearch(log).find(SagaQuery(q=row(2).id.upper())),
        "beginning": SagaSearch(log).find(SagaQuery(q="00000000-0000")),
        "key": SagaSearch(log).find(SagaQuery(q="order%7")),
        "percent": SagaSearch(log).find(SagaQuery(q="%")),
        "since": SagaSearch(log).find(SagaQuery(ended_since=NOW + 1)),
    }
    found = {name: [uuid.UUID(saga.id).int for saga in sagas] for name, sagas in numbers.items()}
    assert found == {
        "all": [3, 2, 1], "states": [2, 1], "name": [3], "before": [2, 1], "most": [3], "id": [2],
        "beginning": [3, 2, 1], "key": [2], "percent": [], "since": [2],
    }  # fmt: skip


def test_an_id_is_found_by_its_beginning_in_either_case_and_beside_a_key_of_the_same_text(log: SagaLog) -> None:
    """Ids of hexadecimal letters, up to the last one that a beginning has; a text may be one's key and another's id."""
    for number, key in ((0xAB << 120, None), ((0xAC << 120) - 1, None), (0xAC << 120, "ab")):
        begun(log, number, idempotency_key=key)
    first, last, keyed = (str(uuid.UUID(int=n)) for n in (0xAB << 120, (0xAC << 120) - 1, 0xAC << 120))
    assert [saga.id for saga in SagaSearch(log).find(SagaQuery(q="AB"))] == [
        last,
        first,
    ]  # a key is compared byte by byte
    assert [saga.id for saga in SagaSearch(log).find(SagaQuery(q="ab"))] == [keyed, last, first]
    assert [saga.id for saga in SagaSearch(log).find(SagaQuery(q=last))] == [last]


def test_search_takes_its_bounds_in_and_gives_fifty_unless_told(log: SagaLog) -> None:
    for number in range(1, 52):
        begun(log, number, rounds=number, ended_at=NOW + number)
    assert len(SagaSearch(log).find(SagaQuery())) == 50
    assert [saga.rounds for saga in SagaSearch(log).find(SagaQuery(ended_since=NOW + 50))] == [51, 50]


def test_those_that_need_attention_are_found_whatever_their_state(log: SagaLog) -> None:
    """Stalled or trying again, driven or not.

    One that has ended needs none, nor one whose deadline is still minded, be it by Temporal.
    """
    stalled, trying = State.STALLED_COMPENSATING, State.COMPENSATING
    begun(log, 1, state=stalled, rounds=10)
    begun(log, 2, state=trying, rounds=10)
    begun(log, 3, state=State.COMPENSATED, rounds=10, due_at=None, deadline_at=NOW, ended_at=NOW)
    begun(log, 4, state=stalled, rounds=9)
    begun(log, 5, due_at=None, deadline_at=NOW, owner=None)
    begun(log, 6, due_at=NOW, deadline_at=NOW, owner=None)
    begun(log, 7, due_at=None, owner=None)
    begun(log, 8, due_at=None, deadline_at=NOW, owner=TEMPORAL)
    assert [saga.id for saga in SagaSearch(log).find(SagaQuery(needs_attention=True))] == [
        str(uuid.UUID(int=number)) for number in (5, 2, 1)
    ]


def test_sagas_are_counted_by_state_up_to_a_limit(log: SagaLog) -> None:
    for number in range(1, 4):
        begun(log, number, state=State.COMPLETED)
    begun(log, 4, state=State.STALLED_SEALING)
    counted = count_states(log, 2)
    assert counted == {**dict.fromkeys(State, 0), State.COMPLETED: 2, State.STALLED_SEALING: 1}
    assert count_states(log, 100)[State.COMPLETED] == 3


def test_what_is_not_ascii_is_no_id_and_no_key(log: SagaLog) -> None:
    begun(log)
    assert log.find("é") is None
    assert (
        SagaSearch(log).find(SagaQuery(q="é"))
        == SagaSearch(log).find(SagaQuery(before="é"))
        == SagaSearch(log).find(SagaQuery(name="é"))
        == []
    )


def test_the_latest_lines_of_all_are_those_committed_last(log: SagaLog) -> None:
    for number in (1, 2):
        made = begun(log, number)
        log.advance(made.id, 1, present(made), [Line(2, NOW - number, "attempt", "A")])
    found = [(uuid.UUID(saga_id).int, line.seq) for saga_id, line in LogLines(log).latest(3)]
    assert found == [(2, 2), (2, 1), (1, 2)]


def test_prune_forgets_what_ended_long_ago_a_batch_at_a_time(log: SagaLog) -> None:
    for number, ended_at in enumerate([NOW - 9, NOW - 8, NOW - 7, NOW, None], start=1):
        begun(log, number, state=State.COMPLETED if ended_at else State.EXECUTING, ended_at=ended_at)
    assert prune(log, NOW, 2) == 2
    assert prune(log, NOW, 2) == 1
    assert prune(log, NOW, 2) == 0
    assert [uuid.UUID(saga.id).int for saga in SagaSearch(log).find(SagaQuery())] == [5, 4]
    assert log.lines(row(1).id) == []
    assert len(log.lines(row(4).id)) == 1
    log.ping()


def test_prune_knows_from_an_id_when_its_saga_began(log: SagaLog) -> None:
    """A saga that began after the time asked about is not even looked at, however many there are of them."""
    ids = [f"{int((NOW + after) * 1000):012x}" for after in (-60, -0.002, 60)]
    for start in ids:
        made = row(id=f"{start[:8]}-{start[8:]}-7000-8000-000000000000", state=State.COMPLETED, ended_at=NOW - 0.001)
        log.begin(made, [Line(1, NOW, "started")])
    assert prune(log, NOW, 10) == 2
    assert [saga.id[:8] for saga in SagaSearch(log).find(SagaQuery())] == [ids[2][:8]]
