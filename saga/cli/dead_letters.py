"""`saga dead-letters` lists the events that no service could handle, and `saga replay` publishes one again."""

from __future__ import annotations

import click

from saga.cli.api import Api
from saga.cli.output import json_option, show_json


@click.command("dead-letters")
@click.option("--limit", type=int, default=100, show_default=True)
@json_option
@click.pass_obj
def dead_letters(api: Api, /, limit: int, as_json: bool) -> None:
    """List the events of choreographed sagas that could not be handled, newest first."""
    _, found = api.call("GET", "/dead-letters", params={"limit": limit})
    if as_json:
        return show_json(found)
    for letter in found["dead_letters"]:
        facts = [letter["at"], letter["service"], letter["subject"], letter["saga_id"] or "-", letter["message"]]
        click.echo("  ".join([str(letter["letter"]), *map(str, facts)]))
    if not found["dead_letters"]:
        click.echo("no dead letters", err=True)
    return None


@click.command()
@click.argument("letter", type=int)
@json_option
@click.pass_obj
def replay(api: Api, /, letter: int, as_json: bool) -> None:
    """Publish a dead letter again: `saga dead-letters` tells its number."""
    _, replayed = api.call("POST", f"/dead-letters/{letter}/replay")
    show_json(replayed) if as_json else click.echo(f"{replayed['subject']} is published again")
