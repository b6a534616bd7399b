"""The cards say what can be run, and are judged by what is found."""

from __future__ import annotations

import pytest

from orchestrator.dashboard.scenarios import SCENARIOS, check, compare, predict
from saga.errors import BadInput
from saga.faults.flags import parse_plan

CARDS = {scenario.slug: scenario for scenario in SCENARIOS}


def test_every_card_can_be_sent() -> None:
    """Its flags are ones that POST /start takes, and no two cards are the same."""
    for scenario in SCENARIOS:
        flags = {name: [value for key, value in scenario.flags if key == name] for name in ("fail", "delay")}
        parse_plan(flags["fail"], flags["delay"], ["A", "B", "C"], enabled=True)
    assert len(CARDS) == len({scenario.flags for scenario in SCENARIOS}) == len(SCENARIOS)


def test_a_card_is_right_only_where_all_of_it_is() -> None:
    card = CARDS["b-fails"]
    right = check(card, {"status": "COMPENSATED"}, {"A": 0, "B": 0, "C": 0})
    assert all(finding.ok for finding in right)
    wrong = check(card, {"status": "COMPLETED"}, {"A": 2, "B": None, "C": 0})
    assert [(finding.found, finding.ok) for finding in wrong] == [
        ("COMPLETED", False),
        ("2 rows", False),
        ("it does not answer", False),
        ("no row", True),
    ]


def test_a_race_has_two_right_ends_and_nothing_between_them() -> None:
    card = CARDS["service-crash"]
    for status, rows in (("COMPLETED", 1), ("COMPENSATED", 0)):
        assert all(finding.ok for finding in check(card, {"status": status}, dict.fromkeys("ABC", rows)))
        assert not all(finding.ok for finding in check(card, {"status": status}, dict.fromkeys("ABC", 1 - rows)))


def test_a_prediction_is_read_from_a_form_and_compared() -> None:
    form = {"predict-status": "COMPENSATED", "predict-A": "1", "predict-B": "0", "other": "x"}
    prediction = predict(form, ["A", "B"])
    assert prediction is not None
    assert [each.ok for each in compare(prediction, {"status": "COMPENSATED"}, {"A": 0, "B": 0})] == [True, False, True]
    assert predict({"username": "ada"}, ["A"]) is None


@pytest.mark.parametrize("field", ["predict-status", "predict-A"])
def test_a_prediction_that_is_none_names_its_field(field: str) -> None:
    form = {"predict-status": "COMPLETED", "predict-A": "1", field: "perhaps"}
    with pytest.raises(BadInput, match=field):
        predict(form, ["A"])
