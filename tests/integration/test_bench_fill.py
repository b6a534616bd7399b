from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench import fill
from saga.process.settings import load_settings
from saga.runtime.due_sagas import DueSagas
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.storage import log_tables
from saga.storage.database import connect, create_tables


def test_the_unfinished_sagas_that_the_bench_makes_can_be_read_and_driven(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/log.db")
    create_tables(engine, log_tables.metadata)
    log = SagaLog(engine)
    stage: Any = SimpleNamespace(settings=lambda: load_settings({}))
    fill.unfinished(log, stage, 2)
    found = [log.read(saga_id) for saga_id, _ in DueSagas(log).due(time.time(), 9)]
    assert [type(saga) for saga in found] == [SagaRow, SagaRow]
