"""The list of sagas: what is stuck and why above it, the sagas that fit the reader's filters below."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flask import Blueprint, render_template, request

from orchestrator.dashboard.break_it_form import sample_input
from orchestrator.parts import Orchestrator
from orchestrator.request_arguments import ENGINES, attention_in, query_in
from saga.definition import MODES
from saga.errors import BadInput
from saga.payload import mask
from saga.saga_row import SagaRow, Stored
from saga.unreadable import UNREADABLE
from saga.views.backlog import attention_ids, count_states
from saga.views.calls import calls_now
from saga.views.now import Now, now_of
from saga.views.representation import PUBLIC_STATUS, STATUSES, represent
from saga.views.saga_filter import KINDS, LONGEST, SORTS, SagaQuery
from saga.views.stuck import StuckGroup, StuckSagas

PAGE = 25  # sagas
COUNTED = 1000  # sagas in a state: beyond it, "1000+"
GROUPS = 5  # causes that are shown above the list
LIST_KEPT_SECONDS = 0.5  # seconds
LABEL_AT_MOST = 40  # characters
RANGES = {"15m": ("last 15 min", 900.0), "1h": ("last hour", 3600.0), "24h": ("last 24 h", 86_400.0)}
URGENCY = ("STALLED", UNREADABLE, "COMPENSATING", "RUNNING", "COMPLETED", "COMPENSATED")
ATTENTION = "attention"

_PUBLIC: dict[str, str] = {str(state): status for state, status in PUBLIC_STATUS.items()}

blueprint = Blueprint("list_page", __name__)


@dataclass(frozen=True)
class Row:
    """A saga in the list: its representation, what it does now, and by what a reader knows it again."""

    saga: Mapping[str, Any]
    now: Now
    label: str  # its idempotency key, or the first field of its input that may be shown
    label_of: str  # "key", or the field's name

    @property
    def tail(self) -> str:
        """The end of the id: ids of one day begin alike."""
        return str(self.saga["saga_id"])[-8:]


@dataclass(frozen=True)
class Chip:
    """A status, or what needs attention, with how many sagas there are; `number` may be "1000+"."""

    name: str
    number: str

    @property
    def empty(self) -> bool:
        """Whether there is none."""
        return self.number == "0"


class RenderedLists:
    """The lists that were rendered in the last half second: many readers of the same list have it made once."""

    def __init__(self) -> None:
        self._lists: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def get(self, url: str, render: Callable[[], str]) -> str:
        """The list at `url`, rendered now unless that was done right before."""
        with self._lock:
            now = time.monotonic()
            self._lists = {key: kept for key, kept in self._lists.items() if now - kept[0] < LIST_KEPT_SECONDS}
            if url not in self._lists:
                self._lists[url] = (now, render())
            return self._lists[url][1]


@blueprint.get("/")
def list_sagas(orchestrator: Orchestrator, rendered: RenderedLists, stuck: StuckSagas) -> str:
    """Show the sagas that fit the filters; what a page asks for again by itself may be half a second old."""
    if not request.headers.get("HX-Request"):
        return _render(orchestrator, stuck)
    return rendered.get(request.full_path, lambda: _render(orchestrator, stuck))


def _render(orchestrator: Orchestrator, stuck: StuckSagas) -> str:
    asked = {name: value for name, value in request.args.items() if value}  # a form sends its empty fields, too
    query = _query(asked, orchestrator.starter.deps.clock())
    found = orchestrator.search.search(query)
    shown = found.sagas[:PAGE]
    chips = _chips(orchestrator)
    groups = stuck.groups() if any(chip.name == "STALLED" and not chip.empty for chip in chips) else []
    return render_template(
        "index.html",
        rows=_rows(orchestrator, shown),
        found=found,
        groups=[] if asked.get("before") else groups[:GROUPS],
        more_groups=groups[GROUPS:],
        retried=retryable(orchestrator, groups[:GROUPS]),
        chips=chips,
        chosen=ATTENTION if query.needs_attention else asked.get("status", "").upper(),
        filters={name: value for name, value in asked.items() if name != "before"},
        older=shown[-1].id if len(found.sagas) > PAGE and query.sort != LONGEST else None,
        first=orchestrator.definition_or_first(query.name if query.name in orchestrator.definitions else None),
        sample=sample_input,
        choices=_choices(orchestrator),
    )


def _query(asked: Mapping[str, str], now: float) -> SagaQuery:
    within = asked.get("range", "")
    if within and within not in RANGES:
        raise BadInput(f"range must be {', '.join(RANGES)}, not {within!r}", "range")
    query = query_in({**asked, "q": asked.get("q", "").strip()}, PAGE + 1)
    since = now - RANGES[within][1] if within else query.since
    return replace(query, since=since, needs_attention=attention_in(asked))


def _choices(orchestrator: Orchestrator) -> dict[str, list[tuple[str, str]]]:
    """What each filter can be set to, as (value, what the page calls it)."""
    steps = dict.fromkeys(step.name for each in orchestrator.definitions.values() for step in each.steps)
    plain: dict[str, Sequence[str]] = {"mode": MODES, "engine": ENGINES, "step": list(steps), "kind": KINDS}
    if orchestrator.temporal is None:
        del plain["engine"]
    if orchestrator.choreographer is None:
        del plain["mode"]
    ranges = [(name, label) for name, (label, _) in RANGES.items()]
    same = {name: [(value, value) for value in values] for name, values in {**plain, "sort": SORTS}.items()}
    return {**same, "range": ranges}


def _rows(orchestrator: Orchestrator, sagas: Sequence[Stored]) -> list[Row]:
    calls, inputs = calls_now(orchestrator.log, sagas), orchestrator.search.inputs(sagas)
    rows = []
    for saga in sagas:
        shown = represent(saga)
        name, label = label_of(saga, inputs.get(saga.id))
        rows.append(Row(shown, now_of(shown, calls.get(saga.id)), label, name))
    return rows


def label_of(saga: Stored, input: Any) -> tuple[str, str]:
    """By what a reader knows the saga again: ("key", its idempotency key), or a field of its input; or two blanks."""
    if saga.idempotency_key:
        return "key", _cut(saga.idempotency_key)
    if not isinstance(saga, SagaRow) or not isinstance(input, Mapping):
        return "", ""
    for name, value in mask(input, saga.definition.secret).items():
        if name not in saga.definition.secret and isinstance(value, str | int | float) and str(value).strip():
            return name, _cut(str(value))
    return "", ""


def _cut(text: str) -> str:
    return text if len(text) <= LABEL_AT_MOST else f"{text[: LABEL_AT_MOST - 1]}…"


def _chips(orchestrator: Orchestrator) -> list[Chip]:
    """What needs attention and each status, the most urgent first, and how many sagas there are."""
    numbers = dict.fromkeys(STATUSES, 0)
    for state, number in count_states(orchestrator.log, COUNTED + 1).items():
        numbers[_PUBLIC.get(state, UNREADABLE)] += number
    counted = {ATTENTION: len(attention_ids(orchestrator.log, COUNTED + 1))}
    counted |= {status: numbers[status] for status in sorted(numbers, key=URGENCY.index)}
    return [Chip(name, f"{COUNTED}+" if number > COUNTED else str(number)) for name, number in counted.items()]


def retryable(orchestrator: Orchestrator, groups: Sequence[StuckGroup]) -> dict[int, int]:
    """How many sagas of each group, by its place, an operator can make try again now."""
    permitted = orchestrator.operator.permitted_commands
    return {place: sum("resume" in permitted(each.row) for each in group.sagas) for place, group in enumerate(groups)}
