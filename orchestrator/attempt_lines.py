"""One attempt of a saga's log: its line, what was sent and answered, or why that was not kept."""

from __future__ import annotations

from typing import Any

from saga.definition import CHOREOGRAPHY, TEMPORAL
from saga.errors import NoSuchLine
from saga.machine import ATTEMPT, Line
from saga.runtime.kept_exchanges import ALL, ERRORS, KeptExchanges
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.unreadable import UnreadableLine
from saga.views.lines import ShownLine, detail_of
from saga.views.representation import represent_lines


def show_exchange(log: SagaLog, exchanges: KeptExchanges, row: SagaRow, seq: int) -> dict[str, Any]:
    """Return what the API says of the attempt with the line `seq`; `absent` says why the others are null.

    Raises NoSuchLine where there is none, or it is no attempt.
    """
    line = line_at(log, row, seq)
    if line.event != ATTEMPT:
        raise NoSuchLine(f"line {seq} of the saga {row.id} is no attempt, but {line.event}")
    shown = represent_lines([line], row)[0]
    request, response = exchanges.find(row.id, [seq]).get(seq, (None, None))
    absent = None if request else why_not_kept(shown, row, exchanges)
    return {"line": shown, "request": request, "response": response, "absent": absent}


def line_at(log: SagaLog, row: SagaRow, seq: int) -> Line:
    """Return the line with this number. Raises NoSuchLine."""
    found = log.lines_at(row.id, [seq]) if seq <= row.context.lines else []
    if not found or isinstance(found[0], UnreadableLine):
        raise NoSuchLine(f"the log of the saga {row.id} has no line {seq} that can be read")
    return found[0]


# Why this process makes no call of a saga, by the saga's coordinator.
_CALLED_ELSEWHERE = {
    CHOREOGRAPHY: "nobody calls a service of a choreographed saga; it hears an event, which the line names",
    TEMPORAL: "the calls of this saga are made by a worker of Temporal",
}


def why_not_kept(line: ShownLine, row: SagaRow, exchanges: KeptExchanges) -> str:
    """Return why the request and the response of an attempt are not there, in words."""
    if elsewhere := _CALLED_ELSEWHERE.get(row.definition.coordinator):
        return f"not kept: {elsewhere}"
    if exchanges.which not in (ALL, ERRORS):
        return f"not kept: KEEP_BODIES={exchanges.which}"
    if not exchanges.table_is_there():
        return "not kept: the saga log's database has no table for it"
    if exchanges.which == ERRORS and detail_of(line).get("verdict") == "done":
        return "not kept: it was done, and KEEP_BODIES=errors keeps only what was not"
    return "not kept when this attempt was made"
