"""The cards of "Break it" fit any saga, say what can be run, and are judged by what is found."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.dashboard.prediction import check, judge, predict
from orchestrator.dashboard.scenario_cards import CARDS as TEMPLATES
from orchestrator.dashboard.scenario_cards import GROUPS
from orchestrator.dashboard.scenarios import SCENARIOS, expectation, find_scenario, scenarios_for
from saga.definition import NO_RECORDS, SOME_RECORDS, UNCHECKED, SagaDefinition, Step
from saga.errors import BadInput
from saga.faults.flags import parse_plan
from tests.support.world import signup

CARDS = {scenario.slug: scenario for scenario in SCENARIOS}


def a_saga(*steps: Step) -> SagaDefinition:
    return SagaDefinition("orders", steps)


def a_step(name: str, **fields: Any) -> Step:
    return Step(name, "http://127.0.0.1/invoke", **{"compensation": "http://127.0.0.1/compensate", **fields})


def test_every_card_can_be_sent() -> None:
    """Its flags are ones that POST /start takes, and no two cards are the same."""
    for scenario in SCENARIOS:
        flags = {name: [value for key, value in scenario.flags if key == name] for name in ("fail", "delay")}
        parse_plan(flags["fail"], flags["delay"], ["A", "B", "C"], enabled=True)
    assert len(CARDS) == len({scenario.flags for scenario in SCENARIOS}) == len(SCENARIOS) == len(TEMPLATES)


def test_the_cards_stand_in_the_order_of_their_groups() -> None:
    groups = list(GROUPS)
    assert sorted(SCENARIOS, key=lambda scenario: groups.index(scenario.group)) == list(SCENARIOS)
    assert {scenario.group for scenario in SCENARIOS} <= set(groups)


def test_a_saga_of_ones_own_has_the_cards_that_it_has_the_steps_for() -> None:
    orders = a_saga(a_step("Stock"), a_step("Card"), a_step("Mail", pivot=True), a_step("Ship", compensation=None))
    assert [card.slug for card in scenarios_for(orders)] == [card.slug for card in SCENARIOS]
    stuck = find_scenario(orders, "stuck-compensation")
    assert stuck
    assert stuck.flags == (("fail", "card"), ("fail", "stock:undo:6"))
    assert stuck.title == "Card fails, and so does undoing Stock"
    for scenario in scenarios_for(orders):
        texts = (scenario.title, scenario.setup, scenario.outcome, scenario.why, *scenario.choreographed)
        assert "{" not in "".join((*texts, *(value for _, value in scenario.flags)))


@pytest.mark.parametrize(
    ("steps", "missing"),
    [
        ((a_step("One"),), {"c-fails", "in-doubt-pivot", "late-pivot", "seen-meanwhile", "stuck-compensation"}),
        ((a_step("One"), a_step("Two")), {"c-fails", "in-doubt-pivot", "late-pivot", "seen-meanwhile"}),
        ((a_step("One", pivot=True),), {card.slug for card in SCENARIOS if "b" in str(card.flags).lower()}),
    ],
)
def test_a_saga_without_a_pivot_or_with_few_steps_lacks_the_cards_of_what_it_lacks(
    steps: tuple[Step, ...], missing: set[str]
) -> None:
    found = {card.slug for card in scenarios_for(a_saga(*steps))}
    assert not found & missing
    assert "all-goes-well" in found


def test_what_a_service_must_have_is_what_the_file_says_of_its_records() -> None:
    steps = [a_step(kind, records=kind) for kind in ("one", SOME_RECORDS, NO_RECORDS, UNCHECKED)]
    wanted = expectation(a_saga(*steps), "COMPLETED")
    assert wanted.rows == {"one": 1, SOME_RECORDS: 1, NO_RECORDS: 0}
    assert [wanted.fits(SOME_RECORDS, number) for number in (0, 1, 7, None)] == [False, True, True, False]
    assert [wanted.fits("one", number) for number in (0, 1, 7, None)] == [False, True, False, False]


def test_a_card_is_right_only_where_all_of_it_is() -> None:
    card = CARDS["b-fails"]
    right = check(card, {"status": "COMPENSATED"}, {"A": 0, "B": 0, "C": 0})
    assert all(finding.ok for finding in right)
    wrong = check(card, {"status": "COMPLETED"}, {"A": 2, "B": None, "C": 0})
    assert [(finding.found, finding.ok) for finding in wrong] == [
        ("COMPLETED", False),
        ("has 2 rows", False),
        ("does not answer", False),
        ("has no row", True),
    ]


def test_a_race_has_two_right_ends_and_nothing_between_them() -> None:
    card = CARDS["service-crash"]
    for status, rows in (("COMPLETED", 1), ("COMPENSATED", 0)):
        assert all(finding.ok for finding in check(card, {"status": status}, dict.fromkeys("ABC", rows)))
        assert not all(finding.ok for finding in check(card, {"status": status}, dict.fromkeys("ABC", 1 - rows)))


def a_view(status: str = "COMPENSATED", ended: bool = True) -> dict[str, Any]:
    """A saga whose B failed after its commit."""
    steps = [
        {"name": "A", "status": "COMPENSATED", "effect": "undone", "attempts": 1, "error": None},
        {"name": "B", "status": "COMPENSATED", "effect": "undone", "attempts": 3, "error": "injected: after"},
        {"name": "C", "status": "PENDING", "effect": "none", "attempts": 0, "error": None},
    ]
    saga = {"status": status, "ended_at": "now" if ended else None, "steps": steps, "error": None}
    return {"saga": saga, "snapshot": signup(), "rows": {step: {"records": [], "barrier": []} for step in "ABC"}}


def test_a_prediction_is_counted_and_each_answer_has_its_reason() -> None:
    query = {"scenario": "after-commit", "predict-status": "COMPENSATED"}
    query |= {"predict-A": "0", "predict-B": "1", "predict-C": "0"}
    judged = judge(query, a_view())
    assert judged.right == 3
    assert [(answer.what, answer.ok) for answer in judged.answers] == [
        ("The end", True),
        ("A", True),
        ("B", False),
        ("C", True),
    ]
    assert [answer.because for answer in judged.answers] == [
        "B comes before the pivot, and what nobody can be sure of is undone there",
        "it had acted, and was undone when the saga turned back",
        "nobody could tell whether it had acted, so that it was undone too",
        "it never had its turn",
    ]


def test_nothing_is_judged_before_the_sagas_end() -> None:
    judged = judge({"scenario": "after-commit", "predict-status": "COMPENSATED"}, a_view(ended=False))
    assert judged.scenario is not None
    assert not (judged.findings or judged.answers)


def test_a_sealed_barrier_is_the_reason_for_no_row() -> None:
    view = a_view()
    view["rows"]["C"]["barrier"] = [{"step": "C", "state": "sealed"}]
    query = {"predict-status": "COMPLETED", "predict-A": "1", "predict-B": "1", "predict-C": "1"}
    judged = judge(query, view)
    assert judged.right == 0
    assert judged.answers[3].because == "its barrier was sealed before it had acted, and since then it does nothing"


def test_an_address_that_somebody_has_typed_by_hand_holds_no_prediction() -> None:
    assert judge({"predict-status": "PERHAPS"}, a_view()).answers == ()


@pytest.mark.parametrize("field", ["predict-status", "predict-A"])
def test_a_prediction_that_is_none_names_its_field(field: str) -> None:
    form = {"predict-status": "COMPLETED", "predict-A": "1", field: "perhaps"}
    with pytest.raises(BadInput, match=field):
        predict(form, ["A"])
    assert predict({"username": "ada"}, ["A"]) is None
