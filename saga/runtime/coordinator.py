"""A coordinator runs sagas of one kind: on the built-in engine, on Temporal, or, in choreography, by their services.

A `SagaDefinition` names its coordinator; `orchestrator/bootstrap.py` makes them all, in one dict by that name. So
nothing else need ask what drives a saga.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from saga.definition import SagaDefinition
from saga.driver import DriverDeps
from saga.machine import Line
from saga.saga_row import SagaRow, Stored
from saga.storage.log_writes import Also


class WaitingCaller(Protocol):
    """Whoever starts a saga and may wait for its end."""

    seconds: float  # as long as this
    until: float  # or by the monotonic clock

    def waits(self) -> bool:
        """Return whether the caller waits. It does not where too many do already."""


class Coordinator(Protocol):
    """What each kind of coordinator can do. Every method may raise LogUnavailable.

    The commands raise Conflict where the saga's state, or its kind, does not permit them; the row that they are
    given is the saga as it was just read.
    """

    poll_interval: float  # seconds between two looks at a saga whose end somebody waits for

    def check_start(self, definition: SagaDefinition, key: str | None = None) -> None:
        """Raise BadInput where such a saga certainly could not go on, and so must not be started.

        `key`: the start's idempotency key; a saga that was started with it before is no new one.
        """

    def start(self, row: SagaRow, line: Line, caller: WaitingCaller) -> Stored:
        """Make a new saga durable, with its first line, and see to it that it goes on.

        Gives it as far as it has come; or, where its idempotency key is known, the saga that has it. Raises
        WriteRefused where the log does not take the input; then nothing was started.
        """

    def permitted_commands(self, row: SagaRow) -> set[str]:
        """Return the commands that the saga's state permits an operator now."""

    def cancel(self, row: SagaRow) -> None:
        """Roll the saga back; where its pivot is open, only once the outcome is known to be none."""

    def resume(self, row: SagaRow) -> None:
        """Go on with the saga now, where it rests."""

    def resolve(self, row: SagaRow, note: str, result: Mapping[str, Any] | None = None) -> None:
        """Go on as if the call that stalled the saga had succeeded, with this result; `note` says what was done."""

    def abandon(self, row: SagaRow, note: str) -> None:
        """End a saga that nobody has acted for, so that nobody ever will; `note` says why."""

    def when_due(self, row: SagaRow) -> bool:
        """Do what is to be done with a saga that is due; False where recovery is to claim it."""


def begin(deps: DriverDeps, row: SagaRow, line: Line, also: Also = ()) -> Stored | None:
    """Write a new saga and tell whoever observes; where its idempotency key is known, give the saga that has it."""
    known = deps.log.begin(row, [line], also)
    if known is None:
        deps.observe(row, line)
    return known
