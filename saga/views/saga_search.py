"""Lists of sagas, newest first, as somebody asks for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from sqlalchemy import Connection, Select

from saga.machine import State
from saga.record import Record, Stored
from saga.saga_log import SagaLog, results_of
from saga.storage import log_sql as sql
from saga.unreadable import Unreadable, results_problem, row_problem, unreadable_record
from saga.views.representation import NEEDS_ATTENTION_AFTER

SCANNED = 2000  # sagas, the newest, that are looked through for those that can, or cannot, be read
SCANNED_AT_ONCE = 100
ASIDE_AT_MOST = 1000  # sagas set aside that a search asks for by their ids


@dataclass(frozen=True)
class SagaQuery:
    """Which sagas are asked for: those that fit everything that is said here; all of them by default."""

    states: Collection[State] = ()  # in one of these; in any where there is none
    name: str = ""  # called so
    q: str = ""  # whose id begins with it, in either case, or whose idempotency key it is
    before: str = ""  # with a lower id than this: the next page of a list that ended with it
    ended_since: float | None = None  # that ended at this time or later
    needs_attention: bool = False  # that have not ended, and have stalled too often, are overdue, or cannot be read
    readable: bool | None = None  # True: only those that can be read; False: only those that cannot; None: both
    most: int = 50  # so many of them at the most


class SagaSearch:
    """Finds sagas of a log. Every method may raise LogUnavailable."""

    def __init__(self, log: SagaLog):
        self._log = log
        self._database = log.database

    def find(self, query: SagaQuery) -> list[Stored]:
        """The sagas that are asked for. They are bare, without input and results, which can be large: see `filled`.

        Of those that cannot be read, it finds those that are known here, those in an unknown state, and those among the
        newest SCANNED; only as far back it looks for those that can be read, where only they are asked for.
        """
        if not (query.q + query.before).isascii():
            return []
        select, values = self._select(query)
        if query.readable is None:
            rows = self._database.select(select, {**values, "most": query.most})
            return [self._log.decoded(row) for row in rows]
        if query.readable:
            return self._scan(select, values, query.most, lambda saga: isinstance(saga, Record))
        values["aside"] = self._log.aside.ids(ASIDE_AT_MOST)
        found: dict[str, Stored] = {}
        for scanned in (select.where(sql.KNOWN_TO_BE_UNREADABLE), select):
            unreadable = self._scan(scanned, values, query.most, lambda saga: isinstance(saga, Unreadable))
            found |= {saga.id: saga for saga in unreadable}
        return [found[saga_id] for saga_id in sorted(found, reverse=True)[: query.most]]

    def _select(self, query: SagaQuery) -> tuple[Select[Any], dict[str, Any]]:
        """The statement with the conditions that a query has, and their values."""
        select, values = sql.SEARCH, dict[str, Any]()
        if query.states:
            select, values["states"] = select.where(sql.IN_STATES), list(query.states)
        if query.name:
            select, values["name"] = select.where(sql.NAMED), query.name
        if query.q:
            values |= {"beginning": query.q.lower(), "beginning_ends": query.q.lower() + "~"}
            if known := self._database.select(sql.ID_BY_KEY, {"key": query.q}):
                select, values["of_key"] = select.where(sql.BEGINS_OR_HAS_KEY), known[0]["id"]
            else:
                select = select.where(sql.BEGINS)
        if query.before:
            select, values["before"] = select.where(sql.BEFORE), query.before
        if query.needs_attention:
            values |= {"attention": NEEDS_ATTENTION_AFTER, "aside": self._log.aside.ids(ASIDE_AT_MOST)}
            select = select.where(sql.NEEDS_ATTENTION)
        if query.ended_since is not None:
            select, values["ended_since"] = select.where(sql.ENDED_SINCE), query.ended_since
        return select, values

    def _scan(
        self, select: Select[Any], values: Mapping[str, Any], most: int, wanted: Callable[[Stored], bool]
    ) -> list[Stored]:
        """At most `most` sagas that are wanted, of the newest SCANNED that a statement finds; a page at a time."""
        found: list[Stored] = []
        page, seen = {**values, "most": min(most, SCANNED_AT_ONCE)}, 0
        while len(found) < most and seen < SCANNED:
            rows = self._database.select(select, page)
            found += [saga for saga in map(self._log.decoded, rows) if wanted(saga)]
            seen += len(rows)
            if len(rows) < page["most"]:
                break
            select = select if "before" in page else select.where(sql.BEFORE)
            page["before"] = rows[-1]["id"]
        return found[:most]

    def filled(self, bare: Sequence[Stored], most: float) -> list[Stored]:
        """As many of these as have at most `most` bytes of input and results together, with those; at least one.

        The database sends nothing of the others.
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
            rows = connection.execute(sql.FIND_MANY, {"saga_ids": bad}).mappings() if bad else ()
            whole = {row["id"]: self._log.decoded(row, results.get(row["id"])) for row in rows}
            return [whole.get(saga.id, saga) for saga in full]

        return self._database.run(work) if bare else []

    def _filled(self, saga: Stored, input: Any, results: Mapping[str, Any]) -> Stored:
        if isinstance(saga, Unreadable):
            return saga
        reason = row_problem({"input": input, "state": saga.state}) or results_problem(results)
        if reason is None:
            return replace(saga, input=input, results=results)
        found = unreadable_record(saga, reason)
        self._log.aside.put(found)
        return found
