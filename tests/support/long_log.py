"""A saga whose compensation has failed in thousands of rounds, written into a saga log without running it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from saga.machine import Event
from saga.saga_log import SagaLog
from saga.storage.database import connect
from tests.support.builders import a_saga_id
from tests.support.log_writer import LogWriter

LINES_OF_A_ROUND = 5
AT_ONCE = 1000  # lines in a transaction


def write_long_log(url: str, rounds: int, services: Mapping[str, str], number: int = 1) -> str:
    """Write a saga that was undone by hand after so many rounds, and return its id; `services` are A's, B's and C's."""
    writer = LogWriter("A B C!")
    steps = tuple(replace(step, action=services[step.name] + "/invoke") for step in writer.row.definition.steps)
    writer.row = replace(writer.row, id=a_saga_id(number), definition=replace(writer.row.definition, steps=steps))
    begun = writer.row
    writer.call(200)
    writer.call(409)
    for _ in range(rounds):
        writer.call(500, times=3, seconds=0.2)
        writer.event(Event.RESUMED, seconds=4.0)
    writer.call(500, times=3)
    writer.event(Event.RESOLVED, by="operator", note="removed by hand")
    log = SagaLog(connect(url))
    log.begin(begun, writer.lines[:1])
    for first in range(1, len(writer.lines), AT_ONCE):
        log.advance(begun.id, 1, writer.row.present, writer.lines[first : first + AT_ONCE])
    log.database.engine.dispose()
    return begun.id
