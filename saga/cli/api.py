"""`Api` calls the orchestrator's HTTP API for the commands; the exit codes that they end with are here as well."""

from __future__ import annotations

from typing import Any, NoReturn

import click
import requests

from saga.payload import decode
from saga.urls import masked

ANSWER_SECONDS = 330  # how long an answer may take: POST /start may wait for 300
FAILED, USAGE, NOT_ENDED, AWAY = 1, 2, 3, 4  # exit codes: `saga --help` says what they mean


def fail(code: int, message: str) -> NoReturn:
    """End the command with this exit code and a message on standard error."""
    click.echo(f"saga: {message}", err=True)
    raise SystemExit(code)


class Api:
    """The orchestrator at `url`."""

    def __init__(self, url: str):
        self._url = url.rstrip("/")

    def call(self, method: str, path: str, lost: str = "", **arguments: Any) -> tuple[int, Any]:
        """Make a request and return its status code and its JSON; `arguments` are those of requests.request.

        Ends the command with AWAY where no orchestrator answers (`lost` is added to the message), and with USAGE and
        the orchestrator's own words where it refuses the request.
        """
        try:
            answer = requests.request(method, self._url + path, timeout=ANSWER_SECONDS, **arguments)
            body = decode(answer.content.decode())
        except requests.ConnectionError:
            why = "is it up? (--url or ORCHESTRATOR_URL says where it is)"
            fail(AWAY, f"no orchestrator answers at {masked(self._url)}: {why}{f'; {lost}' if lost else ''}")
        except (requests.RequestException, ValueError, RecursionError) as error:
            fail(AWAY, f"{masked(self._url)} does not answer as an orchestrator does: {type(error).__name__}")
        if answer.status_code == 503:
            retry_after = answer.headers.get("Retry-After")
            fail(AWAY, f"{body.get('error', 'it cannot work now')} (try again in {retry_after} s)")
        if answer.status_code >= 400 and "saga_id" not in body:
            fail(USAGE, body.get("error", f"HTTP {answer.status_code}"))
        return answer.status_code, body
