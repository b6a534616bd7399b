"""The command `saga` begins here; each group of its commands has a module of its own."""

from __future__ import annotations

import click

from saga.cli.api import USAGE, Api, fail
from saga.cli.dead_letters import dead_letters, replay
from saga.cli.export import export
from saga.cli.look import list_sagas, show
from saga.cli.maintenance import audit, export_row, prune
from saga.cli.operate import abandon, cancel, resolve, resume, start
from saga.errors import BadInput
from saga.process.settings import load_settings


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


for command in (
    *(list_sagas, show),
    *(start, cancel, resume, resolve, abandon),
    *(dead_letters, replay),
    *(audit, prune, export_row),
    export,
):
    main.add_command(command)
