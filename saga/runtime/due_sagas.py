"""`DueSagas` tells recovery which sagas need a driver: those that are due, and those with a doubtful due time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Executable, RowMapping

from saga.saga_log import SagaLog
from saga.storage import log_sql as sql


class DueSagas:
    """Finds the sagas in a saga log that recovery has to look at. Every method may raise LogUnavailable."""

    def __init__(self, log: SagaLog):
        self._database = log.database
        self._aside = log.aside

    def due(self, now: float, most: int, owner: str | None = None) -> list[tuple[str, int]]:
        """Return at most `most` sagas that need a driver: (id, epoch), longest waiting first; none that is set aside.

        `owner`: only sagas of nobody and of this owner, since it is not certain when another's lease ends.
        """
        return [(row["id"], row["epoch"]) for row in self._not_aside(sql.DUE, now, most, owner=owner)]

    def doubted(
        self, owner: str, *, soon: float, longest_lease: float, longest_rest: float, most: int
    ) -> list[tuple[str, int, float]]:
        """Return sagas whose due time was perhaps written by another clock than `owner`'s, as (id, epoch, due time).

        At most `most` leases of others that end before `soon`, and as many sagas that are due later than
        `longest_lease`, or `longest_rest` where they are stalled. In each the earliest come first.
        """
        rows = list(self._database.select(sql.ENDING, {"owner": owner, "soon": soon, "most": most}))
        beyond = min(longest_lease, longest_rest)
        values = {"beyond": beyond, "longest_lease": longest_lease, "longest_rest": longest_rest, "most": most}
        rows += self._database.select(sql.AHEAD, values)
        return _due_times(rows, self._aside.resting())

    def due_times(self, saga_ids: Collection[str]) -> list[tuple[str, int, float]]:
        """Return when these sagas are due, as (id, epoch, due time). A saga that is never due is left out."""
        return _due_times(self._database.select(sql.AS_IT_IS, {"saga_ids": list(saga_ids)}) if saga_ids else ())

    def unstarted(self, now: float, most: int) -> list[str]:
        """Return the ids of at most `most` sagas whose workflows should have started by `now`, and perhaps did not."""
        return [row["id"] for row in self._not_aside(sql.UNSTARTED, now, most)]

    def postpone(self, sagas_due: Mapping[tuple[str, int], float]) -> None:
        """Let stalled sagas rest longer: (id, epoch) to the new due time."""
        rows = [{"saga_id": key[0], "held": key[1], "new_due_at": due_at} for key, due_at in sagas_due.items()]
        if rows:
            self._database.run(lambda connection: connection.execute(sql.POSTPONE, rows))

    def free(self, owner: str, now: float, before: float) -> int:
        """Make the sagas due that an earlier process named `owner` held; return their number.

        `before`: the earlier process's leases end before that time, and those of this process later.
        """
        return self._database.execute(sql.FREE_OWNER, {"gone": owner, "now": now, "before": before})

    def _not_aside(self, query: Executable, now: float, most: int, **more: Any) -> list[RowMapping]:
        """Return what is due and not set aside. A saga that is set aside stays due, and takes up no other's place."""
        aside = self._aside.resting()
        found = self._database.select(query, {"now": now, "most": most + len(aside), **more})
        return [row for row in found if str(row["id"]) not in aside][:most]


def _due_times(rows: Iterable[RowMapping], resting: Collection[str] = ()) -> list[tuple[str, int, float]]:
    """Return (id, epoch, due time) of each row that is not set aside and whose time can be read."""
    found = ((row["id"], row["epoch"], row["due_at"]) for row in rows)
    return [each for each in found if each[0] not in resting and isinstance(each[2], float)]
