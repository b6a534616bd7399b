"""`saga start` starts a saga; the others are what an operator may do to one: cancel, resume, resolve, abandon."""

from __future__ import annotations

import sys
import uuid
from typing import Any

import click

from saga.cli.api import FAILED, NOT_ENDED, USAGE, Api, fail
from saga.cli.output import json_option, one_line, show_json
from saga.definition import CHOREOGRAPHY, ORCHESTRATION
from saga.errors import BadInput
from saga.payload import parse_object


@click.command()
@click.argument("saga", required=False)
@click.option("--input", "-i", "text", required=True, help="The saga's input, a JSON object; - reads standard input.")
@click.option(
    "--mode", type=click.Choice([ORCHESTRATION, CHOREOGRAPHY]), help="Who drives it (default: orchestration)."
)
@click.option("--fail", multiple=True, help="Inject a failure: b:after, c:late:1, orchestrator:before-B, …")
@click.option("--delay", multiple=True, help="Slow a service: b:500 (milliseconds).")
@click.option("--wait", type=float, help="Seconds to wait for its end (default: 30).")
@click.option("--key", help="An Idempotency-Key: the same one never starts a second saga.")
@json_option
@click.pass_obj
def start(api: Api, /, saga: str | None, text: str, key: str | None, as_json: bool, **flags: Any) -> None:
    """Start a saga and wait for its end."""
    body = sys.stdin.read() if text == "-" else text
    params = {"saga": saga, **{name: value for name, value in flags.items() if value not in (None, ())}}
    # Where the answer to the start is lost, the saga can be found by this key.
    key = key or f"saga-start-{uuid.uuid4()}"
    lost = f"the saga may have been started: `saga list -q {key}` tells, once it is up"
    headers = {"Idempotency-Key": key}
    code, answer = api.call("POST", "/start", lost, params=params, data=body.encode(), headers=headers)
    show_json(answer) if as_json else click.echo(one_line(answer))
    raise SystemExit({200: 0, 202: NOT_ENDED}.get(code, FAILED))


@click.command()
@click.argument("saga_id")
@json_option
@click.pass_obj
def cancel(api: Api, /, saga_id: str, as_json: bool) -> None:
    """Roll a saga back."""
    _command(api, saga_id, "cancel", as_json)


@click.command()
@click.argument("saga_id")
@json_option
@click.pass_obj
def resume(api: Api, /, saga_id: str, as_json: bool) -> None:
    """Make the call that stalled a saga again, now; of a choreographed one: replay its parked events."""
    _command(api, saga_id, "resume", as_json)


@click.command()
@click.argument("saga_id")
@click.option("--note", required=True, help="What was done by hand, and by whom; it is kept in the saga's log.")
@click.option("--result", help="What the action would have answered, a JSON object: later steps may need it.")
@click.option(
    "--outcome", type=click.Choice(["completed", "compensated"]), help="Of an UNREADABLE saga: how you left it."
)
@json_option
@click.pass_obj
def resolve(api: Api, /, saga_id: str, note: str, result: str | None, outcome: str | None, as_json: bool) -> None:
    """Go on as if the call that stalled a saga had succeeded: you have seen to it.

    A saga that this version cannot read is ended by it.
    """
    try:
        answer = {} if result is None else {"result": parse_object(result, "--result")}
    except BadInput as error:
        fail(USAGE, str(error))
    ended = {"outcome": outcome} if outcome else {}
    _command(api, saga_id, "resolve", as_json, json={"note": note, **answer, **ended})


@click.command()
@click.argument("saga_id")
@click.option("--note", required=True, help="Why, and by whom; it is kept in the saga's log.")
@json_option
@click.pass_obj
def abandon(api: Api, /, saga_id: str, note: str, as_json: bool) -> None:
    """End a choreographed saga that no service has heard of: none will ever act for it."""
    _command(api, saga_id, "abandon", as_json, json={"note": note})


def _command(api: Api, saga_id: str, command: str, as_json: bool, **arguments: Any) -> None:
    """Give an operator's command, and print the saga as it is then."""
    _, saga = api.call("POST", f"/sagas/{saga_id}/{command}", **arguments)
    show_json(saga) if as_json else click.echo(one_line(saga))
