"""`SagaSearch` searches the saga log for sagas that fit a query, for `GET /sagas` and the dashboard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select

from saga.saga_log import SagaLog, results_of
from saga.saga_row import SagaRow, Stored
from saga.storage import filter_sql, log_sql
from saga.storage import search_sql as sql
from saga.storage.log_tables import sagas
from saga.unreadable import Unreadable, results_problem, row_problem, unreadable_row
from saga.views.backlog import SET_ASIDE_ASKED_FOR, attention_ids
from saga.views.saga_filter import LONGEST, MARGIN, OLDEST, SagaQuery, id_at, input_has

KNOWN_AT_MOST = 1000  # how many sagas that need attention, or are in an unknown state, a search knows: the newest
LOOKED_AT = 10_000  # how many sagas a search looks at for what no index finds
WINDOW = 1000  # of those, how many at a time
LOOKS_FOR = 1.0  # seconds after which it stops
INPUT_AT_MOST = 65_536  # characters of an input that is read for a list, or searched
SAGAS_SCANNED = 2000  # how many of the newest sagas are looked through for those that can, or cannot, be read
SAGAS_PER_SCAN = 100


@dataclass(frozen=True)
class Found:
    """The sagas that a search has found, newest first unless the query says otherwise.

    Where it gave up before it had seen all that it might have to: at how many sagas it has looked, and at which last.
    """

    sagas: list[Stored]
    looked_at: int | None = None
    looked_to: str | None = None


class SagaSearch:
    """Finds sagas of a log. Every method may raise LogUnavailable."""

    def __init__(self, log: SagaLog):
        self._log = log
        self._database = log.database

    def search(self, query: SagaQuery) -> Found:
        """Return the sagas that fit the query, also where no index finds them, and how far it has looked for them.

        `q` is an id, its beginning, or an idempotency key. Where no saga has such a one, it is the end of an id, or
        something in a field of the input that is not secret. For that, for the mode, the engine, and the error, and
        for the longest, the newest LOOKED_AT are looked through, and no longer than LOOKS_FOR.
        """
        text = query.q if query.q and not self._named(query.q) else ""
        if query.sort == LONGEST:
            return self._longest(replace(query, q="" if text else query.q), text)
        if text or query.about_json or query.sort == OLDEST:
            return self._look_through(replace(query, q="" if text else query.q), text)
        return Found(self.find(query))

    def _named(self, q: str) -> bool:
        """Whether a saga has this idempotency key, or an id that begins so."""
        if not q.isascii():
            return False
        beginning = {"beginning": q.lower(), "beginning_ends": q.lower() + "~", "most": 1}
        return bool(
            self._database.select(log_sql.ID_BY_KEY, {"key": q})
            or self._database.select(filter_sql.ids_of(sql.SEARCH.where(sql.BEGINS)), beginning)
        )

    def _look_through(self, query: SagaQuery, text: str) -> Found:
        found: list[Stored] = []
        oldest_first, stop, looked, last = query.sort == OLDEST, time.monotonic() + LOOKS_FOR, 0, query.before
        select, values = self._select(replace(query, name="", before=""))
        select = select.order_by(None).order_by(filter_sql.OLDEST_FIRST) if oldest_first else select
        beyond = filter_sql.AFTER if oldest_first else sql.BEFORE
        while True:
            bounded = select.where(beyond) if last else select
            given = {**values, "before": last} if last else values
            window = [row["id"] for row in self._database.select(filter_sql.ids_of(bounded), {**given, "most": WINDOW})]
            for saga in self._in_window(query, text, select, beyond, {**values}, window):
                found.append(saga)
                if len(found) == query.most:
                    return Found(found)
            looked, last = looked + len(window), window[-1] if window else last
            if len(window) < WINDOW:
                return Found(found)
            if looked >= LOOKED_AT or time.monotonic() > stop:
                return Found(found, looked, last)

    def _in_window(
        self,
        query: SagaQuery,
        text: str,
        select: Select[Any],
        beyond: ColumnElement[bool],
        values: dict[str, Any],
        window: Sequence[str],
    ) -> Iterator[Stored]:
        """Yield those of the sagas with these ids that fit what no index knows."""
        if not window:
            return
        values |= {"from_id": min(window), "to_id": max(window), "most": SAGAS_PER_SCAN}
        for condition in (filter_sql.WITHIN, *_conditions(query, text)):
            select = select.where(condition)
        if query.name:
            select, values["name"] = select.where(sql.NAMED), query.name
        while True:
            rows = self._database.select(select, values)
            yield from self._fitting([self._log.decoded(row) for row in rows], query, text)
            if len(rows) < SAGAS_PER_SCAN:
                return
            select = select if "before" in values else select.where(beyond)
            values["before"] = rows[-1]["id"]

    def _fitting(self, sagas: Sequence[Stored], query: SagaQuery, text: str) -> Iterator[Stored]:
        """Yield those of the sagas that fit what only their decoded rows and inputs tell."""
        fitting = [saga for saga in sagas if query.fits(saga) and _readable_as(query, saga)]
        inputs = self.inputs([saga for saga in fitting if isinstance(saga, SagaRow)]) if text else {}
        for saga in fitting:
            by_input = isinstance(saga, SagaRow) and input_has(inputs.get(saga.id), text, saga.definition.secret)
            if not text or by_input or saga.id.endswith(text.lower()):
                yield saga

    def inputs(self, sagas: Sequence[Stored]) -> dict[str, Any]:
        """Return the inputs of these sagas by their ids, but for those that are longer than INPUT_AT_MOST."""
        values = {"saga_ids": [saga.id for saga in sagas], "longest": INPUT_AT_MOST}
        rows = self._database.select(filter_sql.SMALL_INPUTS_OF, values) if sagas else ()
        return {row["id"]: row["input"] for row in rows if isinstance(row["input"], dict)}

    def _longest(self, query: SagaQuery, text: str) -> Found:
        """Return the sagas that took the longest, or have been under way for the longest, of the newest LOOKED_AT."""
        now, stop = time.time(), time.monotonic() + LOOKS_FOR
        select, values = self._select(replace(query, name="", before=""))
        rows = self._database.select(filter_sql.spans_of(select), {**values, "most": LOOKED_AT})
        timed = [row for row in rows if all(isinstance(row[name], float | None) for name in ("started_at", "ended_at"))]
        timed.sort(key=lambda row: (row["ended_at"] or now) - (row["started_at"] or now), reverse=True)
        found: list[Stored] = []
        for start in range(0, len(timed), SAGAS_PER_SCAN):
            ids = [row["id"] for row in timed[start : start + SAGAS_PER_SCAN]]
            known = self._log.find_many(ids, bare=True)
            sagas = [known[saga_id] for saga_id in ids if saga_id in known]
            found += [saga for saga in self._fitting(sagas, query, text) if query.name in ("", _name(saga))]
            if len(found) >= query.most or time.monotonic() > stop:
                break
        return Found(found[: query.most], len(rows) if len(rows) == LOOKED_AT else None)

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
        unknown = self._database.select(sql.UNKNOWN_STATE_IDS, {"most": KNOWN_AT_MOST})
        known = [*self._log.aside.ids(SET_ASIDE_ASKED_FOR), *(row["id"] for row in unknown)]
        found: dict[str, Stored] = {}
        for scanned, more in ((select.where(sql.AMONG), {"among": known}), (select, {})):
            unreadable = self._scan(scanned, {**values, **more}, query.most, lambda saga: isinstance(saga, Unreadable))
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
            select = select.where(sql.AMONG)
            values["among"] = attention_ids(self._log, KNOWN_AT_MOST, query.before)
        if query.since is not None:
            values |= {"since": query.since, "lowest_id": id_at(query.since - MARGIN)}
            select = select.where(filter_sql.STARTED_SINCE)
        if query.until is not None:
            values |= {"until": query.until, "highest_id": id_at(query.until + MARGIN) + "~"}
            select = select.where(filter_sql.STARTED_UNTIL)
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


def _conditions(query: SagaQuery, text: str) -> list[ColumnElement[bool]]:
    """Return the conditions that the database can look at in the texts of JSON columns."""
    columns = {"mode": sagas.c.definition, "engine": sagas.c.definition}
    columns |= {"step": sagas.c.error, "kind": sagas.c.error}
    made = [filter_sql.says(column, word) for name, column in columns.items() if (word := getattr(query, name))]
    return [*made, filter_sql.ends_or_has(text)] if text else made


def _readable_as(query: SagaQuery, saga: Stored) -> bool:
    return query.readable is None or isinstance(saga, SagaRow) == query.readable


def _name(saga: Stored) -> str | None:
    return saga.definition.name if isinstance(saga, SagaRow) else saga.name
