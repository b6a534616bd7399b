"""This module counts the sagas in each state, and those that wait for somebody, for the metrics and the dashboard."""

from __future__ import annotations

from dataclasses import dataclass

from saga.machine import State
from saga.saga_log import SagaLog
from saga.storage import search_sql as sql
from saga.unreadable import UNREADABLE
from saga.views.representation import NEEDS_ATTENTION_AFTER_ROUNDS

SET_ASIDE_ASKED_FOR = 1000  # how many sagas that were set aside are asked for by their ids


@dataclass(frozen=True)
class Backlog:
    """How many of the sagas that have not ended wait for somebody."""

    stalled: int
    needs_attention: int
    overdue: int  # choreographed, and past their deadline
    oldest_due: float  # seconds since the oldest saga that is due became so; 0 where none is


def backlog(log: SagaLog, now: float, most: int) -> Backlog:
    """Return what waits at the time `now`, counted up to `most`. Raises LogUnavailable."""
    values = {"attention": NEEDS_ATTENTION_AFTER_ROUNDS, "most": most}
    stalled, moving = (log.database.select(query, values)[0] for query in (sql.COUNT_STALLED, sql.COUNT_MOVING))
    oldest = log.database.select(sql.OLDEST_DUE, {"now": now})[0]["due_at"]
    return Backlog(
        stalled=int(stalled["number"]),
        needs_attention=int(stalled["attention"]) + int(moving["attention"]),
        overdue=int(stalled["overdue"]) + int(moving["overdue"]),
        oldest_due=max(0.0, now - oldest) if isinstance(oldest, float) else 0.0,
    )


def attention_ids(log: SagaLog, most: int, before: str = "") -> list[str]:
    """Return the ids of sagas that need attention, newest first, at most `most`. Raises LogUnavailable.

    `before`: only lower ids than this one.
    """
    values = {"attention": NEEDS_ATTENTION_AFTER_ROUNDS, "aside": log.aside.ids(SET_ASIDE_ASKED_FOR)}
    rows = log.database.select(sql.ATTENTION_IDS, {**values, "most": most, "upper": before or "~"})
    return sorted({row["id"] for row in rows if row["id"] < (before or "~")}, reverse=True)[:most]


def count_states(log: SagaLog, most: int) -> dict[str, int]:
    """Return how many sagas are in each state, counted up to `most`. Raises LogUnavailable.

    Sagas that are known to be unreadable are counted under UNREADABLE and in no state.
    """
    counted = {row["state"]: row["number"] for row in log.database.select(sql.COUNT_STATES, {"most": most})}
    unknown = sum(row["number"] for row in log.database.select(sql.COUNT_UNKNOWN_STATES, {"most": most}))
    numbers: dict[str, int] = {state: counted[state] for state in State}
    for state in log.aside.states():
        if numbers.get(state):
            numbers[state] -= 1
            unknown += 1
    return {**numbers, **({UNREADABLE: min(unknown, most)} if unknown else {})}
