"""The diagrams of the docs, from what they show: `python -m tests.diagram` writes them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from saga.choreography.events import EventKind, StepSubscription, Task, parse_event, started, subject
from saga.definition import SagaDefinition
from saga.definition_file import load_definition, load_definitions
from saga.machine import ENDED, STALLED, TRANSITIONS, State
from saga.process.settings import load_settings
from saga.step_functions.asl import state_machine
from saga.step_functions.http_task import ANY, REFUSALS, TOO_LARGE
from tests.support.stack import INPUT, ROOT

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


def signup() -> SagaDefinition:
    """The saga that ships."""
    settings = load_settings({})
    return load_definitions(ROOT / settings.sagas_dir, settings.environ)["signup"]


def who_calls_whom() -> str:
    """Orchestration, from the definition: a solid arrow is an action, a dotted one its compensation."""
    lines = ["flowchart LR", '    client(["POST /start"]) --> orchestrator']
    for number, step in enumerate(signup().steps, 1):
        pivot = ", the pivot" if step.pivot else ""
        lines.append(f"    orchestrator -->|action {number}{pivot}| {step.name}")
    for step in reversed(signup().steps):
        undo = "seal it, or hear that it has committed" if step.pivot else "undo"
        lines += [f"    orchestrator -.->|{undo}| {step.name}"] if step.compensation else []
    return "\n".join(lines)


def who_listens_to_whom() -> str:
    """Choreography, from the same definition: a solid arrow lets act, a dotted one undo, a thick one gives secrets."""
    definition = signup()
    tellers = {subject(definition.name, EventKind.STARTED): "orchestrator"}
    tellers |= {event.subject: "orchestrator" for event in started(definition, "it", INPUT, 0.0)}
    lines = ["flowchart LR", '    client(["POST /start"]) --> orchestrator']
    for index, step in enumerate(definition.steps):
        arrows: dict[tuple[str, Task], list[str]] = {}
        for heard, duty in StepSubscription(definition, index).subjects().items():
            if duty is Task.STORE_SECRETS and heard not in tellers:  # it is sent no secret
                continue
            teller = tellers.get(heard) or str(parse_event(heard, b'{"saga_id": "it"}').step)
            arrows.setdefault((teller, duty), []).append(heard.removeprefix(f"saga.{definition.name}."))
        signs = {Task.ACT: "-->", Task.COMPENSATE: "-.->", Task.STORE_SECRETS: "==>"}
        lines += [
            f"    {teller} {signs[duty]}|{', '.join(told)}| {step.name}" for (teller, duty), told in arrows.items()
        ]
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


PAGES: dict[Path, list[Callable[[], str]]] = {
    ROOT / "docs" / "design.md": [transitions],
    ROOT / "docs" / "step-functions.md": [exported],
    ROOT / "docs" / "orchestration-or-choreography.md": [who_calls_whom, who_listens_to_whom],
}


def with_diagrams(page: Path) -> str:
    """The page with its diagrams put in."""
    diagrams = iter(PAGES[page])
    return re.sub(
        r"```mermaid\n.*?```", lambda _: f"```mermaid\n{next(diagrams)()}\n```", page.read_text(), flags=re.DOTALL
    )


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_diagrams(page))
