"""A saga's steps as a drawing: a box for each in a row, and below them the way back, where there is one. Pure.

Positions are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saga.definition import Step

BOX, GAP, MARGIN = 118, 56, 34  # widths
HEIGHT, HEIGHT_WITH_WAY_BACK = 112, 176
UNDOING = ("COMPENSATING", "COMPENSATED")


@dataclass(frozen=True)
class Box:
    """A step at `x`. `reached`: its action had its turn; `undoing`: its compensation had, or has it now."""

    name: str
    status: str
    x: int
    attempts: int
    pivot: bool
    reached: bool
    undoing: bool


@dataclass(frozen=True)
class StepGraph:
    """What to draw; the way back starts at `back_from`, None where the saga does not turn back."""

    boxes: tuple[Box, ...]
    width: int
    height: int
    title: str
    back_from: int | None


def step_graph(saga: Mapping[str, Any], steps: Sequence[Step], sent: Mapping[str, int]) -> StepGraph:
    """The drawing of a saga's representation; `sent` is how often the log says that each step's action was sent."""
    boxes = tuple(
        Box(
            shown["name"],
            shown["status"],
            MARGIN + number * (BOX + GAP),
            max(shown["attempts"], sent.get(shown["name"], 0)),
            step.pivot,
            shown["status"] != "PENDING",
            shown["status"] in UNDOING,
        )
        for number, (step, shown) in enumerate(zip(steps, saga["steps"], strict=True))
    )
    turns_back = saga["status"] in UNDOING or any(box.undoing for box in boxes)
    furthest = max((box.x for box in boxes if box.reached), default=None)
    title = ", then ".join(f"{box.name} {box.status}" for box in boxes)
    if turns_back:
        title += "; it has turned back" if saga["status"] == "COMPENSATED" else "; it is turning back"
    return StepGraph(
        boxes,
        MARGIN * 2 + len(boxes) * (BOX + GAP) - GAP,
        HEIGHT_WITH_WAY_BACK if turns_back else HEIGHT,
        title,
        furthest + BOX - 14 if turns_back and furthest is not None else None,
    )
