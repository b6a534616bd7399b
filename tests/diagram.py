"""The diagrams of the docs, from what they show: `python -m tests.diagram` writes them."""

from __future__ import annotations

import re

from saga.asl import ANY, REFUSALS, TOO_LARGE, state_machine
from saga.definition import load_definition
from saga.machine import ENDED, STALLED, TRANSITIONS, State
from tests.stack import ROOT

HTTPS = {f"SERVICE_{name}_URL": f"https://{name.lower()}.example.com" for name in "ABC"}


def transitions() -> str:
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


def exported() -> str:
    """Mermaid's flowchart of `signup` as a state machine of Step Functions."""
    states = state_machine(load_definition(ROOT / "orchestrator" / "sagas" / "signup.yaml", HTTPS))["States"]
    errors = {str(REFUSALS): "4xx", str(ANY): "any other error", "['States.Http.StatusCode.409']": "409"}
    lines = ["flowchart TD"]
    for name, state in states.items():
        follows = [("", state[field]) for field in ("Next", "Default") if field in state]
        follows += [
            ("deadline passed" if "failure" in rule["Assign"] else "first attempt", rule["Next"])
            for rule in state.get("Choices", ())
        ]
        follows += [
            (errors[str(catch["ErrorEquals"])], catch["Next"])
            for catch in state.get("Catch", ())
            if catch["ErrorEquals"] != TOO_LARGE  # it goes where any other goes
        ]
        lines += [f"    {_node(name)} -->{f'|{label}|' if label else ''} {_node(to)}" for label, to in follows]
    return "\n".join(lines)


def _node(name: str) -> str:
    return f'{name.replace(" ", "_")}["{name}"]' if " " in name else name


PAGES = {ROOT / "docs" / "design.md": transitions, ROOT / "docs" / "step-functions.md": exported}


def with_diagram(page: str, diagram: str) -> str:
    """The page with the diagram put in."""
    return re.sub(r"```mermaid\n.*?\n```", lambda _: f"```mermaid\n{diagram}\n```", page, flags=re.DOTALL)


if __name__ == "__main__":
    for path, draw in PAGES.items():
        path.write_text(with_diagram(path.read_text(), draw()))
