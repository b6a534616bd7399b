"""The orchestrator's HTTP API: parse, call, answer."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from orchestrator import csrf, probe
from orchestrator.bootstrap import Orchestrator, bootstrap
from orchestrator.dashboard import pages
from orchestrator.queries import before_in, status_in
from orchestrator.status_codes import status_code_of
from orchestrator.stream import event_stream
from saga.errors import BadInput, NoSuchSaga, SagaError
from saga.faults.flags import parse_plan
from saga.kits.flask_json import ExactJson
from saga.kits.request_body import read_bodies
from saga.machine import ENDED
from saga.payload import parse_object
from saga.process.settings import Settings, load_settings
from saga.runtime.pruning import prune
from saga.saga_log import Record, Stored
from saga.views.audit import audit
from saga.views.raw_export import raw_export
from saga.views.raw_rows import raw_rows
from saga.views.representation import represent, represent_line, represent_lines
from saga.views.saga_search import SagaQuery

BODY_AT_MOST = 1 << 20  # bytes
PAGE_BYTES = 8 << 20  # of input and results, in a page of sagas
LINES, LINES_AT_MOST = 1000, 10_000  # in a page of a saga's log
LOOKS = 20  # at a page of which some were found to be unreadable meanwhile
WAIT = 30.0  # seconds that POST /start waits for the saga's end
WAIT_AT_MOST = 300.0
RETRY_AFTER = 5  # seconds, told with a 503

# What a compensated saga is answered with, by why it was.
COMPENSATED_CODES = {"refused": 409, "cancelled": 409, "failed": 500, "timeout": 504, "deadline": 504}


def create_app(settings: Settings | None = None, parts: Orchestrator | None = None) -> Flask:
    """The Flask app, driving and recovering sagas from now on; `close()` ends that."""
    parts = parts or bootstrap(settings or load_settings())
    ui = Path(__file__).resolve().parent.parent / "ui"
    app = Flask("orchestrator", template_folder=str(ui / "templates"), static_folder=str(ui / "static"))
    app.json = ExactJson(app)
    app.close = parts.close  # type: ignore[attr-defined]
    app.register_error_handler(SagaError, _saga_error)
    app.register_error_handler(HTTPException, _http_error)
    csrf.protect(app)
    read_bodies(app, BODY_AT_MOST)
    _Routes(parts).register(app)
    pages.register(app, parts)
    parts.open()
    return app


class _Routes:
    def __init__(self, parts: Orchestrator):
        self.parts = parts
        self.openapi = json.loads((Path(__file__).parent / "openapi.json").read_text(encoding="utf-8"))

    def register(self, app: Flask) -> None:
        app.post("/start")(self.start)
        app.get("/sagas")(self.sagas)
        app.get("/sagas/<saga_id>")(self.saga)
        app.get("/sagas/<saga_id>/log")(self.saga_lines)
        app.get("/logs")(self.latest_lines)
        app.get("/events")(self.events)
        app.get("/sagas/<saga_id>/export")(self.export)
        app.post("/sagas/<saga_id>/cancel")(self.cancel)
        app.post("/sagas/<saga_id>/resume")(self.resume)
        app.post("/sagas/<saga_id>/resolve")(self.resolve)
        app.post("/sagas/<saga_id>/abandon")(self.abandon)
        app.get("/dead-letters")(self.dead_letters)
        app.post("/dead-letters/<int:letter>/replay")(self.replay)
        app.get("/audit")(self.audit)
        app.post("/prune")(self.prune)
        app.post("/test_status")(self.test_status)
        app.get("/healthz")(self.alive)
        app.get("/readyz")(self.ready)
        app.get("/metrics")(self.metrics)
        app.get("/openapi.json")(self.schema)

    def start(self) -> Response:
        """Start a saga and wait for its end."""
        _only_these_flags("saga", "mode", "wait", "fail", "delay")
        definition = self.parts.definition(request.args.get("saga"))
        fail, delay = request.args.getlist("fail"), request.args.getlist("delay")
        plan = parse_plan(fail, delay, [step.name for step in definition.steps], self.parts.settings.faults)
        wait = 0.0 if _prefers_async() else _number("wait", WAIT, 0, WAIT_AT_MOST)
        key, mode = _idempotency_key(), self.parts.mode(request.args.get("mode"))
        body = parse_object(request.get_data())
        definition = definition.with_faults(plan.queries(), plan.orchestrator).in_mode(mode)
        self.parts.check_listeners(definition, key)
        return answer(self.parts.engine.run(definition, body, key, wait))

    def sagas(self) -> Response:
        """The latest sagas, a page at a time: as many as the limit says, or as few as are large together."""
        _only_these_flags("status", "saga", "q", "limit", "before")
        states, readable = status_in(request.args)
        query = SagaQuery(
            states=states,
            readable=readable,
            name=request.args.get("saga", ""),
            q=request.args.get("q", ""),
            before=before_in(request.args),
            most=int(_number("limit", 50, 1, 500)),
        )
        for _ in range(LOOKS):
            found = self.parts.search.find(query)
            page = self.parts.search.filled(found, PAGE_BYTES)
            if not readable or all(isinstance(saga, Record) for saga in page):
                break  # else one of them was just found to be unreadable: the next search knows that
        return jsonify(sagas=[represent(saga) for saga in page if not readable or isinstance(saga, Record)])

    def saga(self, saga_id: str) -> Response:
        """One saga."""
        return jsonify(represent(self.parts.engine.read(saga_id)))

    def saga_lines(self, saga_id: str) -> Response:
        """One saga's log, oldest first, a page at a time; `next` is the `after` of the next page."""
        _only_these_flags("after", "limit")
        after, most = int(_number("after", 0, 0, 999_999_999)), int(_number("limit", LINES, 1, LINES_AT_MOST))
        record = self.parts.engine.read(saga_id)
        lines = self.parts.log.lines(saga_id, after, most + 1)
        more = {"next": lines[most - 1].seq} if len(lines) > most else {}
        return jsonify(lines=represent_lines(lines[:most], record), **more)

    def export(self, saga_id: str) -> Response:
        """One saga's row and lines as the database has them, whatever is in them."""
        found = raw_rows(self.parts.log, saga_id)
        if found is None:
            raise NoSuchSaga(f"there is no saga {saga_id!r}")
        return jsonify(raw_export(*found))

    def latest_lines(self) -> Response:
        """The latest lines of all sagas, newest first."""
        _only_these_flags("limit")
        found = self.parts.lines.latest(int(_number("limit", 100, 1, 500)))
        records = self.parts.log.find_many({saga_id for saga_id, _ in found})
        return jsonify(
            lines=[{"saga_id": saga_id, **represent_line(line, records.get(saga_id))} for saga_id, line in found]
        )

    def events(self) -> Response:
        """The lines of all sagas, or of one, as they are committed: server-sent events."""
        _only_these_flags("saga_id")
        last_seen = request.headers.get("Last-Event-ID")
        if last_seen is not None and not re.fullmatch(r"[0-9]{1,18}", last_seen):
            raise BadInput("the header Last-Event-ID must be the id of an event of this stream", "Last-Event-ID")
        start = self.parts.stream.start(int(last_seen) if last_seen else None)
        return event_stream(self.parts.stream.follow(start, request.args.get("saga_id")))

    def cancel(self, saga_id: str) -> tuple[Response, int]:
        """Roll a saga back."""
        self.parts.operator.cancel(saga_id)
        return self._accepted(saga_id)

    def resume(self, saga_id: str) -> tuple[Response, int]:
        """Try a stalled call now."""
        self.parts.resume(saga_id)
        return self._accepted(saga_id)

    def resolve(self, saga_id: str) -> tuple[Response, int]:
        """Take a stalled call for done, by hand."""
        body = parse_object(request.get_data())
        note, result, outcome = body.get("note"), body.get("result"), body.get("outcome")
        if not isinstance(note, str):
            raise BadInput("note is required, a text: what was done by hand, and by whom", "note")
        if "result" in body and not isinstance(result, dict):
            raise BadInput("result must be a JSON object: what the call would have answered", "result")
        if outcome is not None and outcome not in ("completed", "compensated"):
            raise BadInput("outcome must be completed or compensated", "outcome")
        self.parts.resolve(saga_id, note, result, outcome)
        return self._accepted(saga_id)

    def abandon(self, saga_id: str) -> tuple[Response, int]:
        """End a choreographed saga that no service has heard of."""
        note = parse_object(request.get_data()).get("note")
        if not isinstance(note, str):
            raise BadInput("note is required, a text: why it is abandoned, and by whom", "note")
        self.parts.abandon(saga_id, note)
        return self._accepted(saga_id)

    def dead_letters(self) -> Response:
        """The events that could not be handled."""
        _only_these_flags("limit")
        return jsonify(dead_letters=self.parts.choreography.dead_letters(int(_number("limit", 100, 1, 500))))

    def replay(self, letter: int) -> tuple[Response, int]:
        """Let one of them be published again."""
        return jsonify(self.parts.choreography.replay(letter)), 202

    def audit(self) -> Response:
        """All or nothing, as the participants' own records tell it."""
        _only_these_flags("since", "limit")
        most = int(_number("limit", 100, 1, 500))
        ended = self.parts.search.find(SagaQuery(states=ENDED, ended_since=_time("since"), most=most))
        return jsonify(audit(ended, self.parts.engine.deps.transport, self.parts.settings.token))

    def prune(self) -> Response:
        """Forget one batch of sagas that ended long ago."""
        _only_these_flags("older_than", "limit")
        if "older_than" not in request.args:
            raise BadInput("older_than is required: seconds since the saga ended", "older_than")
        before = self.parts.engine.deps.clock() - _number("older_than", 0, 0, 1e9)
        return jsonify(pruned=prune(self.parts.log, before, int(_number("limit", 500, 1, 500))))

    def test_status(self) -> Response:
        """One call to a service, undone again."""
        _only_these_flags("service", "saga")
        service, named = request.args.get("service"), request.args.get("saga")
        if not service:
            raise BadInput("service is required: /test_status?service=a", "service")
        first = self.parts.definition_or_first(named)
        transport, token = self.parts.engine.deps.transport, self.parts.settings.token
        others = [] if named else [self.parts.definition(name) for name in self.parts.definitions]
        for definition in (first, *others):
            for step in definition.steps:
                if step.name.lower() == service.lower():
                    return jsonify(service=service, **probe.probe(definition, step, transport, token))
        known = dict.fromkeys(step.name for definition in (first, *others) for step in definition.steps)
        raise BadInput(f"service: there is no service {service!r}; the services are {', '.join(known)}", "service")

    def alive(self) -> Response:
        """That the process serves."""
        return jsonify(status="ok")

    def schema(self) -> Response:
        """OpenAPI 3.1."""
        return jsonify(self.openapi)

    def ready(self) -> Response:
        """Whether the saga log answers."""
        self.parts.log.ping()
        return jsonify(status="ready")

    def metrics(self) -> Response:
        """Prometheus's text format."""
        return Response(self.parts.telemetry.metrics(), mimetype="text/plain; version=0.0.4")

    def _accepted(self, saga_id: str) -> tuple[Response, int]:
        response = jsonify(represent(self.parts.engine.read(saga_id)))
        response.headers["Location"] = f"/sagas/{saga_id}"
        return response, 202


def answer(saga: Stored) -> Response:
    """The one representation, with the status code that tells how the saga ended."""
    shown = represent(saga)
    response = jsonify(shown)
    if shown["status"] == "COMPLETED":
        response.status_code = 200
    elif shown["status"] == "COMPENSATED":
        response.status_code = COMPENSATED_CODES.get(str((shown["error"] or {}).get("kind")), 500)
    else:
        response.status_code = 202
        response.headers["Location"] = f"/sagas/{saga.id}"
    return response


def _saga_error(error: SagaError) -> Response:
    code = status_code_of(error)
    return _told(code, error, {"Retry-After": str(RETRY_AFTER)} if code == 503 else {}, getattr(error, "field", None))


def _http_error(error: HTTPException) -> Response:
    """What Flask refuses: an unknown address, too large a body, another method than those that Allow names."""
    headers = dict(error.get_headers(request.environ)) if error.response is None else {}
    kept = {name: value for name, value in headers.items() if name in ("Allow", "Retry-After")}
    return _told(error.code or 500, error.description, kept)


def _told(code: int, message: Any, headers: Mapping[str, str], field: str | None = None) -> Response:
    """An error, as a page to whoever asked for a page."""
    if pages.is_page(request.path):
        response = Response(pages.error_page(code, message), code, mimetype="text/html")
    else:
        response = _error(code, message, field)
    response.headers.update(headers)
    return response


def _error(code: int, message: Any, field: str | None = None) -> Response:
    response = jsonify({"error": str(message), **({"field": field} if field else {})})
    response.status_code = code
    return response


def _only_these_flags(*known: str) -> None:
    for name in request.args:
        if name not in known:
            raise BadInput(f"there is no flag {name!r}; the flags are {', '.join(known)}", name)


def _number(name: str, default: float, least: float, most: float) -> float:
    text = request.args.get(name)
    if text is None:
        return default
    pattern = r"\d{1,9}(\.\d{1,6})?" if name == "wait" else r"\d{1,9}"
    if not re.fullmatch(pattern, text, re.ASCII) or not least <= float(text) <= most:
        raise BadInput(f"{name} must be a number from {least:g} to {most:g}, not {text!r}", name)
    return float(text)


def _time(name: str) -> float | None:
    text = request.args.get(name)
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text.replace(" ", "+"))  # a + in a query is a space
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadInput(f"{name} must be a time like 2026-01-31T12:00:00Z, not {text!r}", name) from None


def _prefers_async() -> bool:
    """Prefer: respond-async (RFC 7240)."""
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    return any(preference.split(";")[0].strip().lower() == "respond-async" for preference in preferences)


def _idempotency_key() -> str | None:
    """The header; what is compared must be the same on every database, and MySQL leaves blanks at the end out."""
    key = request.headers.get("Idempotency-Key")
    if key is not None and not (re.fullmatch(r"[\x20-\x7e]{1,255}", key) and key == key.strip()):
        what = "1 to 255 printable ASCII characters, neither the first nor the last of them a blank"
        raise BadInput(f"the header Idempotency-Key must be {what}", "Idempotency-Key")
    return key
