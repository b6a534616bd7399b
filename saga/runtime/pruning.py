"""`prune` deletes sagas that ended long ago from the saga log. `POST /prune` uses it."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, Executable

from saga.machine import ENDED
from saga.saga_log import SagaLog
from saga.storage import log_sql as sql


def prune(log: SagaLog, ended_before: float, most: int, also: Collection[Executable] = ()) -> int:
    """Forget at most `most` sagas that ended before a time, oldest first, and return how many.

    `also`: statements of others that delete what they keep of these sagas (`saga_ids`), in the same transaction. Raises
    LogUnavailable.
    """
    started = f"{int(max(0.0, ended_before) * 1000):012x}"  # how a UUIDv7 begins (RFC 9562, section 5.7)
    values = {"states": list(ENDED), "ended_before": ended_before, "most": most}
    values["started_before"] = f"{started[:8]}-{started[8:]}"  # else the query would look through all younger sagas

    def work(connection: Connection) -> int:
        saga_ids = [row.id for row in connection.execute(sql.ENDED_BEFORE, values)]
        for saga_id in saga_ids:
            log.aside.drop(saga_id)
        if saga_ids:
            for forget in also:
                connection.execute(forget, {"saga_ids": saga_ids})
            connection.execute(sql.FORGET_LINES, {"saga_ids": saga_ids})
            connection.execute(sql.FORGET_RESULTS, {"saga_ids": saga_ids})
            connection.execute(sql.FORGET, {"saga_ids": saga_ids})
        return len(saga_ids)

    return log.database.run(work)
