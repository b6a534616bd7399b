"""A page of a saga's log: the newest lines first, those of one step or of all, with failed rounds folded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.dashboard.log_rounds import Round, fold
from saga.machine import Event
from saga.runtime.log_lines import LogLines
from saga.saga_row import SagaRow
from saga.views.lines import ShownLine
from saga.views.phrasing import Phrases
from saga.views.representation import represent_lines

LINES_AT_MOST = 200  # on a page


@dataclass(frozen=True)
class LogPage:
    """What to show, newest first. `step` is the one whose lines are shown, empty for all.

    `before` is the number that the page ends before, None for the newest page; `older` is that of the next page, None
    where there is none.
    """

    items: Sequence[ShownLine | Round]
    step: str
    before: int | None
    older: int | None
    total: int  # lines of the whole log


def read_log_page(log_lines: LogLines, row: SagaRow, step: str = "", before: int | None = None) -> LogPage:
    """Return a page of a saga's log. Raises LogUnavailable."""
    found = log_lines.of_saga(row.id, before, LINES_AT_MOST + 1, step or None)
    more = len(found) > LINES_AT_MOST
    lines = represent_lines(reversed(found[:LINES_AT_MOST]), row)
    earlier = _rounds_before(log_lines, row.id, lines) if more else 0
    items = fold(lines, Phrases(row.definition.mode), earlier)
    older = lines[0]["seq"] if more else None
    return LogPage(items[::-1], step, before, older, row.context.lines)


def _rounds_before(log_lines: LogLines, saga_id: str, lines: Sequence[ShownLine]) -> int:
    """Return how many rounds of the call that the first of these lines belongs to came before that line."""
    first = next((line for line in lines if line["step"]), None)
    if first is None:
        return 0
    resumed = log_lines.count_in_call(saga_id, first["step"], Event.RESUMED, lines[0]["seq"])
    return resumed + int(first["event"] == Event.RESUMED)
