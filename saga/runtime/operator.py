"""`Operator` has an operator's commands: cancel, resume, resolve, abandon. Each is durable before it is answered.

Each command reads the saga and passes it on to its coordinator. A saga that cannot be read has none: an operator can
only end it, with `resolve`, in the state in which it was left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saga.driver import DriverDeps
from saga.errors import BadInput, Conflict, LeaseLost
from saga.machine import ENDED, STALLED, State
from saga.payload import compact
from saga.runtime.coordinator import Coordinator
from saga.runtime.end_unreadable import end_unreadable
from saga.runtime.permitted_commands import BY_OPERATOR, REFUSALS, readable
from saga.runtime.waiting_callers import read_saga
from saga.saga_row import SagaRow
from saga.unreadable import Unreadable

NOTE_CHARACTERS_AT_MOST = 1000  # characters
RESULT_BYTES_AT_MOST = 1 << 20  # bytes, as of a participant's answer


class Operator:
    """The commands. Each raises NoSuchSaga, SagaUnreadable, LogUnavailable, or Conflict where it is not permitted."""

    def __init__(self, deps: DriverDeps, coordinators: Mapping[str, Coordinator]):
        self._deps = deps
        self._coordinators = coordinators

    def permitted_commands(self, row: SagaRow) -> set[str]:
        """Return the commands that the saga's state permits now."""
        return self._of(row).permitted_commands(row)

    def cancel(self, saga_id: str) -> None:
        """Roll the saga back. While the pivot's outcome is open that outcome decides, and the wish is only logged."""
        row = self._read(saga_id, "cancel")
        self._of(row).cancel(row)

    def resume(self, saga_id: str) -> None:
        """Make the call that stalled the saga again, now; of a choreographed saga, replay its parked events."""
        row = self._read(saga_id, "resume")
        self._of(row).resume(row)

    def resolve(
        self, saga_id: str, note: str, result: Mapping[str, Any] | None = None, outcome: str | None = None
    ) -> None:
        """Go on as if the call that stalled the saga had succeeded; `note` says what was done by hand, and by whom.

        `result` is what the action would have answered, for later steps. A saga that cannot be read is ended, and
        `outcome` ("completed", "compensated") says how. Raises BadInput where one of these does not fit the saga.
        """
        check_note(note, "what was done by hand, and by whom")
        if result is not None and len(compact(result).encode()) > RESULT_BYTES_AT_MOST:
            raise BadInput(f"result must not be larger than {RESULT_BYTES_AT_MOST} bytes", "result")
        saga = read_saga(self._deps.log, saga_id)
        if isinstance(saga, Unreadable):
            self._end(saga, note, outcome)
            return
        if outcome is not None and saga.state in STALLED:
            raise BadInput("outcome is only for a saga that cannot be read: this one knows its own", "outcome")
        self._of(saga).resolve(saga, note, result)

    def abandon(self, saga_id: str, note: str) -> None:
        """End a choreographed saga that no service has heard of, so that none ever acts for it; `note` says why."""
        row = self._read(saga_id, "abandon")
        check_note(note, "why it is abandoned, and by whom")
        self._of(row).abandon(row, note)

    def _of(self, row: SagaRow) -> Coordinator:
        return self._coordinators[row.definition.coordinator]

    def _read(self, saga_id: str, command: str) -> SagaRow:
        return readable(read_saga(self._deps.log, saga_id), command)

    def _end(self, saga: Unreadable, note: str, outcome: str | None) -> None:
        """End a saga that cannot be read."""
        if saga.ended:
            raise Conflict(f"{REFUSALS['resolve']}: it has ended")
        if outcome not in ENDED:
            states = " or ".join(sorted(ENDED))
            raise BadInput(
                f"outcome is required of a saga that cannot be read: {states}, as you have left it", "outcome"
            )
        state, now = State(outcome), round(self._deps.clock(), 6)
        try:
            end_unreadable(self._deps.log, saga.id, state, now, {**BY_OPERATOR, "note": note, "state": state})
        except LeaseLost:
            raise Conflict(f"{REFUSALS['resolve']}: it has ended") from None


def check_note(note: str, what: str) -> None:
    """Raise BadInput unless an operator's note says something; `what` it should say."""
    if not note.strip():
        raise BadInput(f"note is required: {what}", "note")
    if len(note) > NOTE_CHARACTERS_AT_MOST:
        raise BadInput(f"note must not be longer than {NOTE_CHARACTERS_AT_MOST} characters", "note")
