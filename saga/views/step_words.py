"""What the pages and the command line say of one step of a saga, made from what the API says. Pure.

The API's `status` stays as it is. Here REFUSED is said only of a business refusal; a step that failed and certainly
changed nothing is NO EFFECT, and a pivot that has sealed itself is SEALED.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saga.definition import ORCHESTRATION
from saga.machine import Event, State
from saga.views.lines import ShownLine, detail_of
from saga.views.phrasing import Phrases


@dataclass(frozen=True)
class StepWords:
    """The words for a step: its status, what it means, its effect, and how often its action was tried.

    `look` is what a stylesheet calls such a status.
    """

    status: str
    meaning: str
    effect: str
    attempts: str
    look: str


def words_of_steps(
    saga: Mapping[str, Any],
    lines: Sequence[ShownLine],
    sent: Mapping[str, int] | None = None,
    under_way: bool = False,
) -> dict[str, StepWords]:
    """Return the words for each step of a saga's representation, by its name; `lines` are those of its log.

    `sent` is how often the log says that each action was sent, where that is more than the representation counts.
    `under_way` says that an attempt of the step whose turn it is may be under way.
    """
    sent = sent or {}
    sealed, say = sealed_steps(lines), Phrases(saga["mode"] or ORCHESTRATION)
    return {
        step["name"]: _words(step, status_of_step(saga, step, sealed), say, sent.get(step["name"], 0), under_way)
        for step in saga["steps"]
    }


def status_of_step(saga: Mapping[str, Any], step: Mapping[str, Any], sealed: Sequence[str] = ()) -> str:
    """Return the word for a step's status; `sealed` are the names of the steps of which the log says so."""
    if step["status"] == "COMPENSATED" and step["name"] in sealed:
        return "SEALED"
    if step["status"] == "REFUSED" and not _said_no(saga, step):
        return "NO EFFECT"
    return str(step["status"])


def sealed_steps(lines: Sequence[ShownLine]) -> list[str]:
    """Return the steps that were asked for their unknown outcome, and have answered that they never took effect.

    A step that an operator has resolved by hand has answered nothing.
    """
    found, state = [], ""
    for line in lines:
        if line["event"] == Event.COMPENSATION_DONE and state == State.SEALING:
            found.append(str(line["step"]))
        if line["event"] in set(Event):
            state = str(detail_of(line).get("state", ""))
    return found


def _said_no(saga: Mapping[str, Any], step: Mapping[str, Any]) -> bool:
    error = saga["error"]
    return error is not None and error["step"] == step["name"] and error["kind"] == "refused"


def _words(step: Mapping[str, Any], status: str, say: Phrases, sent: int, under_way: bool) -> StepWords:
    effect = "effect sealed" if status == "SEALED" else f"effect {step['effect']}"
    number = max(step["attempts"], sent)
    counted = "one attempt counted" if number == 1 else "attempts counted"
    if step["status"] == "RUNNING" and under_way and number:
        counted = "attempt under way"
    look = {"NO EFFECT": "refused"}.get(status, status.lower())
    meaning = say(f"step {status.lower()}")
    return StepWords(status, meaning, say(effect), say(counted, number=number, count=number), look)
