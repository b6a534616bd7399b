"""Reads what only its row and its log tell of the call that a saga makes now, for all sagas of a list at once."""

from __future__ import annotations

from collections.abc import Sequence

from saga.machine import STALLED
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow, Stored
from saga.storage import filter_sql
from saga.views.now import CallNow, now_line, now_of
from saga.views.representation import represent

LAST_LINES = 3  # of a stalled saga: among them is the last attempt of the call that it is stalled at


def calls_now(log: SagaLog, sagas: Sequence[Stored]) -> dict[str, CallNow]:
    """Return what is known of the calls of these sagas, by their ids. Raises LogUnavailable."""
    rows = [saga for saga in sagas if isinstance(saga, SagaRow) and not saga.ended]
    stalled = [row for row in rows if row.state in STALLED]
    places = [(row.id, row.context.lines - back) for row in stalled for back in range(LAST_LINES)]
    found = log.database.select(filter_sql.CODES_AT, {"places": places}) if places else ()
    codes = {each["saga_id"]: each["status_code"] for each in found}
    return {
        row.id: CallNow(row.rounds, row.context.reached_at, codes.get(row.id), bool(row.context.parked)) for row in rows
    }


def lines_now(log: SagaLog, sagas: Sequence[Stored], at: float) -> dict[str, str]:
    """Return what these sagas do at the time `at`, on one line each, by their ids. Raises LogUnavailable."""
    calls = calls_now(log, sagas)
    return {saga.id: now_line(now_of(represent(saga), calls.get(saga.id)), at) for saga in sagas}
