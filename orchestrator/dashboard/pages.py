"""The pages of the list and of one saga: they render what the API says, and decide nothing."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from flask import Flask, redirect, render_template, request
from markupsafe import Markup, escape
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from orchestrator.bootstrap import CHOREOGRAPHY_OFF, Orchestrator
from orchestrator.dashboard import break_it
from orchestrator.dashboard.curl import Curl, curl, flags_of
from orchestrator.dashboard.formatting import length
from orchestrator.dashboard.log_reader import attempts_of, read_history, with_gaps
from orchestrator.dashboard.saga_stats import stats_of
from orchestrator.dashboard.sequence import sequence
from orchestrator.dashboard.summary import summarize
from orchestrator.dashboard.timeline import timeline
from orchestrator.dashboard.truth import verdicts, violations
from orchestrator.request_arguments import attention_in, before_in, status_in
from orchestrator.status_codes import status_code_of
from orchestrator.stream import event_stream
from saga.definition import SagaDefinition
from saga.errors import BadInput, BrokerUnavailable, Conflict, NoSuchLetter, NoSuchSaga, SagaUnreadable
from saga.machine import STALLED_AT_AN_ACTION, Line
from saga.payload import compact, mask, parse_object, pretty
from saga.progress import secrets_of
from saga.runtime.permitted_commands import REFUSALS, permitted_commands
from saga.saga_log import Record
from saga.unreadable import UNREADABLE, Unreadable
from saga.views.backlog import count_states
from saga.views.records import ask_all
from saga.views.representation import (
    PUBLIC_STATUS,
    STATUSES,
    represent,
    represent_lines,
    under_way,
)
from saga.views.saga_search import SagaQuery

PAGE = 25  # sagas
COUNTED = 1000  # sagas in a state: beyond it, "1000+"
FIRST_LINES, LATEST_LINES = 100, 200  # of a saga's log, on its page
LETTERS = 100  # dead ones
LIST_KEPT = 0.5  # seconds
PATIENCE = 1.0  # seconds that a page waits for a participant's records

_PUBLIC: dict[str, str] = {str(state): status for state, status in PUBLIC_STATUS.items()}

Page = Response | str | tuple[str, int]


def register(app: Flask, parts: Orchestrator) -> None:
    """Add the pages to the app."""
    pages = _Pages(parts)
    app.get("/", endpoint="ui_index")(pages.index)
    app.get("/ui/sagas/<saga_id>", endpoint="ui_saga")(pages.saga)
    app.post("/ui/sagas/<saga_id>/<command>", endpoint="ui_act")(pages.act)
    app.get("/ui/sagas/<saga_id>/<command>", endpoint="ui_acted")(pages.acted)
    app.get("/ui/dead-letters", endpoint="ui_dead_letters")(pages.dead_letters)
    app.post("/ui/dead-letters/<int:letter>/replay", endpoint="ui_replay")(pages.replay)
    app.get("/ui/dead-letters/<int:letter>/replay", endpoint="ui_replayed")(lambda letter: redirect("/ui/dead-letters"))
    app.get("/ui/news", endpoint="ui_changes")(pages.changes)
    app.get("/ui/health", endpoint="ui_health")(pages.health)
    app.context_processor(pages.everywhere)
    app.add_template_filter(length, "length_of_time")
    app.add_template_filter(local_times)
    app.add_template_filter(shown_value)
    app.add_template_filter(pretty, "pretty")
    app.add_template_filter(lambda filters: urlencode({k: v for k, v in filters.items() if v}), "query")
    break_it.register(app, parts, pages.saga_view)


class _Pages:
    def __init__(self, parts: Orchestrator):
        self.parts = parts
        self._lists: dict[str, tuple[float, str]] = {}
        self._listing = threading.Lock()

    def everywhere(self) -> dict[str, Any]:
        """What every template may use."""
        return {
            "health": self.parts.health.latest(),
            "curl": self.curl,
            "here": request.full_path,
            "choreography_off": None if self.parts.choreographer else CHOREOGRAPHY_OFF,
            "definitions": self.parts.definitions,
            "default_saga": self.parts.default_saga,
        }

    def curl(
        self,
        saga: str,
        flags: Sequence[tuple[str, str]],
        body: Mapping[str, Any],
        definition: SagaDefinition | None = None,
        key: str | None = None,
    ) -> Curl:
        """The command that starts such a saga here; what `definition` keeps secret is left to variables."""
        named = [("saga", saga)] if saga != self.parts.default_saga else []
        return curl(f"{request.host_url}start", [*named, *flags], body, definition, key)

    def index(self) -> Page:
        """The sagas, newest first; of those who look at the same list at the same time, one has it made."""
        if not request.headers.get("HX-Request"):
            return self._index()
        with self._listing:
            now, asked = time.monotonic(), request.full_path
            self._lists = {key: kept for key, kept in self._lists.items() if now - kept[0] < LIST_KEPT}
            if asked not in self._lists:
                self._lists[asked] = (now, self._index())
            return self._lists[asked][1]

    def _index(self) -> str:
        asked = {name: value for name, value in request.args.items() if value}  # a form sends its empty fields, too
        attention = attention_in(asked)
        name = asked.get("saga", "")
        states, readable = status_in(asked)
        records = self.parts.search.find(
            SagaQuery(
                states=states,
                name=name,
                q=asked.get("q", "").strip(),
                before=before_in(asked),
                needs_attention=attention,
                most=PAGE + 1,
                readable=readable,
            )
        )
        shown = records[:PAGE]
        return render_template(
            "index.html",
            sagas=[represent(record) for record in shown],
            chips=self._chips(),
            chosen="attention" if attention else asked.get("status", "").upper(),
            filters={name: value for name, value in asked.items() if name != "before"},
            older=shown[-1].id if len(records) > PAGE else None,
            first=self.parts.definition_or_first(name if name in self.parts.definitions else None),
            sample=break_it.sample_input,
        )

    def _chips(self) -> list[tuple[str, str]]:
        """Each status and how many sagas have it."""
        numbers = dict.fromkeys(STATUSES, 0)
        for state, number in count_states(self.parts.log, COUNTED + 1).items():
            numbers[_PUBLIC.get(state, UNREADABLE)] += number
        return [(name, f"{COUNTED}+" if number > COUNTED else str(number)) for name, number in numbers.items()]

    def saga(self, saga_id: str) -> Page:
        """One saga."""
        return self._saga(saga_id)

    def _saga(self, saga_id: str, problem: str | None = None, code: int = 200) -> tuple[str, int]:
        saga = self.parts.log.read(saga_id)
        if saga is None:
            raise NoSuchSaga(f"there is no saga {saga_id!r}")
        if isinstance(saga, Unreadable):
            lines = represent_lines(self.parts.log.lines(saga_id, most=FIRST_LINES), saga)
            return render_template("unreadable.html", saga=represent(saga), lines=lines, problem=problem), code
        view = self._view(saga)
        findings, predicted = break_it.findings_for(request.args, view)
        return render_template("saga.html", **view, problem=problem, findings=findings, predicted=predicted), code

    def saga_view(self, saga_id: str) -> dict[str, Any] | None:
        """What is shown of one saga; None where there is none. SagaUnreadable."""
        saga = self.parts.log.read(saga_id)
        if saga is None:
            return None
        if isinstance(saga, Unreadable):
            raise SagaUnreadable(f"the saga {saga_id} cannot be read: {saga.reason}")
        return self._view(saga)

    def _view(self, record: Record) -> dict[str, Any]:
        shown = with_gaps(represent_lines(self._lines(record), record))
        saga, history = represent(record), read_history(shown)
        now = None if record.ended else self.parts.engine.deps.clock()
        transport, token = self.parts.engine.deps.transport, self.parts.settings.token
        found = ask_all(record.definition, record.id, transport, token, PATIENCE)
        self.parts.health.report(record.id, violations(record, found))
        return {
            "saga": saga,
            "lines": shown,
            "steps": list(zip(record.definition.steps, saga["steps"], strict=True)),
            "summary": summarize(saga, shown),
            "timeline": timeline(saga, shown, now),
            "diagram": sequence(saga, shown),
            "stats": stats_of(saga, shown),
            "parked": [] if record.ended else list(history.parked.values()),
            "sent": attempts_of(history),
            "rows": mask(found, record.definition.secret, secrets_of(record)),
            "verdicts": verdicts(record, saga["steps"], found),
            "permitted_commands": permitted_commands(record),
            "acting": record.state in STALLED_AT_AN_ACTION,
            "has_stalled": record.context.stalled,
            "under_way": under_way(record),
            "flags": flags_of(record.definition),
            "snapshot": record.definition,
            "key": record.idempotency_key,
        }

    def _lines(self, record: Record) -> list[Line]:
        """The first and the latest lines of its log, and those between them that tell of what is parked now."""
        log, latest = self.parts.log, max(FIRST_LINES, record.context.lines - LATEST_LINES)
        lines = log.lines(record.id, 0, FIRST_LINES)
        parked = [letter.line for letter in record.context.parked if FIRST_LINES < letter.line <= latest]
        lines += log.lines_at(record.id, parked) if parked else []
        return lines + log.lines(record.id, latest) if record.context.lines > FIRST_LINES else lines

    def act(self, saga_id: str, command: str) -> Page:
        """An operator's command, from a form."""
        try:
            if command == "cancel":
                self.parts.operator.cancel(saga_id)
            elif command == "resume":
                self.parts.resume(saga_id)
            elif command == "resolve":
                given = request.form.get("result", "").strip()
                result = parse_object(given, "result") if given else None
                self.parts.resolve(saga_id, request.form.get("note", ""), result, request.form.get("outcome"))
            elif command == "abandon":
                self.parts.abandon(saga_id, request.form.get("note", ""))
            else:
                raise BadInput(f"there is no verb {command!r}", "verb")
        except (Conflict, BadInput, BrokerUnavailable, NoSuchLetter) as error:
            return self._saga(saga_id, f"{error}.", status_code_of(error))
        return redirect(f"/ui/sagas/{saga_id}", 303)

    def acted(self, saga_id: str, command: str) -> Page:
        """The address of a command, which a browser keeps after one was refused: the saga's page."""
        if command not in REFUSALS:
            raise NotFound
        return redirect(f"/ui/sagas/{quote(saga_id, safe='')}")

    def dead_letters(self) -> Page:
        """The events that could not be handled."""
        return self._dead_letters()

    def _dead_letters(self, problem: str | None = None, code: int = 200) -> tuple[str, int]:
        try:
            letters = self.parts.choreographer and self.parts.choreographer.dead_letters(LETTERS)
        except BrokerUnavailable as error:
            letters, problem = None, problem or f"{error}. What is parked there is not known."
        return render_template("dead_letters.html", letters=letters, most=LETTERS, problem=problem), code

    def replay(self, letter: int) -> Page:
        """Publish a parked event again, from a form."""
        try:
            self.parts.choreography.replay(letter)
        except (BadInput, BrokerUnavailable, NoSuchLetter) as error:
            return self._dead_letters(f"{error}.", status_code_of(error))
        return redirect("/ui/dead-letters", 303)

    def changes(self) -> Response:
        """Tells a list's page that it has changed."""
        return event_stream(self.parts.stream.changes(self.parts.stream.start(None)))

    def health(self) -> Page:
        """The services, the log, and the invariant."""
        return render_template("health.html")


def local_times(text: object) -> Markup:
    """A text, escaped, in which each time is a <time>: the page's script shows it in the reader's own zone."""
    return Markup(_TIMES.sub(_timed, str(escape(str(text)))))  # noqa: S704  # escaped before


def shown_value(value: object) -> Markup:
    """A JSON value as a reader sees it: no None, no True."""
    if isinstance(value, (dict, list)):
        return local_times(compact(value))
    if value is None or isinstance(value, bool):
        return local_times({None: "–", True: "yes", False: "no"}[value])
    return local_times(value)


_TIMES = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(\.\d{1,9})?(?:Z|\+00:00| UTC)")


def _timed(found: re.Match[str]) -> str:
    day, clock, fraction = found[1], found[2], found[3] or ""
    return f'<time datetime="{day}T{clock}{fraction[:4]}Z">{day} {clock} UTC</time>'
