"""What a card of the page "Break it" said beforehand, and what its reader predicted, against what came of it. Pure.

A prediction lives in the address of the page that shows the saga, in `predict-status` and `predict-<step>`: so it
survives a reload, and belongs to that saga alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.dashboard.scenarios import Expectation, Scenario, expectation, find_scenario
from saga.definition import SagaDefinition
from saga.errors import BadInput

ENDS = ("COMPLETED", "COMPENSATED")
NO_ROW, A_ROW = ROWS = ("0", "1")


@dataclass(frozen=True)
class Finding:
    """Something that was expected, and what was found; `ok` says whether the two are the same, `because` why it is so.

    `what` is a step, or "The end".
    """

    what: str
    expected: str
    found: str
    ok: bool
    because: str = ""


@dataclass(frozen=True)
class Judgement:
    """What became of a card (`findings`) and of a prediction (`answers`); both are empty before the saga's end."""

    scenario: Scenario | None = None
    findings: Sequence[Finding] = ()
    answers: Sequence[Finding] = ()

    @property
    def right(self) -> int:
        """How many of the answers are right."""
        return sum(answer.ok for answer in self.answers)


def judge(arguments: Mapping[str, str], view: Mapping[str, Any]) -> Judgement:
    """What became of the card and of the prediction that the query of a page names; `view` is what it shows."""
    saga, definition = view["saga"], view["snapshot"]
    scenario = find_scenario(definition, arguments.get("scenario"))
    if saga["ended_at"] is None:
        return Judgement(scenario)
    found = view["rows"]
    try:
        prediction = predict(arguments, list(asked_of(definition)))
    except BadInput:
        prediction = None  # somebody has typed the address by hand
    return Judgement(
        scenario,
        check(scenario, saga, counted(found)) if scenario else (),
        _answers(prediction, scenario, saga, found, definition) if prediction else (),
    )


def asked_of(definition: SagaDefinition) -> tuple[str, ...]:
    """The steps whose rows a reader is asked to predict: those of which something is promised either way."""
    return tuple(expectation(definition, "COMPENSATED").rows)


def counted(rows: Mapping[str, Any]) -> dict[str, int | None]:
    """How many rows each participant says it has; None where it does not answer."""
    return {step: None if found is None else len(found["records"]) for step, found in rows.items()}


def check(scenario: Scenario, saga: Mapping[str, Any], rows: Mapping[str, int | None]) -> list[Finding]:
    """Compare a card with what came of it; `rows` is how many each service has, None where it does not answer."""
    return _compare(scenario.right_end(saga["status"]), saga, rows)


def predict(form: Mapping[str, str], steps: Sequence[str]) -> tuple[str, dict[str, int]] | None:
    """A reader's prediction in a form's fields `predict-status`, `predict-<step>`; None where there is none.

    BadInput names the field that is neither.
    """
    if not any(name.startswith("predict-") for name in form):
        return None
    status = _one_of(form, "predict-status", ENDS)
    return status, {step: int(_one_of(form, f"predict-{step}", ROWS)) for step in steps}


def _answers(
    prediction: tuple[str, Mapping[str, int]],
    scenario: Scenario | None,
    saga: Mapping[str, Any],
    found: Mapping[str, Any],
    definition: SagaDefinition,
) -> list[Finding]:
    status, rows = prediction
    unlimited = expectation(definition, "COMPLETED").unlimited
    said = Expectation(status, 0, rows, tuple(step for step in unlimited if rows.get(step)))
    steps = {step["name"]: step for step in saga["steps"]}
    end, *others = _compare(said, saga, counted(found))
    reasons = [_why_it_ended(scenario, saga), *(_why_it_has(steps[each.what], found[each.what]) for each in others)]
    return [
        Finding(each.what, each.expected, each.found, each.ok, because)
        for each, because in zip((end, *others), reasons, strict=True)
    ]


def _compare(wanted: Expectation, saga: Mapping[str, Any], rows: Mapping[str, int | None]) -> list[Finding]:
    findings = [Finding("The end", wanted.status, saga["status"], wanted.status == saga["status"])]
    for step, number in wanted.rows.items():
        found = rows.get(step)
        says = "does not answer" if found is None else f"has {_rows(found)}"
        findings.append(Finding(step, _rows(number), says, wanted.fits(step, found)))
    return findings


def _why_it_ended(scenario: Scenario | None, saga: Mapping[str, Any]) -> str:
    if scenario and saga["status"] == scenario.expect.status:
        return scenario.why
    if saga["status"] == "COMPLETED":
        return "every step took effect in the end"
    error = saga["error"] or {}
    kinds = {"refused": "refused", "cancelled": "was cancelled", "timeout": "did not answer in time"}
    if error.get("kind") == "deadline" or not error.get("step"):
        return "its deadline passed before its pivot had committed"
    return f"{error['step']} {kinds.get(error.get('kind', ''), 'failed')} before its pivot had committed"


def _why_it_has(step: Mapping[str, Any], found: Mapping[str, Any] | None) -> str:
    """Why a service has its rows, or none: by the step in the saga's representation, and the service's barrier."""
    if found is None:
        return ""
    barrier = {row.get("state") for row in found.get("barrier") or [] if row.get("step") == step["name"]}
    if "sealed" in barrier:
        return "its barrier was sealed before it had acted, and since then it does nothing"
    if step["status"] == "PENDING":
        return "it never had its turn"
    if step["effect"] == "none":
        return "it certainly did nothing"
    if step["effect"] == "undone":
        unsure = "nobody could tell whether it had acted, so that it was undone too"
        return unsure if step["error"] else "it had acted, and was undone when the saga turned back"
    if step["effect"] == "applied" and step["attempts"] > 1:
        return f"its barrier let it act once, whichever of {step['attempts']} attempts that was"
    return "it took effect" if step["effect"] == "applied" else "what came of it is not known"


def _rows(number: int) -> str:
    return {0: "no row", 1: "one row"}.get(number, f"{number} rows")


def _one_of(form: Mapping[str, str], name: str, known: Sequence[str]) -> str:
    if form.get(name) not in known:
        raise BadInput(f"{name} must be one of {', '.join(known)}, not {form.get(name, '')!r}", name)
    return form[name]
