"""The isolation laboratory: what each countermeasure removes, counted over every order of the calls."""

from __future__ import annotations

import itertools
import subprocess
import sys
import tempfile
from math import comb
from pathlib import Path
from types import SimpleNamespace

import pytest
from flask import Flask

from orchestrator.app import register
from orchestrator.dashboard import isolation_page
from orchestrator.dashboard.countermeasures import COUNTED, COUNTERMEASURES, WORLDS
from orchestrator.dashboard.isolation_view import code_of
from orchestrator.isolation.history import Access, Anomaly, History, Turn, anomalies
from orchestrator.isolation.laboratory import OPENING_BALANCE, laboratory
from orchestrator.isolation.purchase import Switches, steps_of
from orchestrator.isolation.report import Count, Tally, World, report_of
from orchestrator.status_codes import status_code_of
from saga.errors import SagaError
from saga.machine import Direction, State
from tests.support.stack import ROOT

NONE = Switches()
# None of them, each alone, and each pair.
ALL = [on for each in itertools.product([False, True], repeat=4) if sum(vars(on := Switches(*each)).values()) <= 2]
pytestmark = pytest.mark.xdist_group("isolation")  # a setting is run once in a process


def tally(on: Switches, world: World) -> Tally:
    return report_of(on).tallies[world]


def ids(on: Switches) -> str:
    return "+".join(name for name, is_on in vars(on).items() if is_on) or "none"


# (orders, lost, dirty, fuzzy, wrong, turned away, stuck): where Ann's goods are sold out, and where both go through
COUNTS = {
    NONE: ((35, 27, 15, 15, 27, 0, 0), (20, 12, 0, 12, 12, 0, 0)),
    Switches(lock=True): ((9, 0, 0, 0, 0, 4, 0), (8, 0, 0, 0, 0, 6, 0)),
    Switches(commutative=True): ((35, 0, 21, 17, 0, 0, 0), (20, 0, 0, 16, 0, 0, 0)),
    Switches(reread=True): ((25, 7, 11, 5, 7, 6, 0), (16, 0, 0, 4, 0, 8, 0)),
    Switches(pessimistic=True): ((10, 0, 0, 0, 0, 0, 0), (20, 18, 0, 6, 18, 0, 0)),
    Switches(commutative=True, pessimistic=True): ((10, 0, 0, 0, 0, 0, 0), (20, 0, 0, 6, 0, 0, 0)),
    Switches(reread=True, pessimistic=True): ((10, 0, 0, 0, 0, 0, 0), (20, 0, 0, 6, 0, 0, 18)),
}


@pytest.mark.parametrize("on", COUNTS, ids=ids)
def test_the_counts_over_all_orders_are_these(on: Switches) -> None:
    found = [(len(each.orders), *each.counts.values()) for each in (tally(on, world) for world in World)]
    assert tuple(found) == COUNTS[on]


def test_without_countermeasures_every_way_to_merge_the_calls_is_run_once() -> None:
    """Ann makes four calls where she turns back, else three; Ben makes three."""
    for world, calls in ((World.SOLD_OUT, 4), (World.BOTH, 3)):
        orders = [order.history.order for order in tally(NONE, world).orders]
        assert len(orders) == len(set(orders)) == comb(calls + 3, 3)


@pytest.mark.parametrize("on", [on for on in ALL if on.lock], ids=ids)
def test_a_semantic_lock_leaves_no_anomaly_and_turns_sagas_away(on: Switches) -> None:
    for world in World:
        counts = tally(on, world).counts
        assert not any(counts[count] for count in Count if count is not Count.TURNED_AWAY)
        assert counts[Count.TURNED_AWAY]


@pytest.mark.parametrize("on", [on for on in ALL if on.commutative], ids=ids)
def test_commutative_updates_lose_no_update(on: Switches) -> None:
    assert not any(tally(on, world).counts[Count.LOST] for world in World)


@pytest.mark.parametrize("on", [on for on in ALL if on.reread], ids=ids)
def test_a_reread_value_leaves_only_lost_updates_that_a_compensation_makes(on: Switches) -> None:
    for world in World:
        for order in tally(on, world).with_(Count.LOST):
            losing = [each.turn for each in order.findings if each.anomaly is Anomaly.LOST]
            assert {order.history.turns[turn].direction for turn in losing} == {Direction.COMPENSATION}


@pytest.mark.parametrize("on", [on for on in ALL if on.pessimistic], ids=ids)
def test_a_pessimistic_view_leaves_no_dirty_read(on: Switches) -> None:
    assert not any(tally(on, world).counts[Count.DIRTY] for world in World)


@pytest.mark.parametrize("on", ALL, ids=ids)
def test_the_balance_is_wrong_exactly_where_an_update_was_lost(on: Switches) -> None:
    """The two are found in different ways: one by the balance at the end alone, the other by every write."""
    for world in World:
        settled = [order for order in tally(on, world).orders if Count.STUCK not in order.counts]
        assert all((Count.WRONG in order.counts) == (Count.LOST in order.counts) for order in settled)


@pytest.mark.parametrize("on", ALL, ids=ids)
def test_sagas_one_after_the_other_have_no_anomaly(on: Switches) -> None:
    for world in World:
        alone = [order for order in tally(on, world).orders if _is_serial(order.history)]
        assert len(alone) == 2
        assert not any(order.counts for order in alone)


def _is_serial(history: History) -> bool:
    return len([name for name, _ in itertools.groupby(history.order)]) == 2


def test_a_history_is_what_the_services_rows_say() -> None:
    """Ann looks, Ben buys, Ann takes from what she saw, and is turned back: the balance is as if Ben had never been."""
    with laboratory(NONE) as opened:
        history, _ = opened.run(("Ann", "Ben", "Ben", "Ben"), sold_out=True)
    assert [(turn.saga, turn.step, turn.balance) for turn in history.turns] == [
        ("Ann", "Look", 100),
        ("Ben", "Look", 100),
        ("Ben", "Take", 50),
        ("Ben", "Send", 50),
        ("Ann", "Take", 70),
        ("Ann", "Send", 70),
        ("Ann", "Take", 100),
    ]
    assert history.ends == {"Ann": State.COMPENSATED, "Ben": State.COMPLETED}
    assert history.closing == history.turns[-1].balance
    assert history.turns[5].refusal == "sold out"
    assert history.balance_missed(OPENING_BALANCE) == 50
    assert [(found.anomaly, found.turn) for found in anomalies(history)] == [(Anomaly.LOST, 4)]


def test_a_value_that_came_back_is_no_lost_update() -> None:
    """Ann takes and puts back while Ben looks: what he has seen is true again when he writes."""
    ann, ben = ("Ann", "Ben")
    history = History(
        (
            _turn(ben, "Look", 0, Access(100, 100, False)),
            _turn(ann, "Look", 0, Access(100, 100, False)),
            _turn(ann, "Take", -30, Access(100, 70, True)),
            _turn(ann, "Take", 30, Access(70, 100, True)),
            _turn(ben, "Take", -50, Access(100, 50, True)),
        ),
        {ann: State.COMPENSATED, ben: State.COMPLETED},
        closing=50,
    )
    assert list(anomalies(history)) == []
    assert history.balance_missed(100) == 0


def _turn(saga: str, step: str, effect: int, access: Access) -> Turn:
    direction = Direction.COMPENSATION if effect > 0 else Direction.ACTION
    return Turn(saga, step, direction, effect, (access,), None, access.left)


def test_nothing_is_left_of_a_laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with laboratory(NONE) as opened:
        opened.run((), sold_out=True)
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_whoever_does_not_use_the_laboratory_does_not_load_it() -> None:
    program = "import sys, orchestrator.app; print([name for name in sys.modules if 'orchestrator.isolation' in name])"
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert (made.stdout, made.returncode) == ("[]\n", 0), made.stderr


@pytest.mark.parametrize("path", ["/ui/isolation", "/ui/isolation?lock=on"])
def test_where_faults_are_off_the_page_is_refused(path: str) -> None:
    app = Flask(__name__)
    register(app, {isolation_page.blueprint: {"orchestrator": SimpleNamespace(settings=SimpleNamespace(faults=False))}})
    app.register_error_handler(SagaError, lambda error: (str(error), status_code_of(error)))
    answer = app.test_client().get(path)
    assert (answer.status_code, "FAULTS=off" in answer.text) == (403, True)


@pytest.mark.parametrize(
    ("on", "changed"),
    [
        (NONE, ""),
        (Switches(lock=True), "lock_and_look unlock"),
        (Switches(commutative=True), "add_back subtract"),
        (Switches(reread=True), "take_if_unchanged"),
        (Switches(pessimistic=True), ""),
    ],
    ids=str,
)
def test_the_page_shows_the_functions_that_ran_and_which_of_them_a_switch_has_changed(
    on: Switches, changed: str
) -> None:
    steps = code_of(on)
    codes = [code for step in steps for code in (*step.action, *step.compensation)]
    assert {_name(code.source) for code in codes if code.changed} == set(changed.split())
    assert [step.name for step in steps if step.moved] == (["Send", "Take"] if on.pessimistic else [])
    ran = {function.__name__ for step in steps_of(on) for function in (step.action, step.compensation) if function}
    assert ran <= {_name(code.source) for code in codes}


def _name(source: str) -> str:
    return source.removeprefix("def ").partition("(")[0]


def test_every_switch_and_every_count_has_its_words() -> None:
    assert list(COUNTERMEASURES) == list(vars(NONE))
    assert list(COUNTED) == [str(count) for count in Count]
    assert list(WORLDS) == [str(world) for world in World]
