"""`saga list` and `saga show` look at sagas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from saga.cli.api import Api
from saga.cli.output import json_option, one_line, show_json
from saga.definition import CHOREOGRAPHY, ORCHESTRATION
from saga.machine import RELEASED
from saga.views.lines import detail_of, heard_by_a_service, parked_lines
from saga.views.step_words import StepWords, sealed_steps, words_of_steps

LINES_PER_PAGE = 5000  # of a log, in a page


@click.command("list")
@click.option("--status", help="RUNNING, COMPENSATING, STALLED, COMPLETED, COMPENSATED or UNREADABLE.")
@click.option("--saga", help="The saga's name in its YAML file.")
@click.option("--mode", help="orchestration or choreography.")
@click.option("--engine", help="builtin or temporal.")
@click.option("--step", help="The step at which they turned back.")
@click.option("--kind", help="Why they turned back: refused, failed, timeout, cancelled or deadline.")
@click.option("--since", help="Started at this time or later, as 2026-01-31T12:00:00Z.")
@click.option("--until", help="Started at this time or earlier.")
@click.option("--sort", help="newest (default), oldest, or longest.")
@click.option("-q", help="A saga's id, its beginning or its end, its idempotency key, or a text in its input.")
@click.option("--limit", type=int, default=20, show_default=True)
@click.option("--before", help="The last id of the page before.")
@json_option
@click.pass_obj
def list_sagas(api: Api, /, as_json: bool, **flags: Any) -> None:
    """List the latest sagas, newest first."""
    params = {name: value for name, value in flags.items() if value}
    _, page = api.call("GET", "/sagas", params={**params, "now": 1})
    if as_json:
        page.pop("now", None)
        return show_json(page)
    for saga in page["sagas"]:
        click.echo(one_line(saga, page.get("now", {}).get(saga["saga_id"])))
    if not page["sagas"]:
        click.echo("no such saga", err=True)
    if "looked_at" in page:
        more = f"--before {page['looked_to']} looks further"
        click.echo(f"only {page['looked_at']} sagas were looked at; {more}", err=True)
    return None


@click.command()
@click.argument("saga_id")
@json_option
@click.pass_obj
def show(api: Api, /, saga_id: str, as_json: bool) -> None:
    """Show one saga: its steps, its log, and what to do about it."""
    _, saga = api.call("GET", f"/sagas/{saga_id}")
    lines = _log_of(api, saga_id)
    if as_json:
        return show_json({**saga, "log": lines})
    click.echo(one_line(saga, sealed=sealed_steps(lines)))
    released = bool(lines) and lines[-1]["event"] == RELEASED
    words = words_of_steps(saga, lines, under_way=not released)
    for step in saga["steps"]:
        click.echo(_step(step, words[step["name"]]))
    for line in lines:
        click.echo(_line(line))
    for advice in _advice(saga, lines):
        click.echo(advice)
    return None


def _log_of(api: Api, saga_id: str) -> list[dict[str, Any]]:
    """Return all lines of a saga's log, which are asked for a page at a time."""
    lines: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        _, page = api.call("GET", f"/sagas/{saga_id}/log", params={"after": after, "limit": LINES_PER_PAGE})
        lines += page["lines"]
        after = page.get("next")
    return lines


def _step(step: dict[str, Any], words: StepWords) -> str:
    """Return a step on one line of text, in the words of the saga's page."""
    facts = f"{words.status:<13} effect {words.effect:<8} {words.attempts}"
    return f"  {step['name']:<10} {facts}  {step['error'] or ''}".rstrip()


def _line(line: dict[str, Any]) -> str:
    """Return a line of the log as text, without the facts that it does not have."""
    detail = " ".join(f"{name}={value}" for name, value in detail_of(line).items())
    number = f"#{line['attempt']}" if line["attempt"] else ""
    event = f"{line['event']:<20}"
    facts = [line["at"] or "?", event, line["step"] or "", number, line["status_code"] or "", detail]
    return "  " + " ".join(str(fact) for fact in facts if fact != "")


def _advice(saga: dict[str, Any], lines: list[dict[str, Any]]) -> Iterator[str]:
    """Yield what an operator can do about the saga, in sentences; nothing where nothing needs to be done."""
    saga_id = saga["saga_id"]
    if saga["status"] == "UNREADABLE":
        yield f"This version leaves it alone. `saga export-row {saga_id}` prints what the database has of it;"
        if not saga["ended_at"]:
            yield f'`saga resolve {saga_id} --note "…" --outcome completed` (or compensated) ends it, as you left it.'
    else:
        yield from _ADVICE[saga["mode"]](saga, lines)


def _advice_if_driven(saga: dict[str, Any], lines: list[dict[str, Any]]) -> Iterator[str]:
    if saga["status"] == "STALLED":
        yield f"It is tried again at {saga['due_at']}. `saga resume {saga['saga_id']}` tries now;"
        yield f'`saga resolve {saga["saga_id"]} --note "…"` says that you have done by hand what the call should do.'


def _advice_if_nobody_drives(saga: dict[str, Any], lines: list[dict[str, Any]]) -> Iterator[str]:
    saga_id = saga["saga_id"]
    if saga["overdue"]:
        yield "Its deadline has passed. Nobody is in charge of it: look at the service that it waits for."
    if saga["status"] == "RUNNING" and not heard_by_a_service(lines):
        yield f'If no service has heard of it, `saga abandon {saga_id} --note "…"` ends it.'
    if parked_lines(lines):
        yield f"An event of it is parked. `saga resume {saga_id}` lets it be published again."


_ADVICE = {ORCHESTRATION: _advice_if_driven, CHOREOGRAPHY: _advice_if_nobody_drives}  # by a saga's mode
