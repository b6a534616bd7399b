"""`SagaStarter` starts sagas, whatever coordinates them, and waits for their ends. `POST /start` uses it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from saga.definition import MODES, SagaDefinition
from saga.errors import BadInput, KeyReused, Overloaded, WriteRefused
from saga.payload import digest
from saga.runtime.coordinator import Coordinator
from saga.runtime.driver_pool import DriverPool
from saga.runtime.waiting_callers import Caller, WaitingCallers, read_saga
from saga.saga_row import Stored, new_saga_row
from saga.unreadable import Unreadable


class SagaStarter:
    """Where sagas are started. Every method may raise LogUnavailable; where a start does, nothing was started."""

    def __init__(
        self,
        pool: DriverPool,
        waiting: WaitingCallers,
        coordinators: Mapping[str, Coordinator],
        new_id: Callable[[], str],
    ):
        self.deps = pool.deps
        self._pool = pool
        self._waiting = waiting
        self._coordinators = coordinators
        self._new_id = new_id

    def start(self, definition: SagaDefinition, input: Mapping[str, Any], key: str | None = None) -> str:
        """Make a new saga durable, see to it that it goes on, and return its id; with a known key, that saga's id.

        Raises BadInput where the input does not fit, or the log cannot store it; KeyReused where the key came before
        with another saga, mode or body; Overloaded where this process has too much to do.
        """
        saga, _ = self._start(definition, input, key, self._waiting.caller(0.0))
        return saga.id

    def run(
        self, definition: SagaDefinition, input: Mapping[str, Any], key: str | None = None, seconds: float = 0.0
    ) -> Stored:
        """Start a saga as `start` does, then wait for its end.

        Gives the saga once it has ended; or as it is after `seconds`, or where too many callers wait already, or where
        it stands in line for a service that is slow.
        """
        caller = self._waiting.caller(seconds)
        try:
            saga, is_new = self._start(definition, input, key, caller)
            if is_new and saga.ended:
                return saga
            return self._waiting.wait(saga.id, caller.until) if caller.waits() else self.read(saga.id)
        finally:
            caller.leave()

    def read(self, saga_id: str) -> Stored:
        """Return the saga as the log has it. Raises NoSuchSaga where there is none."""
        return read_saga(self.deps.log, saga_id)

    def _start(
        self, definition: SagaDefinition, input: Mapping[str, Any], key: str | None, caller: Caller
    ) -> tuple[Stored, bool]:
        """Return the new saga, or the one that is known by the key; and whether it is new."""
        try:
            definition.check_input(input)
        except BadInput:
            if key is not None and (known := self.deps.log.find_by_key(key)):  # it fitted once, or is another body
                return _same(known, definition, digest(input), key), False
            raise
        if not self._pool.takes_more:
            raise Overloaded(f"{self._pool.in_flight} sagas are in flight here: try again later")
        request_hash = digest(input)
        now = round(self.deps.clock(), 6)  # as the log keeps it
        row, line = new_saga_row(self._new_id(), definition, input, now, key, request_hash)
        try:
            saga = self._coordinators[definition.coordinator].start(row, line, caller)
        except WriteRefused as error:  # all else of a new saga is small, and ours
            raise BadInput(f"input: {error}. Nothing was started", "input") from error
        is_new = saga.id == row.id
        return (saga if is_new else _same(saga, definition, request_hash, key)), is_new


def _same(known: Stored, definition: SagaDefinition, request_hash: str, key: str | None) -> Stored:
    """Return the saga that is known by an idempotency key.

    Raises KeyReused where the key now comes with something else.

    What cannot be read of an unreadable saga counts as the same: it is never started a second time.
    """
    if isinstance(known, Unreadable):
        name, mode = known.name, (known.snapshot or {}).get("mode")
        digest_of_it = known.request_hash if re.fullmatch("[0-9a-f]{64}", known.request_hash or "") else request_hash
    else:
        name, mode, digest_of_it = known.definition.name, known.definition.mode, str(known.request_hash)
    asked = {
        "for another saga": name in (None, definition.name),
        "in another mode": mode == definition.mode or mode not in MODES,
        "with another body": digest_of_it == request_hash,
    }
    if other := [what for what, same in asked.items() if not same]:
        raise KeyReused(
            f"the Idempotency-Key {key!r} was used {' and '.join(other)}: it belongs to the saga {known.id}"
        )
    return known
