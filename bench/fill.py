"""Functions that fill a saga log quickly: with ended sagas by doubling, with unfinished ones row by row."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import insert, text

from bench.load import INPUT, Job
from bench.stage import Stage
from saga.definition_file import load_definitions
from saga.saga_log import SagaLog
from saga.saga_row import new_saga_row
from saga.storage import log_tables

PREFIX = "00000000-0000-7000-8000-"  # ids older than any real one, numbered in their last twelve digits

NUMBERED = {  # the id `:have` further on, and a text of it
    "sqlite": "'{prefix}' || printf('%012d', CAST(substr({id}, 25) AS INTEGER) + :have)",
    "mysql": "CONCAT('{prefix}', LPAD(CAST(RIGHT({id}, 12) AS UNSIGNED) + :have, 12, '0'))",
}


def ended(log: SagaLog, stage: Stage, number: int, progress: Callable[[int], None]) -> None:
    """Write so many copies of one completed saga, with its lines."""
    engine = log.database.engine
    stage.load.run(Job("start", [stage.stack.url_of("orchestrator2")], 0.05))
    with engine.begin() as connection:
        first = connection.execute(text("SELECT MIN(id) FROM sagas")).scalar_one()
        _copy(connection, 0, f"WHERE id = '{first}'", f"WHERE saga_id = '{first}'", "'000000000000'")
    have = 1
    while have < number:
        step = min(have, number - have)
        bound = f"BETWEEN '{PREFIX}{0:012d}' AND '{PREFIX}{step - 1:012d}'"
        with engine.begin() as connection:
            _copy(connection, have, f"WHERE id {bound}", f"WHERE saga_id {bound}")
        have += step
        progress(have)


def _copy(connection: Any, have: int, of_sagas: str, of_lines: str, number: str = "") -> None:
    numbered = NUMBERED[connection.dialect.name]
    new = {"id": f"'{PREFIX}000000000000'", "saga_id": f"'{PREFIX}000000000000'"}
    if not number:
        new = {column: numbered.format(prefix=PREFIX, id=column) for column in ("id", "saga_id")}
    fresh = {"idempotency_key": "NULL", **new}
    for table, where, key in ((log_tables.sagas, of_sagas, "id"), (log_tables.saga_log, of_lines, "saga_id")):
        columns = [column.name for column in table.c if column.name != "id" or key == "id"]
        values = ", ".join(fresh[name] if name in (key, "idempotency_key") else name for name in columns)
        statement = f"INSERT INTO {table.name} ({', '.join(columns)}) SELECT {values} FROM {table.name} {where}"
        connection.execute(text(statement), {"have": have} if ":have" in statement else {})


def unfinished(log: SagaLog, stage: Stage, number: int) -> None:
    """Write so many sagas whose process died before their first call, long enough ago."""
    definition = load_definitions(stage.settings().sagas_dir, stage.settings().environ)["signup"]
    now = time.time()
    new, line = new_saga_row("", definition, INPUT, now)
    common = {
        "name": definition.name, "definition": definition.snapshot, "input": INPUT, "state": new.state,
        "cursor": new.cursor, "context": new.context.as_json(), "epoch": new.epoch, "owner": "gone:1",
        "due_at": now - 1, "rounds": new.rounds, "started_at": now,
    }  # fmt: skip
    ids = [f"11111111-0000-7000-8000-{index:012d}" for index in range(number)]
    for some in (ids[start : start + 1000] for start in range(0, number, 1000)):
        with log.database.engine.begin() as connection:
            connection.execute(insert(log_tables.sagas), [{**common, "id": saga_id} for saga_id in some])
            lines = [{"saga_id": saga_id, "seq": line.seq, "at": now, "event": line.event} for saga_id in some]
            connection.execute(insert(log_tables.saga_log), lines)
