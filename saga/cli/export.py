"""`saga export` prints a saga in another engine's language. It asks no orchestrator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from saga.cli.api import USAGE, fail
from saga.definition import SagaDefinition
from saga.definition_file import load_definitions
from saga.errors import BadInput
from saga.process.settings import load_settings
from saga.step_functions import asl
from saga.urls import masked


@click.command()
@click.argument("saga")
@click.option("--asl", "language", flag_value="asl", required=True, help="As Amazon States Language (JSON).")
@click.option("--sagas-dir", type=click.Path(path_type=Path), help="Where its YAML file is (default: SAGAS_DIR).")
@click.option("--connection-arn", default=asl.CONNECTION_ARN, show_default=True, help="The EventBridge Connection.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="A file.")
def export(saga: str, language: str, sagas_dir: Path | None, connection_arn: str, output: Path | None) -> None:
    """Print a saga in another engine's language. It asks no orchestrator.

    --asl: a state machine for AWS Step Functions. ${VAR} in the YAML is expanded from the environment:
    the services' addresses must be https:// ones that AWS can reach.
    """
    definition, machine = _state_machine(saga, sagas_dir, connection_arn)
    if local := asl.local_addresses(definition):
        needed = "set SERVICE_A_URL and its like before you deploy this"
        addresses = masked(", ".join(local))
        message = f"saga: warning: Step Functions calls https:// addresses only, and not {addresses}: {needed}"
        click.echo(message, err=True)
    text = json.dumps(machine, indent=2)
    try:
        output.write_text(text + "\n", encoding="utf-8") if output else click.echo(text)
    except OSError as error:
        fail(USAGE, f"{output} cannot be written: {error.strerror}")


def _state_machine(saga: str, sagas_dir: Path | None, connection_arn: str) -> tuple[SagaDefinition, dict[str, Any]]:
    """Return the saga of this name and its state machine.

    Ends the command with USAGE where there is no such saga, or it cannot be expressed.
    """
    try:
        settings = load_settings()
        known = load_definitions(sagas_dir or settings.sagas_dir, settings.environ)
        if saga not in known:
            fail(USAGE, f"there is no saga {saga!r}; the sagas are {', '.join(known)}")
        return known[saga], asl.state_machine(known[saga], connection_arn)
    except BadInput as error:
        fail(USAGE, str(error))
