"""These functions print what several commands print: a saga on one line, or the API's own JSON."""

from __future__ import annotations

from typing import Any

import click

from saga.definition import SagaDefinition
from saga.payload import pretty
from saga.views.phrasing import Phrases
from saga.views.step_words import status_of_step

json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's own JSON.")


def show_json(value: Any) -> None:
    """Print JSON, indented for people."""
    click.echo(pretty(value))


def one_line(saga: dict[str, Any]) -> str:
    """Return the saga on one line: its id, status, name and steps, and what went wrong where something did."""
    error = saga["error"]
    place = f"{error['step']} " if error and error["step"] else ""
    why = f"  {place}{error['kind']}: {error['message']}" if error else ""
    if saga["status"] == "STALLED":
        why = f"  {stuck_call(saga)}{'; the cause:' if why else ''}{why.replace('  ', ' ')}"
    attention = "  NEEDS ATTENTION" if saga["needs_attention"] else ""
    steps = " ".join(f"{step['name']}:{status_of_step(saga, step).lower()}" for step in saga["steps"])
    mode = "" if saga["mode"] in (SagaDefinition.mode, None) else f" ({saga['mode']})"  # the default is not said
    return f"{saga['saga_id']}  {saga['status']:<12} {saga['saga'] or '?'}{mode}  {steps}{attention}{why}"


def stuck_call(saga: dict[str, Any]) -> str:
    """Return in words which call a stalled saga makes again, why it failed, and when it is made again.

    The call is a compensation where one is under way. Otherwise the saga goes forward, and the call is the action of
    the first step that is not done, because all steps before it are.
    """
    undone = [step for step in saga["steps"] if step["status"] == "COMPENSATING"]
    stuck = [*undone, *(step for step in saga["steps"] if step["status"] != "DONE")]
    again = f"again at {saga['due_at']}" if saga["due_at"] else "it is tried again by itself"
    if not stuck:
        return again
    say = Phrases(saga["mode"])
    call = say("label of an undo" if undone else "label of a call", step=stuck[0]["name"])
    return f"{say('stuck at', call=call)}: {stuck[0]['error'] or say('no last answer')}; {again}"
