"""The sequence diagram of a naive run: its calls, each with its answer and the rows that it left. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.dashboard.diagram_rows import DiagramRow
from orchestrator.dashboard.formatting import length
from orchestrator.dashboard.naive import Found, NaiveCall, NaiveRun
from orchestrator.dashboard.sequence import Diagram, laid_out
from saga.definition import ORCHESTRATION
from saga.views.phrasing import Phrases

NAIVE = "naive"  # the lane of the coordinator


def naive_diagram(steps: Sequence[str], run: NaiveRun, found: Mapping[tuple[str, int], Found]) -> Diagram:
    """Draw the calls of a run to these steps; `found` is what the services have of each request now."""
    rows = [_row(call, steps, found.get((call.step, call.attempt))) for call in run.calls]
    if run.says:
        says = f"says {run.says}"
        rows.append(DiagramRow("note", 0, says, f"the naive coordinator {says}", outcome="stalled"))
    return laid_out([NAIVE, *steps], rows, Phrases(ORCHESTRATION))


def _row(call: NaiveCall, steps: Sequence[str], found: Found) -> DiagramRow:
    undoing = call.direction == "compensation"
    label = f"undo {call.step}" if undoing else f"{call.step}, request {call.attempt}"
    left = 0 if found is None or undoing else len(found["records"])
    answer = f"HTTP {call.status_code}" if call.status_code else "no answer known"
    leaves = f"left {left} row{'s' if left != 1 else ''}" if left else ""
    said = f"{answer}, {leaves}" if leaves else answer
    title = f"the naive coordinator calls {'undo ' if undoing else ''}{call.step}, as a new request: {said}"
    at = length(call.at, 0)
    return DiagramRow("call", 0, label, title, steps.index(call.step) + 1, said, _outcome(call, left), at=at)


def _outcome(call: NaiveCall, left: int) -> str:
    if call.status_code and call.status_code < 300:
        return "done"
    return "unknown" if left or call.status_code is None else "refused"
