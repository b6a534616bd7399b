"""What a service itself has of a saga, held against what the saga's log says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saga.definition import UNCHECKED
from saga.record import Record
from saga.views.audit import expected, violation

_SAYS = {"applied": "applied", "undone": "undone", "none": "that it had no effect", "unknown": "that nobody knows"}


@dataclass(frozen=True)
class Verdict:
    """`holds`: whether the two agree; None where that cannot be said, or not yet."""

    holds: bool | None
    text: str


def verdicts(
    record: Record, steps: list[dict[str, Any]], rows: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, Verdict]:
    """Of each step, by its name; `steps` as the representation has them, `rows` as the services do."""
    effects = {step["name"]: step["effect"] for step in steps}
    return {
        step.name: _verdict(record, index, effects[step.name], rows.get(step.name))
        for index, step in enumerate(record.definition.steps)
    }


def violations(record: Record, rows: Mapping[str, Mapping[str, Any] | None]) -> list[dict[str, Any]]:
    """What the audit would say of this saga; nothing of one that has not ended, or of a service that is silent."""
    answered = ((step, rows.get(step.name)) for step in record.definition.steps)
    found = (violation(record, step, len(answer["records"])) for step, answer in answered if answer is not None)
    return [each for each in found if each]


def _verdict(record: Record, index: int, effect: str, found: Mapping[str, Any] | None) -> Verdict:
    step = record.definition.steps[index]
    if step.records == UNCHECKED:
        return Verdict(None, "not compared (records: skip)")
    if found is None:
        return Verdict(None, "not known: it does not answer")
    if not record.ended:
        return Verdict(None, "not settled yet")
    if expected(step, record.state) is None:
        return Verdict(None, "not compared: it cannot be undone, so nothing was promised of it")
    number = len(found["records"])
    if violation(record, step, number) is None:
        return Verdict(True, "as the log says")
    return Verdict(False, f"the log says {_SAYS.get(effect, effect)}, {step.name} has {_rows(number)}")


def _rows(number: int) -> str:
    return f"{number or 'no'} row{'s' if number > 1 else ''}"
