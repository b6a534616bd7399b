"""`saga audit` checks, `saga prune` forgets, and `saga export-row` exports what the databases hold."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import click

from saga.cli.api import FAILED, NOT_ENDED, USAGE, Api, fail
from saga.cli.output import json_option, show_json

SECONDS_OF_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86_400}  # seconds


@click.command()
@click.option("--since", help="Only sagas that ended since this time, like 2026-01-31T12:00:00Z.")
@click.option("--limit", type=int, default=500, show_default=True, help="The latest so many.")
@json_option
@click.pass_obj
def audit(api: Api, /, as_json: bool, **flags: Any) -> None:
    """Ask the services themselves: is every ended saga all or nothing?"""
    _, found = api.call("GET", "/audit", params={name: value for name, value in flags.items() if value})
    show_json(found) if as_json else _show_audit(found)
    raise SystemExit(FAILED if found["violations"] else NOT_ENDED if found["unreachable"] else 0)


def _show_audit(found: dict[str, Any]) -> None:
    for wrong in found["violations"]:
        difference = f"expected {wrong['expected']}, found {wrong['found']}"
        click.echo(f"VIOLATION {wrong['saga_id']} {wrong['status']} step {wrong['step']}: {difference}")
    for silent in found["unreachable"]:
        click.echo(f"NOT ASKED {silent['saga_id']} step {silent['step']}: {silent['url']}")
    unreadable = f", {found['unreadable']} unreadable" if found.get("unreadable") else ""
    click.echo(f"{found['checked']} checked, {len(found['violations'])} violations{unreadable}")


@click.command()
@click.option("--older-than", "age", required=True, help="Forget what ended so long ago: 90s, 15m, 12h, 30d.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def prune(api: Api, /, age: str, yes: bool, as_json: bool) -> None:
    """Forget sagas that ended long ago, in batches, so that it blocks nobody. There is no way back."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", age)
    if not match:
        fail(USAGE, f"--older-than must be like 90s, 15m, 12h or 30d, not {age!r}")
    seconds = int(match[1]) * SECONDS_OF_UNIT[match[2]]
    before = datetime.fromtimestamp(datetime.now(UTC).timestamp() - seconds, UTC)
    if not yes:
        click.confirm(f"Forget every saga that ended before {before:%Y-%m-%d %H:%M:%S} UTC?", abort=True)
    pruned, batch = 0, -1
    with click.progressbar(length=0, label="forgotten", show_percent=False, show_pos=True) as bar:
        while batch:
            batch = api.call("POST", "/prune", params={"older_than": seconds})[1]["pruned"]
            pruned += batch
            bar.update(batch)
    show_json({"pruned": pruned}) if as_json else click.echo(f"{pruned} forgotten")


@click.command("export-row")
@click.argument("saga_id")
@click.pass_obj
def export_row(api: Api, /, saga_id: str) -> None:
    """Print a saga's row and its lines as the database has them (JSON), also where the saga is UNREADABLE."""
    show_json(api.call("GET", f"/sagas/{saga_id}/export")[1])
