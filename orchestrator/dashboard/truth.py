"""Compares the rows that a service has of a saga with what the saga's log says. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from saga.definition import UNCHECKED
from saga.saga_row import SagaRow
from saga.views.audit import expected, violation

_SAYS = {"none": "that it had no effect", "unknown": "that nobody knows"}  # else the effect itself: undone, sealed


@dataclass(frozen=True)
class Agreement:
    """Whether a service's rows agree with the log: `holds` is None where that cannot be said, or not yet."""

    holds: bool | None
    text: str


def agreements(
    row: SagaRow,
    steps: list[dict[str, Any]],
    rows: Mapping[str, Mapping[str, Any] | None],
    sealed: Collection[str] = (),
) -> dict[str, Agreement]:
    """The agreement of each step, by its name; `steps` are the representation's, `rows` what the services answered.

    `sealed` are the steps of which the log says that they never took effect, and never will.
    """
    effects = {step["name"]: "sealed" if step["name"] in sealed else step["effect"] for step in steps}
    return {
        step.name: _agreement(row, index, effects[step.name], rows.get(step.name))
        for index, step in enumerate(row.definition.steps)
    }


def violations(row: SagaRow, rows: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """What the audit would report of this saga: nothing before its end, nothing of a service that does not answer."""
    answered = ((step, rows.get(step.name)) for step in row.definition.steps)
    found = (violation(row, step, len(answer["records"])) for step, answer in answered if answer is not None)
    return [each for each in found if each]


def _agreement(row: SagaRow, index: int, effect: str, found: Mapping[str, Any] | None) -> Agreement:
    step = row.definition.steps[index]
    if step.records == UNCHECKED:
        return Agreement(None, "not compared (records: skip)")
    if found is None:
        return Agreement(None, "not known: it does not answer")
    if not row.ended:
        return Agreement(None, "not settled yet")
    if expected(step, row.state) is None:
        return Agreement(None, "not compared: it cannot be undone, so nothing was promised of it")
    number = len(found["records"])
    if violation(row, step, number) is None:
        return Agreement(True, "as the log says")
    return Agreement(False, f"the log says {_SAYS.get(effect, effect)}, {step.name} has {_rows(number)}")


def _rows(number: int) -> str:
    return f"{number or 'no'} row{'s' if number > 1 else ''}"
