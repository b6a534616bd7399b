"""The state diagram of docs/design.md, from the machine's own table: `python -m tests.diagram` writes it."""

from __future__ import annotations

import re

from saga.machine import ENDED, STALLED, TRANSITIONS, State
from tests.stack import ROOT

PAGE = ROOT / "docs" / "design.md"


def diagram() -> str:
    """Mermaid's stateDiagram; events that lead the same way share an arrow."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, event), (to, move) in TRANSITIONS.items():
        arrows.setdefault((state, to), []).append(f"{event} ({move})")
    arrows[State.EXECUTING, State.DECIDING] = ["at the pivot"]
    arrows[State.EXECUTING, State.COMPLETED] = arrows[State.FINISHING, State.COMPLETED] = ["no step left"]
    arrows[State.COMPENSATING, State.COMPENSATED] = ["no step left"]
    arrows[State.SEALING, State.STALLED_DECIDING] = ["it has no compensation"]
    lines = ["stateDiagram-v2", "    [*] --> executing"]
    lines += [f"    {state} --> {to}: {', '.join(events)}" for (state, to), events in arrows.items()]
    lines += [f"    {state} --> [*]" for state in sorted(ENDED)]
    assert all(any(state in pair for pair in arrows) for state in STALLED)
    return "\n".join(lines)


def with_diagram(page: str) -> str:
    """The page with the diagram put in."""
    return re.sub(r"```mermaid\n.*?\n```", lambda _: f"```mermaid\n{diagram()}\n```", page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text()))
