"""Who told whom, or who called whom, as a sequence diagram: a lane for each party, a row for each message. Pure.

Of an orchestrated saga: the calls, all of them the orchestrator's, each with its answer. Of a choreographed one: the
events, from the service that publishes one to the one that acts on it (the broker between them is not drawn); the
orchestrator only listens. Positions are pixels of the narrowest drawing in which no text lies on another; in a wider
one all lanes are further apart, in proportion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from orchestrator.dashboard.call_rows import call_rows
from orchestrator.dashboard.diagram_rows import DiagramRow
from orchestrator.dashboard.event_rows import event_rows
from saga.definition import CHOREOGRAPHY, ORCHESTRATION
from saga.views.lines import ShownLine
from saga.views.phrasing import Phrases

ORCHESTRATOR = "orchestrator"
ROWS = {ORCHESTRATION: call_rows, CHOREOGRAPHY: event_rows}
ROWS_AT_MOST = 80  # those in the middle give way
TOP, TIMES = 50, 58  # above the first row; left of the lanes
GAP_AT_LEAST = 150  # between two lanes
LETTER, HEAD_LETTER = 6.9, 8.2  # widths
HEIGHTS = {"call": 54, "lost": 40, "gone": 52, "event": 38, "attempt": 30, "note": 30}
_ACROSS = ("lost", "gone")  # the kinds of rows whose labels go across the lanes
AWAY = 16  # of a label, from the lane at which it begins


@dataclass(frozen=True)
class Lane:
    """The orchestrator or a step, at `x`; `half` is half of the width of its head."""

    name: str
    x: int
    half: int


@dataclass(frozen=True)
class Diagram:
    """What to draw; `observed` says that the orchestrator only listens."""

    lanes: tuple[Lane, ...]
    rows: tuple[DiagramRow, ...]
    observed: bool
    width: int
    height: int


def sequence(saga: Mapping[str, Any], lines: Sequence[ShownLine]) -> Diagram:
    """The diagram of a saga's representation and its log, as the API shows them."""
    names = [ORCHESTRATOR, *(step["name"] for step in saga["steps"])]
    say = Phrases(saga["mode"])
    rows_of = ROWS[saga["mode"]]
    return laid_out(names, rows_of(names, saga, lines, say), say, rows_of is event_rows)


def laid_out(names: Sequence[str], rows: list[DiagramRow], say: Phrases, observed: bool = False) -> Diagram:
    """Place these rows below each other, and a lane for each of the names, which a row knows by its number."""
    gap = _gap(names, rows)
    halves = [int(HEAD_LETTER * len(name) / 2) + 9 for name in names]
    lanes = tuple(Lane(name, TIMES + halves[0] + at * gap, halves[at]) for at, name in enumerate(names))
    y, placed = TOP, []
    for row in _folded(rows, say):
        y += HEIGHTS[row.kind]
        placed.append(replace(row, y=y))
    width = max(lanes[-1].x + halves[-1] + 2, _of_the_longest(rows, lanes[0].x))
    return Diagram(lanes, tuple(placed), observed, width, y + 20)


def _gap(names: Sequence[str], rows: Sequence[DiagramRow]) -> int:
    texts = [*names, *(label for row in rows if row.kind not in _ACROSS for label in (row.label, row.answer))]
    return max(GAP_AT_LEAST, int(LETTER * max(map(len, texts))) + 14)


def _of_the_longest(rows: Sequence[DiagramRow], first: int) -> int:
    """The width that the texts need which begin at the first lane, and go on across the others."""
    return max((first + AWAY + int(LETTER * len(row.label)) + 6 for row in rows if row.kind in _ACROSS), default=0)


def _folded(rows: list[DiagramRow], say: Phrases) -> list[DiagramRow]:
    if len(rows) <= ROWS_AT_MOST:
        return rows
    first, last = rows[: ROWS_AT_MOST // 2], rows[1 - ROWS_AT_MOST // 2 :]
    more = say("rows left out", count=len(rows) - len(first) - len(last))
    return [*first, DiagramRow("note", 0, more, more), *last]
