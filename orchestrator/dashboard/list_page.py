"""The list of sagas, newest first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from flask import Blueprint, render_template, request

from orchestrator.dashboard.break_it_form import sample_input
from orchestrator.parts import Orchestrator
from orchestrator.request_arguments import attention_in, before_in, status_in
from saga.unreadable import UNREADABLE
from saga.views.backlog import count_states
from saga.views.representation import PUBLIC_STATUS, STATUSES, represent
from saga.views.saga_filter import SagaQuery

PAGE = 25  # sagas
COUNTED = 1000  # sagas in a state: beyond it, "1000+"
KEPT = 0.5  # seconds

_PUBLIC: dict[str, str] = {str(state): status for state, status in PUBLIC_STATUS.items()}

blueprint = Blueprint("list_page", __name__)


class RenderedLists:
    """The lists that were rendered in the last half second: many readers of the same list have it made once."""

    def __init__(self) -> None:
        self._lists: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def get(self, url: str, render: Callable[[], str]) -> str:
        """The list at `url`, rendered now unless that was done right before."""
        with self._lock:
            now = time.monotonic()
            self._lists = {key: kept for key, kept in self._lists.items() if now - kept[0] < KEPT}
            if url not in self._lists:
                self._lists[url] = (now, render())
            return self._lists[url][1]


@blueprint.get("/")
def list_sagas(orchestrator: Orchestrator, rendered: RenderedLists) -> str:
    """Show the sagas, newest first; what a page asks for again by itself may be half a second old."""
    if not request.headers.get("HX-Request"):
        return _render(orchestrator)
    return rendered.get(request.full_path, lambda: _render(orchestrator))


def _render(orchestrator: Orchestrator) -> str:
    asked = {name: value for name, value in request.args.items() if value}  # a form sends its empty fields, too
    name, attention = asked.get("saga", ""), attention_in(asked)
    found = orchestrator.search.find(_query(asked, name, attention))
    shown = found[:PAGE]
    return render_template(
        "index.html",
        sagas=[represent(saga) for saga in shown],
        chips=_chips(orchestrator),
        chosen="attention" if attention else asked.get("status", "").upper(),
        filters={name: value for name, value in asked.items() if name != "before"},
        older=shown[-1].id if len(found) > PAGE else None,
        first=orchestrator.definition_or_first(name if name in orchestrator.definitions else None),
        sample=sample_input,
    )


def _query(asked: Mapping[str, str], name: str, attention: bool) -> SagaQuery:
    states, readable = status_in(asked)
    return SagaQuery(
        states=states,
        name=name,
        q=asked.get("q", "").strip(),
        before=before_in(asked),
        needs_attention=attention,
        most=PAGE + 1,
        readable=readable,
    )


def _chips(orchestrator: Orchestrator) -> list[tuple[str, str]]:
    """Each status and how many sagas have it."""
    numbers = dict.fromkeys(STATUSES, 0)
    for state, number in count_states(orchestrator.log, COUNTED + 1).items():
        numbers[_PUBLIC.get(state, UNREADABLE)] += number
    return [(name, f"{COUNTED}+" if number > COUNTED else str(number)) for name, number in numbers.items()]
