"""Service A without its barrier: the same kit, the same transaction, no barrier row. What the barrier costs."""

from __future__ import annotations

import os
from collections.abc import Callable

from flask import Flask
from sqlalchemy import Engine

from saga import barrier
from saga.barrier import Answer, Key, News, Transaction, Work
from saga.kits.flask import THREADS
from saga.process import server
from saga.storage.database import transaction
from service_a.app import service


def _act(engine: Engine, key: Key, action: Work, before_commit: Callable[[], None], news: News) -> Answer:
    with transaction(engine) as connection:
        return Answer(200, action(Transaction(connection, key.saga_id)) or {})


def create_app() -> Flask:
    """Service A, with the barrier taken out."""
    barrier.act = _act
    return service.create_app()


if __name__ == "__main__":
    port = int(os.environ["PORT"])
    server.serve("bench.unguarded:create_app", host="127.0.0.1", port=port, variable="PORT", threads=THREADS)
