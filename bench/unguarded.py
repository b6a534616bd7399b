"""Service A without its barrier: the same kit, the same transaction, no barrier row. What the barrier costs."""

from __future__ import annotations

import os

from flask import Flask

from saga.barrier import AlsoWrite, Barrier, Key, StepAnswer, Transaction, Work
from saga.kits.flask import REQUEST_THREADS
from saga.process import server
from saga.storage.database import transaction
from service_a.app import service


def _act(self: Barrier, key: Key, action: Work, also_write: AlsoWrite) -> StepAnswer:
    with transaction(self.engine) as connection:
        return StepAnswer(200, action(Transaction(connection, key.saga_id)) or {})


def create_app() -> Flask:
    """Service A, with the barrier taken out."""
    Barrier.act = _act  # type: ignore[method-assign]
    return service.create_app()


if __name__ == "__main__":
    port = int(os.environ["PORT"])
    server.serve("bench.unguarded:create_app", host="127.0.0.1", port=port, variable="PORT", threads=REQUEST_THREADS)
