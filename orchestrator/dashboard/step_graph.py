"""A saga's steps as a drawing: a box for each, in order, and beside them the way back, where there is one. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saga.definition import Step
from saga.views.step_words import StepWords

UNDOING = ("COMPENSATING", "COMPENSATED")


@dataclass(frozen=True)
class Box:
    """A step. `reached`: its action had its turn; `undoing`: its compensation had, or has it now.

    `back` says where it is on the way back: its "turn" (the furthest step), "on" the way, or "" beyond it.
    """

    name: str
    status: str
    words: StepWords
    pivot: bool
    reached: bool
    undoing: bool
    back: str


@dataclass(frozen=True)
class StepGraph:
    """What to draw, and the same in words."""

    boxes: tuple[Box, ...]
    title: str


def step_graph(saga: Mapping[str, Any], steps: Sequence[Step], words: Mapping[str, StepWords]) -> StepGraph:
    """The drawing of a saga's representation; `words` are what is said of each step."""
    shown = saga["steps"]
    turns_back = saga["status"] in UNDOING or any(step["status"] in UNDOING for step in shown)
    furthest = max((number for number, step in enumerate(shown) if step["status"] != "PENDING"), default=-1)
    turns_back = turns_back and furthest >= 0
    boxes = tuple(
        Box(
            each["name"],
            each["status"],
            words[each["name"]],
            step.pivot,
            number <= furthest,
            each["status"] in UNDOING,
            "" if not turns_back or number > furthest else "turn" if number == furthest else "on",
        )
        for number, (step, each) in enumerate(zip(steps, shown, strict=True))
    )
    title = ", then ".join(f"{box.name} {box.words.status}" for box in boxes)
    if turns_back:
        title += "; it has turned back" if saga["status"] == "COMPENSATED" else "; it is turning back"
    return StepGraph(boxes, title)
