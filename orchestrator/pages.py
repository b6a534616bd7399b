"""The pages of the list and of one saga: they render what the API says, and decide nothing."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from shlex import quote
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from flask import Flask, redirect, render_template, request
from werkzeug.wrappers import Response

from orchestrator import lab
from orchestrator.bootstrap import CHOREOGRAPHY_OFF, Orchestrator
from orchestrator.calls import read
from orchestrator.codes import code_of
from orchestrator.sequence import sequence
from orchestrator.story import story
from orchestrator.stream import event_stream
from orchestrator.tally import tally
from orchestrator.timeline import timeline
from orchestrator.words import length
from saga.definition import SagaDefinition
from saga.errors import BadInput, BrokerUnavailable, Conflict, NoSuchLetter, NoSuchSaga, SagaUnreadable
from saga.log import Record
from saga.machine import STALLED, Line
from saga.payload import mask
from saga.records import ask_all
from saga.representation import NEEDS_ATTENTION_AFTER, PUBLIC_STATUS, STATUSES, represent, represent_line, secrets_of
from saga.unreadable import UNREADABLE, Unreadable
from saga.verbs import permitted

PAGE = 25  # sagas
COUNTED = 1000  # sagas in a state: beyond it, "1000+"
LETTERS = 100  # dead ones
LIST_KEPT = 0.5  # seconds
PATIENCE = 1.0  # seconds that a page waits for a participant's records

_PUBLIC: dict[str, str] = {str(state): status for state, status in PUBLIC_STATUS.items()}

Answer = Response | str | tuple[str, int]


def register(app: Flask, parts: Orchestrator) -> None:
    """Add the pages to the app."""
    pages = _Pages(parts)
    app.get("/", endpoint="ui_index")(pages.index)
    app.get("/ui/sagas/<saga_id>", endpoint="ui_saga")(pages.saga)
    app.post("/ui/sagas/<saga_id>/<verb>", endpoint="ui_act")(pages.act)
    app.get("/ui/dead-letters", endpoint="ui_dead_letters")(pages.dead_letters)
    app.post("/ui/dead-letters/<int:letter>/replay", endpoint="ui_replay")(pages.replay)
    app.get("/ui/news", endpoint="ui_news")(pages.news)
    app.get("/ui/health", endpoint="ui_health")(pages.health)
    off = None if parts.choreographer else CHOREOGRAPHY_OFF
    app.context_processor(
        lambda: {"watch": parts.watch.look(), "curl": curl, "here": request.full_path, "choreography_off": off}
    )
    app.add_template_filter(length, "length_of_time")
    app.add_template_filter(lambda value: json.dumps(value, indent=2, ensure_ascii=False), "pretty")
    app.add_template_filter(lambda filters: urlencode({k: v for k, v in filters.items() if v}), "query")
    lab.register(app, parts, pages.saga_view)


def is_page(path: str) -> bool:
    """Whether it is one for a browser."""
    return path == "/" or path.startswith("/ui/")


def error_page(error: Exception) -> str:
    """What went wrong, for a reader."""
    return render_template("error.html", message=f"{error}.")


class _Pages:
    def __init__(self, parts: Orchestrator):
        self.parts = parts
        self._lists: dict[str, tuple[float, str]] = {}
        self._listing = threading.Lock()

    def index(self) -> Answer:
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
        status = request.args.get("status", "").upper()
        attention = request.args.get("attention") == "1"
        wanted = [state for state, public in PUBLIC_STATUS.items() if public == status]
        if status and status not in STATUSES:
            raise BadInput(f"there is no status {status!r}", "status")
        records = self.parts.log.search(
            states=wanted,
            name=request.args.get("saga", ""),
            q=request.args.get("q", "").strip(),
            before=request.args.get("before", ""),
            attention=NEEDS_ATTENTION_AFTER if attention else 0,
            most=PAGE + 1,
            readable=status != UNREADABLE if status else None,
        )
        shown = records[:PAGE]
        lines = self.parts.log.lines_of(record.id for record in shown)
        return render_template(
            "index.html",
            sagas=[represent(record, lines[record.id]) for record in shown],
            chips=self._chips(),
            chosen="attention" if attention else status,
            filters={name: value for name, value in request.args.items() if value and name != "before"},
            older=shown[-1].id if len(records) > PAGE else None,
            definitions=self.parts.definitions,
        )

    def _chips(self) -> list[tuple[str, str]]:
        """Each status and how many sagas have it."""
        numbers = dict.fromkeys(STATUSES, 0)
        for state, number in self.parts.log.count_states(COUNTED + 1).items():
            numbers[_PUBLIC.get(state, UNREADABLE)] += number
        return [(name, f"{COUNTED}+" if number > COUNTED else str(number)) for name, number in numbers.items()]

    def saga(self, saga_id: str) -> Answer:
        """One saga."""
        return self._saga(saga_id)

    def _saga(self, saga_id: str, problem: str | None = None, code: int = 200) -> tuple[str, int]:
        saga, lines = self.parts.log.read(saga_id)
        if saga is None:
            raise NoSuchSaga(f"there is no saga {saga_id!r}")
        shown = represent(saga, lines)
        if shown["status"] == UNREADABLE:
            told = [represent_line(line, saga) for line in lines]
            return render_template("unreadable.html", saga=shown, lines=told, problem=problem), code
        view = self._view(saga, lines)
        findings, predicted = lab.judge(request.args, view)
        return render_template("saga.html", **view, problem=problem, findings=findings, predicted=predicted), code

    def saga_view(self, saga_id: str) -> dict[str, Any] | None:
        """What is shown of one saga; None where there is none. SagaUnreadable."""
        saga, lines = self.parts.log.read(saga_id)
        if saga is None:
            return None
        if isinstance(saga, Unreadable):
            raise SagaUnreadable(f"the saga {saga_id} cannot be read: {saga.reason}")
        return self._view(saga, lines)

    def _view(self, record: Record, lines: Sequence[Line]) -> dict[str, Any]:
        shown = [represent_line(line, record) for line in lines]
        saga = represent(record, lines)
        now = None if record.ended else self.parts.engine.around.clock()
        found = ask_all(record.definition, record.id, self.parts.settings.token, PATIENCE)
        return {
            "saga": saga,
            "lines": shown,
            "steps": list(zip(record.definition.steps, saga["steps"], strict=True)),
            "story": story(saga, shown),
            "timeline": timeline(saga, shown, now),
            "diagram": sequence(saga, shown),
            "tally": tally(saga, shown),
            "parked": [] if record.ended else list(read(shown).parked.values()),
            "rows": mask(found, record.definition.secret, secrets_of(record)),
            "verbs": permitted(record, lines),
            "has_stalled": any((line.detail or {}).get("state") in STALLED for line in lines),
            "flags": flags_of(record.definition),
        }

    def act(self, saga_id: str, verb: str) -> Answer:
        """An operator's verb, from a form."""
        try:
            if verb == "cancel":
                self.parts.operator.cancel(saga_id)
            elif verb == "resume":
                self.parts.resume(saga_id)
            elif verb == "resolve":
                self.parts.operator.resolve(saga_id, request.form.get("note", ""), request.form.get("outcome"))
            else:
                raise BadInput(f"there is no verb {verb!r}", "verb")
        except (Conflict, BadInput, BrokerUnavailable, NoSuchLetter) as error:
            return self._saga(saga_id, f"{error}.", code_of(error))
        return redirect(f"/ui/sagas/{saga_id}", 303)

    def dead_letters(self) -> Answer:
        """The events that could not be handled."""
        return self._dead_letters()

    def _dead_letters(self, problem: str | None = None, code: int = 200) -> tuple[str, int]:
        try:
            letters = self.parts.choreographer and self.parts.choreographer.dead_letters(LETTERS)
        except BrokerUnavailable as error:
            letters, problem = None, problem or f"{error}. What is parked there is not known."
        return render_template("dead_letters.html", letters=letters, most=LETTERS, problem=problem), code

    def replay(self, letter: int) -> Answer:
        """Publish a parked event again, from a form."""
        try:
            self.parts.choreography.replay(letter)
        except (BadInput, BrokerUnavailable, NoSuchLetter) as error:
            return self._dead_letters(f"{error}.", code_of(error))
        return redirect("/ui/dead-letters", 303)

    def news(self) -> Response:
        """Tells a list's page that it has changed."""
        return event_stream(self.parts.stream.news(self.parts.stream.start(None)))

    def health(self) -> Answer:
        """The services, the log, and the invariant."""
        return render_template("health.html")


def flags_of(definition: SagaDefinition) -> list[tuple[str, str]]:
    """The flags of POST /start that a saga was started with, as its snapshot has them."""
    found = [("mode", definition.mode)] if definition.choreographed else []
    found += [("fail", f"orchestrator:{point.lower()}") for point in definition.faults]
    for step in definition.steps:
        for url in (step.action, step.compensation or ""):
            query = parse_qsl(urlsplit(url).query)
            found += [(name, f"{step.name.lower()}:{value}") for name, value in query if name in ("fail", "delay")]
    return list(dict.fromkeys(found))


def curl(saga: str, flags: list[tuple[str, str]], body: dict[str, Any]) -> str:
    """The line that starts such a saga."""
    query = urlencode([*([("saga", saga)] if saga != "signup" else []), *flags], safe=":")
    url = f"{request.host_url}start" + (f"?{query}" if query else "")
    data = json.dumps(body, ensure_ascii=False)
    return f"curl -X POST {quote(url)} -H 'content-type: application/json' -d {quote(data)}"
