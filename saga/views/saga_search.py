"""`SagaSearch` searches the saga log for sagas that fit a query, newest first, for `GET /sagas` and the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, Select

from saga.machine import State
from saga.saga_log import SagaLog, results_of
from saga.saga_row import SagaRow, Stored
from saga.storage import log_sql
from saga.storage import search_sql as sql
from saga.unreadable import Unreadable, results_problem, row_problem, unreadable_row
from saga.views.representation import NEEDS_ATTENTION_AFTER_ROUNDS

SAGAS_SCANNED = 2000  # how many of the newest sagas are looked through for those that can, or cannot, be read
SAGAS_PER_SCAN = 100
SET_ASIDE_ASKED_FOR = 1000  # how many sagas that were set aside a search asks for by their ids


@dataclass(frozen=True)
class SagaQuery:
    """Which sagas are asked for: those that fit every condition. By default there is no condition."""

    states: Collection[State] = ()  # they are in one of these states; empty means any
    name: str = ""  # they are sagas of this name
    q: str = ""  # their id begins with this, in either case, or this is their idempotency key
    before: str = ""  # their id is lower than this: the next page of a list that ended with it
    ended_since: float | None = None  # they ended at this time or later
    needs_attention: bool = False  # they have not ended, and stall too often, are overdue, or cannot be read
    readable: bool | None = None  # True: they can be read; False: they cannot; None: both
    most: int = 50  # no more than so many are found


class SagaSearch:
    """Finds sagas of a log. Every method may raise LogUnavailable."""

    def __init__(self, log: SagaLog):
        self._log = log
        self._database = log.database

    def find(self, query: SagaQuery) -> list[Stored]:
        """Return the sagas that fit the query, without their inputs and results, which can be large: see `filled`.

        Where only readable sagas are asked for, only the newest SAGAS_SCANNED are looked through. Where only unreadable
        ones are asked for, it finds those among the newest SAGAS_SCANNED, those in an unknown state, and those that
        this process has met before.
        """
        if not (query.q + query.before).isascii():
            return []
        select, values = self._select(query)
        if query.readable is None:
            rows = self._database.select(select, {**values, "most": query.most})
            return [self._log.decoded(row) for row in rows]
        if query.readable:
            return self._scan(select, values, query.most, lambda saga: isinstance(saga, SagaRow))
        values["aside"] = self._log.aside.ids(SET_ASIDE_ASKED_FOR)
        found: dict[str, Stored] = {}
        for scanned in (select.where(sql.KNOWN_TO_BE_UNREADABLE), select):
            unreadable = self._scan(scanned, values, query.most, lambda saga: isinstance(saga, Unreadable))
            found |= {saga.id: saga for saga in unreadable}
        return [found[saga_id] for saga_id in sorted(found, reverse=True)[: query.most]]

    def _select(self, query: SagaQuery) -> tuple[Select[Any], dict[str, Any]]:
        """Return the statement with the query's conditions, and the values of its parameters."""
        select, values = sql.SEARCH, dict[str, Any]()
        if query.states:
            select, values["states"] = select.where(log_sql.IN_STATES), list(query.states)
        if query.name:
            select, values["name"] = select.where(sql.NAMED), query.name
        if query.q:
            values |= {"beginning": query.q.lower(), "beginning_ends": query.q.lower() + "~"}
            if known := self._database.select(log_sql.ID_BY_KEY, {"key": query.q}):
                select, values["of_key"] = select.where(sql.BEGINS_OR_HAS_KEY), known[0]["id"]
            else:
                select = select.where(sql.BEGINS)
        if query.before:
            select, values["before"] = select.where(sql.BEFORE), query.before
        if query.needs_attention:
            values |= {"attention": NEEDS_ATTENTION_AFTER_ROUNDS, "aside": self._log.aside.ids(SET_ASIDE_ASKED_FOR)}
            select = select.where(sql.NEEDS_ATTENTION)
        if query.ended_since is not None:
            select, values["ended_since"] = select.where(sql.ENDED_SINCE), query.ended_since
        return select, values

    def _scan(
        self, select: Select[Any], values: Mapping[str, Any], most: int, wanted: Callable[[Stored], bool]
    ) -> list[Stored]:
        """Return at most `most` of the sagas that are `wanted`, of the newest SAGAS_SCANNED that a statement finds."""
        found: list[Stored] = []
        page, seen = {**values, "most": min(most, SAGAS_PER_SCAN)}, 0
        while len(found) < most and seen < SAGAS_SCANNED:
            rows = self._database.select(select, page)
            found += [saga for saga in map(self._log.decoded, rows) if wanted(saga)]
            seen += len(rows)
            if len(rows) < page["most"]:
                break
            select = select if "before" in page else select.where(sql.BEFORE)
            page["before"] = rows[-1]["id"]
        return found[:most]

    def filled(self, bare: Sequence[Stored], most: float) -> list[Stored]:
        """Return the first of these sagas with their inputs and results, as many as fit into `most` bytes together.

        It is at least one, and the database sends nothing of the others.
        """

        def work(connection: Connection) -> list[Stored]:
            known = {row.id: row.bytes for row in connection.execute(sql.SIZES_OF, {"saga_ids": [r.id for r in bare]})}
            sums = accumulate(known.get(saga.id) or 0 for saga in bare)
            fitting = [saga for saga, together in zip(bare, sums, strict=True) if together <= most] or bare[:1]
            ids = [saga.id for saga in fitting]
            inputs = {row.id: row.input for row in connection.execute(sql.INPUTS_OF, {"saga_ids": ids})}
            results = results_of(connection, ids)
            full = [self._filled(saga, inputs.get(saga.id, {}), results.get(saga.id, {})) for saga in fitting]
            bad = [saga.id for saga in full if isinstance(saga, Unreadable)]
            rows = connection.execute(log_sql.FIND_MANY, {"saga_ids": bad}).mappings() if bad else ()
            whole = {row["id"]: self._log.decoded(row, results.get(row["id"])) for row in rows}
            return [whole.get(saga.id, saga) for saga in full]

        return self._database.run(work) if bare else []

    def _filled(self, saga: Stored, input: Any, results: Mapping[str, Any]) -> Stored:
        """Return the saga with these, or as an Unreadable, which is set aside, where they cannot be read."""
        if isinstance(saga, Unreadable):
            return saga
        reason = row_problem({"input": input, "state": saga.state}) or results_problem(results)
        if reason is None:
            return replace(saga, input=input, results=results)
        found = unreadable_row(saga, reason)
        self._log.aside.put(found)
        return found
