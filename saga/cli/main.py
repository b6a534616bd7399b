"""`saga`: what an operator needs at night, over the orchestrator's HTTP API."""

from __future__ import annotations

import json
import re
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import click
import requests

from saga.context import ITS_STARTER
from saga.definition import CHOREOGRAPHY, ORCHESTRATION
from saga.definition_file import load_definitions
from saga.errors import BadInput
from saga.machine import FAULT, OVERDUE, PARKED, RELEASED, REPLAYED, STARTED
from saga.payload import decode, parse_object, pretty
from saga.process.settings import load_settings
from saga.step_functions import asl
from saga.urls import masked

TIMEOUT = 330  # seconds: POST /start may wait for 300
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
LINES = 5000  # of a log, in a page
FAILED, USAGE, NOT_ENDED, AWAY = 1, 2, 3, 4


class Api:
    """The orchestrator; what it refuses ends the command with its own words."""

    def __init__(self, url: str):
        self._url = url.rstrip("/")

    def call(self, method: str, path: str, lost: str = "", **arguments: Any) -> tuple[int, Any]:
        """(status code, JSON); the exit codes are those of `saga --help`. `lost`: what to say where no answer comes."""
        try:
            answer = requests.request(method, self._url + path, timeout=TIMEOUT, **arguments)
            body = decode(answer.content.decode())
        except requests.ConnectionError:
            why = "is it up? (--url or ORCHESTRATOR_URL says where it is)"
            fail(AWAY, f"no orchestrator answers at {masked(self._url)}: {why}{f'; {lost}' if lost else ''}")
        except (requests.RequestException, ValueError, RecursionError) as error:
            fail(AWAY, f"{masked(self._url)} does not answer as an orchestrator does: {type(error).__name__}")
        if answer.status_code == 503:
            fail(
                AWAY, f"{body.get('error', 'it cannot work now')} (try again in {answer.headers.get('Retry-After')} s)"
            )
        if answer.status_code >= 400 and "saga_id" not in body:
            fail(USAGE, body.get("error", f"HTTP {answer.status_code}"))
        return answer.status_code, body


def fail(code: int, message: str) -> NoReturn:
    """End with a message on standard error."""
    click.echo(f"saga: {message}", err=True)
    raise SystemExit(code)


json_option = click.option("--json", "as_json", is_flag=True, help="Print the API's own JSON.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--url", help="Where the orchestrator is (default: ORCHESTRATOR_URL, or this machine).")
@click.pass_context
def main(context: click.Context, url: str | None) -> None:
    """Look at sagas and help those that are stuck.

    Exit codes: 0 done; 1 the saga was rolled back, or the audit found a violation; 2 the request is wrong, or
    the saga's state forbids it; 3 the saga has not ended yet, or a participant could not be asked; 4 the
    orchestrator does not answer.
    """
    try:
        context.obj = Api(url or load_settings().orchestrator_url)
    except BadInput as error:
        fail(USAGE, str(error))


@main.command("list")
@click.option("--status", help="RUNNING, COMPENSATING, STALLED, COMPLETED, COMPENSATED or UNREADABLE.")
@click.option("--saga", help="The saga's name in its YAML file.")
@click.option("-q", help="A saga's id, its beginning, or its idempotency key.")
@click.option("--limit", type=int, default=20, show_default=True)
@click.option("--before", help="The last id of the page before.")
@json_option
@click.pass_obj
def list_sagas(api: Api, /, as_json: bool, **flags: Any) -> None:
    """The latest sagas, newest first."""
    _, page = api.call("GET", "/sagas", params={name: value for name, value in flags.items() if value})
    if as_json:
        return show_json(page)
    for saga in page["sagas"]:
        click.echo(one_line(saga))
    if not page["sagas"]:
        click.echo("no such saga", err=True)
    return None


@main.command()
@click.argument("saga_id")
@json_option
@click.pass_obj
def show(api: Api, /, saga_id: str, as_json: bool) -> None:
    """One saga: its steps, its log, and what to do about it."""
    _, saga = api.call("GET", f"/sagas/{saga_id}")
    lines = log_of(api, saga_id)
    if as_json:
        return show_json({**saga, "log": lines})
    handed_over = bool(lines) and lines[-1]["event"] == RELEASED
    click.echo(one_line(saga))
    for step in saga["steps"]:
        attempts = f"attempts {step['attempts']}"
        if step["status"] == "RUNNING" and step["attempts"] and not handed_over:
            attempts = f"attempt {step['attempts']} under way"
        facts = f"{step['status']:<13} effect {step['effect']:<8} {attempts}"
        click.echo(f"  {step['name']:<10} {facts}  {step['error'] or ''}".rstrip())
    for line in lines:
        detail = " ".join(f"{name}={value}" for name, value in (line["detail"] or {}).items())
        number = f"#{line['attempt']}" if line["attempt"] else ""
        told = [
            line["at"] or "?",
            f"{line['event']:<20}",
            line["step"] or "",
            number,
            line["status_code"] or "",
            detail,
        ]
        click.echo("  " + " ".join(str(fact) for fact in told if fact != ""))
    if saga["mode"] == CHOREOGRAPHY and saga["status"] != "UNREADABLE":
        if saga["overdue"]:
            click.echo("Its deadline has passed. Nobody is in charge of it: look at the service that it waits for.")
        if saga["status"] == "RUNNING" and not heard_in(lines):
            click.echo(f'If no service has heard of it, `saga abandon {saga_id} --note "…"` ends it.')
        if parked_in(lines):
            click.echo(f"An event of it is parked. `saga resume {saga_id}` lets it be published again.")
    elif saga["status"] == "UNREADABLE":
        click.echo(f"This version leaves it alone. `saga export-row {saga_id}` prints what the database has of it;")
        if not saga["ended_at"]:
            click.echo(
                f'`saga resolve {saga_id} --note "…" --outcome completed` (or compensated) ends it, as you left it.'
            )
    elif saga["status"] == "STALLED":
        click.echo(f"It is tried again at {saga['due_at']}. `saga resume {saga_id}` tries now;")
        click.echo(f'`saga resolve {saga_id} --note "…"` says that you have done by hand what the call should do.')
    return None


@main.command()
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
    key = key or f"saga-start-{uuid.uuid4()}"  # of a start whose answer is lost, it finds the saga
    lost = f"the saga may have been started: `saga list -q {key}` tells, once it is up"
    headers = {"Idempotency-Key": key}
    code, answer = api.call("POST", "/start", lost, params=params, data=body.encode(), headers=headers)
    show_json(answer) if as_json else click.echo(one_line(answer))
    raise SystemExit({200: 0, 202: NOT_ENDED}.get(code, FAILED))


@main.command()
@click.argument("saga_id")
@json_option
@click.pass_obj
def cancel(api: Api, /, saga_id: str, as_json: bool) -> None:
    """Roll a saga back."""
    _told(api, f"/sagas/{saga_id}/cancel", as_json)


@main.command()
@click.argument("saga_id")
@json_option
@click.pass_obj
def resume(api: Api, /, saga_id: str, as_json: bool) -> None:
    """Make the call that stalled a saga again, now; of a choreographed one: replay its parked events."""
    _told(api, f"/sagas/{saga_id}/resume", as_json)


@main.command("dead-letters")
@click.option("--limit", type=int, default=100, show_default=True)
@json_option
@click.pass_obj
def dead_letters(api: Api, /, limit: int, as_json: bool) -> None:
    """The events of choreographed sagas that could not be handled, newest first."""
    _, found = api.call("GET", "/dead-letters", params={"limit": limit})
    if as_json:
        return show_json(found)
    for letter in found["dead_letters"]:
        facts = [letter["at"], letter["service"], letter["subject"], letter["saga_id"] or "-", letter["message"]]
        click.echo("  ".join([str(letter["letter"]), *map(str, facts)]))
    if not found["dead_letters"]:
        click.echo("no dead letters", err=True)
    return None


@main.command()
@click.argument("letter", type=int)
@json_option
@click.pass_obj
def replay(api: Api, /, letter: int, as_json: bool) -> None:
    """Publish a dead letter again: `saga dead-letters` tells its number."""
    _, told = api.call("POST", f"/dead-letters/{letter}/replay")
    show_json(told) if as_json else click.echo(f"{told['subject']} is published again")


@main.command()
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
        given = {} if result is None else {"result": parse_object(result, "--result")}
    except BadInput as error:
        fail(USAGE, str(error))
    said = {"note": note, **given, **({"outcome": outcome} if outcome else {})}
    _told(api, f"/sagas/{saga_id}/resolve", as_json, json=said)


@main.command()
@click.argument("saga_id")
@click.option("--note", required=True, help="Why, and by whom; it is kept in the saga's log.")
@json_option
@click.pass_obj
def abandon(api: Api, /, saga_id: str, note: str, as_json: bool) -> None:
    """End a choreographed saga that no service has heard of: none will ever act for it."""
    _told(api, f"/sagas/{saga_id}/abandon", as_json, json={"note": note})


@main.command("export-row")
@click.argument("saga_id")
@click.pass_obj
def export_row(api: Api, /, saga_id: str) -> None:
    """A saga's row and its lines as the database has them (JSON): also of one that is UNREADABLE."""
    show_json(api.call("GET", f"/sagas/{saga_id}/export")[1])


@main.command()
@click.option("--since", help="Only sagas that ended since this time, like 2026-01-31T12:00:00Z.")
@click.option("--limit", type=int, default=500, show_default=True, help="The latest so many.")
@json_option
@click.pass_obj
def audit(api: Api, /, as_json: bool, **flags: Any) -> None:
    """Ask the services themselves: is every ended saga all or nothing?"""
    _, found = api.call("GET", "/audit", params={name: value for name, value in flags.items() if value})
    if as_json:
        show_json(found)
    else:
        for wrong in found["violations"]:
            told = f"expected {wrong['expected']}, found {wrong['found']}"
            click.echo(f"VIOLATION {wrong['saga_id']} {wrong['status']} step {wrong['step']}: {told}")
        for silent in found["unreachable"]:
            click.echo(f"NOT ASKED {silent['saga_id']} step {silent['step']}: {silent['url']}")
        unreadable = f", {found['unreadable']} unreadable" if found.get("unreadable") else ""
        click.echo(f"{found['checked']} checked, {len(found['violations'])} violations{unreadable}")
    raise SystemExit(FAILED if found["violations"] else NOT_ENDED if found["unreachable"] else 0)


@main.command()
@click.option("--older-than", "age", required=True, help="Forget what ended so long ago: 90s, 15m, 12h, 30d.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_obj
def prune(api: Api, /, age: str, yes: bool, as_json: bool) -> None:
    """Forget sagas that ended long ago, in batches, so that it blocks nobody. There is no way back."""
    match = re.fullmatch(r"(\d{1,6})([smhd])", age)
    if not match:
        fail(USAGE, f"--older-than must be like 90s, 15m, 12h or 30d, not {age!r}")
    seconds = int(match[1]) * UNITS[match[2]]
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


@main.command()
@click.argument("saga")
@click.option("--asl", "language", flag_value="asl", required=True, help="As Amazon States Language (JSON).")
@click.option("--sagas-dir", type=click.Path(path_type=Path), help="Where its YAML file is (default: SAGAS_DIR).")
@click.option("--connection-arn", default=asl.CONNECTION_ARN, show_default=True, help="The EventBridge Connection.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="A file.")
def export(saga: str, language: str, sagas_dir: Path | None, connection_arn: str, output: Path | None) -> None:
    """A saga in another engine's language, on standard output. Asks no orchestrator.

    --asl: a state machine for AWS Step Functions. ${VAR} in the YAML is expanded from the environment:
    the services' addresses must be https:// ones that AWS can reach.
    """
    try:
        settings = load_settings()
        known = load_definitions(sagas_dir or settings.sagas_dir, settings.environ)
        if saga not in known:
            fail(USAGE, f"there is no saga {saga!r}; the sagas are {', '.join(known)}")
        machine = asl.state_machine(known[saga], connection_arn)
    except BadInput as error:
        fail(USAGE, str(error))
    if local := asl.local_addresses(known[saga]):
        needed = "set SERVICE_A_URL and its like before you deploy this"
        shown = masked(", ".join(local))
        click.echo(
            f"saga: warning: Step Functions calls https:// addresses only, and not {shown}: {needed}",
            err=True,
        )
    text = json.dumps(machine, indent=2)
    try:
        output.write_text(text + "\n", encoding="utf-8") if output else click.echo(text)
    except OSError as error:
        fail(USAGE, f"{output} cannot be written: {error.strerror}")


def _told(api: Api, path: str, as_json: bool, **arguments: Any) -> None:
    _, saga = api.call("POST", path, **arguments)
    show_json(saga) if as_json else click.echo(one_line(saga))


def log_of(api: Api, saga_id: str) -> list[dict[str, Any]]:
    """All lines of a saga's log, asked for a page at a time."""
    lines: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        _, page = api.call("GET", f"/sagas/{saga_id}/log", params={"after": after, "limit": LINES})
        lines += page["lines"]
        after = page.get("next")
    return lines


def heard_in(lines: list[dict[str, Any]]) -> bool:
    """Whether a service has heard of a choreographed saga with this log, or may have: as `abandon` is permitted."""

    def by_its_starter(line: dict[str, Any]) -> bool:
        parked_there = line["event"] == PARKED and (line["detail"] or {}).get("service") == ITS_STARTER
        return parked_there or line["event"] in (STARTED, OVERDUE, FAULT)

    return not all(map(by_its_starter, lines))


def parked_in(lines: list[dict[str, Any]]) -> bool:
    """Whether an event of a saga with this log is parked."""
    events = [line["event"] for line in lines]
    return events.count(PARKED) > events.count(REPLAYED)


def one_line(saga: dict[str, Any]) -> str:
    """A saga on one line."""
    error = saga["error"]
    place = f"{error['step']} " if error and error["step"] else ""
    why = f"  {place}{error['kind']}: {error['message']}" if error else ""
    if saga["status"] == "STALLED":
        why = f"  {stuck_call(saga)}{'; the cause:' if why else ''}{why.replace('  ', ' ')}"
    attention = "  NEEDS ATTENTION" if saga["needs_attention"] else ""
    steps = " ".join(f"{step['name']}:{step['status'].lower()}" for step in saga["steps"])
    mode = f" ({saga['mode']})" if saga["mode"] not in (ORCHESTRATION, None) else ""
    return f"{saga['saga_id']}  {saga['status']:<12} {saga['saga'] or '?'}{mode}  {steps}{attention}{why}"


def stuck_call(saga: dict[str, Any]) -> str:
    """Which call a stalled saga makes again, why, and when.

    It is a compensation where one is under way. Else the saga goes forward, and it is that of the first step that is
    not done: all before it are.
    """
    undone = [step for step in saga["steps"] if step["status"] == "COMPENSATING"]
    stuck = [*undone, *(step for step in saga["steps"] if step["status"] != "DONE")]
    again = f"again at {saga['due_at']}" if saga["due_at"] else "it is tried again by itself"
    if not stuck:
        return again
    call = f"the compensation of {stuck[0]['name']}" if undone else stuck[0]["name"]
    return f"{call} does not succeed: {stuck[0]['error'] or 'no answer'}; {again}"


def show_json(value: Any) -> None:
    """Print JSON as people read it."""
    click.echo(pretty(value))


if __name__ == "__main__":
    main()
