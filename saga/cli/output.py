"""These functions print what several commands print: a saga on one line, or the API's own JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from saga.definition import SagaDefinition
from saga.payload import pretty
from saga.views.now import now_line, now_of
from saga.views.step_words import status_of_step

json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's own JSON.")


def show_json(value: Any) -> None:
    """Print JSON, indented for people."""
    click.echo(pretty(value))


def one_line(saga: dict[str, Any], now: str | None = None, sealed: Sequence[str] = ()) -> str:
    """Return the saga on one line: its id, status, name and steps, and what it does now, or why it turned back.

    `now`: what the orchestrator says that it does now; without it, what its representation tells. `sealed`: the names
    of the steps of which the saga's log says that they are.
    """
    does = now_line(now_of(saga)) if now is None else now
    cause = now_line(now_of({**saga, "status": "", "ended_at": "then"})) if saga["status"] == "STALLED" else ""
    said = f"  {does}" + (f"; the cause: {cause}" if cause else "") if does else ""
    attention = "  NEEDS ATTENTION" if saga["needs_attention"] else ""
    steps = " ".join(f"{step['name']}:{status_of_step(saga, step, sealed).lower()}" for step in saga["steps"])
    mode = "" if saga["mode"] in (SagaDefinition.mode, None) else f" ({saga['mode']})"  # the default is not said
    return f"{saga['saga_id']}  {saga['status']:<12} {saga['saga'] or '?'}{mode}  {steps}{attention}{said}"
