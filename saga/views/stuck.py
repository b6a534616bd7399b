"""The stalled sagas in groups: those that are stuck at the same call for the same reason have one remedy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from saga.machine import STALLED
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.views.calls import calls_now
from saga.views.now import Now, now_of, stuck_step
from saga.views.representation import represent
from saga.views.saga_filter import SagaQuery
from saga.views.saga_search import SagaSearch

GROUPED = 500  # stalled sagas that are looked at, the newest ones
SEARCHED_LINES = 200  # of a saga's log, in which the first stall is looked for


@dataclass(frozen=True)
class StuckSaga:
    """A stalled saga, with what it does now."""

    row: SagaRow
    now: Now
    call: str  # "undo A"

    @property
    def cause(self) -> tuple[str, str, str]:
        """What it has in common with others: the saga's name, the call, and what was answered."""
        return self.row.definition.name, self.call, self.now.what


@dataclass(frozen=True)
class StuckGroup:
    """Stalled sagas with the same cause, oldest first. `since`: when the oldest one was first stuck there."""

    saga: str
    what: str
    sagas: Sequence[StuckSaga]
    since: float | None = None

    @property
    def ids(self) -> list[str]:
        """The ids of its sagas."""
        return [each.row.id for each in self.sagas]


class StuckSagas:
    """Groups the stalled sagas of a log. Every method may raise LogUnavailable."""

    def __init__(self, log: SagaLog, search: SagaSearch):
        self._log = log
        self._search = search
        self._since: dict[tuple[str, str], float | None] = {}  # by id and call: that does not change

    def groups(self) -> list[StuckGroup]:
        """Return the groups, the largest first, of the newest GROUPED of the stalled sagas."""
        found = self._search.find(SagaQuery(states=sorted(STALLED), readable=True, most=GROUPED))
        grouped: dict[tuple[str, str, str], list[StuckSaga]] = {}
        for each in sorted(self._stuck(found), key=lambda each: each.row.id):
            grouped.setdefault(each.cause, []).append(each)
        groups = [
            StuckGroup(name, what, sagas, self._stuck_since(sagas[0])) for (name, _, what), sagas in grouped.items()
        ]
        return sorted(groups, key=lambda group: (-len(group.sagas), group.what))

    def read(self, saga_ids: Iterable[str]) -> dict[str, StuckSaga]:
        """Return those of these sagas that are stalled now, by their ids."""
        found = self._log.find_many(list(saga_ids), bare=True).values()
        return {each.row.id: each for each in self._stuck(found)}

    def _stuck(self, found: Iterable[object]) -> list[StuckSaga]:
        rows = [saga for saga in found if isinstance(saga, SagaRow) and saga.state in STALLED]
        calls, made = calls_now(self._log, rows), []
        for row in rows:
            shown = represent(row)
            stuck = stuck_step(shown)
            made.append(StuckSaga(row, now_of(shown, calls[row.id]), stuck[0] if stuck else ""))
        return made

    def _stuck_since(self, stuck: StuckSaga) -> float | None:
        """When the saga stalled first at the call that it is stuck at now."""
        key = (stuck.row.id, stuck.call)
        if key not in self._since:
            if len(self._since) > GROUPED:
                self._since.clear()
            lines = self._log.lines(stuck.row.id, most=SEARCHED_LINES)
            step = stuck.row.definition.steps[stuck.row.cursor].name
            stalls = (line.at for line in lines if line.step == step and line.facts.get("state") == stuck.row.state)
            self._since[key] = next(stalls, None)
        return self._since[key]
