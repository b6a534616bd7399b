"""What a card of the page "Break it" said beforehand, and what the reader predicted, against what came of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.dashboard.scenarios import SCENARIOS, Finding, check, compare, predict
from saga.errors import BadInput


def findings_for(arguments: Mapping[str, str], view: Mapping[str, Any]) -> tuple[Sequence[Finding], Sequence[Finding]]:
    """What became of the card and of the prediction that a page's URL names; both are empty before the saga's end."""
    saga, rows = view["saga"], counted(view["rows"])
    if saga["ended_at"] is None:
        return (), ()
    scenario = next((each for each in SCENARIOS if each.slug == arguments.get("scenario")), None)
    try:
        prediction = predict(arguments, list(rows))
    except BadInput:
        prediction = None  # somebody has typed the address by hand
    return (
        check(scenario, saga, rows) if scenario else (),
        compare(prediction, saga, rows) if prediction else (),
    )


def counted(rows: Mapping[str, Any]) -> dict[str, int | None]:
    """How many rows each participant says it has; None where it does not answer."""
    return {step: None if found is None else len(found["records"]) for step, found in rows.items()}
