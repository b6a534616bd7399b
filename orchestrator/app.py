"""The orchestrator's HTTP API: parse, call, answer."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException

from orchestrator import browser, pages, probe
from orchestrator.bootstrap import Orchestrator, bootstrap
from orchestrator.codes import code_of
from orchestrator.stream import event_stream
from saga.audit import audit
from saga.errors import BadInput, NoSuchSaga, SagaError
from saga.faults import parse_plan
from saga.log import Stored
from saga.machine import ENDED, Line, State
from saga.payload import parse_object
from saga.raw_export import raw_export
from saga.representation import PUBLIC_STATUS, STATUSES, represent, represent_line
from saga.settings import Settings, load_settings
from saga.unreadable import UNREADABLE

BODY_AT_MOST = 1 << 20  # bytes
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
    app.config["MAX_CONTENT_LENGTH"] = BODY_AT_MOST
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    app.close = parts.close  # type: ignore[attr-defined]
    app.register_error_handler(SagaError, _saga_error)
    app.register_error_handler(HTTPException, lambda error: _error(error.code or 500, error.description))
    browser.protect(app)
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
        return answer(*self.parts.engine.run(definition, body, key, wait))

    def sagas(self) -> Response:
        """The latest sagas, a page at a time."""
        _only_these_flags("status", "saga", "q", "limit", "before")
        states, readable = states_of(request.args.get("status"))
        records = self.parts.log.search(
            states=states,
            readable=readable,
            name=request.args.get("saga", ""),
            q=request.args.get("q", ""),
            before=request.args.get("before", ""),
            most=int(_number("limit", 50, 1, 500)),
        )
        lines = self.parts.log.lines_of(record.id for record in records)
        return jsonify(sagas=[represent(record, lines[record.id]) for record in records])

    def saga(self, saga_id: str) -> Response:
        """One saga."""
        return jsonify(represent(*self.parts.engine.read(saga_id)))

    def saga_lines(self, saga_id: str) -> Response:
        """One saga's log, oldest first."""
        saga, lines = self.parts.engine.read(saga_id)
        return jsonify(lines=[represent_line(line, saga) for line in lines])

    def export(self, saga_id: str) -> Response:
        """One saga's row and lines as the database has them, whatever is in them."""
        found = self.parts.log.raw(saga_id)
        if found is None:
            raise NoSuchSaga(f"there is no saga {saga_id!r}")
        return jsonify(raw_export(*found))

    def latest_lines(self) -> Response:
        """The latest lines of all sagas, newest first."""
        _only_these_flags("limit")
        found = self.parts.log.latest_lines(int(_number("limit", 100, 1, 500)))
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
        said = parse_object(request.get_data())
        note, outcome = said.get("note"), said.get("outcome")
        if not isinstance(note, str):
            raise BadInput("note is required, a text: what was done by hand, and by whom", "note")
        if outcome is not None and outcome not in ("completed", "compensated"):
            raise BadInput("outcome must be completed or compensated", "outcome")
        self.parts.operator.resolve(saga_id, note, outcome)
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
        ended = self.parts.log.search(states=ENDED, ended_since=_time("since"), most=most)
        return jsonify(audit(ended, self.parts.settings.token))

    def prune(self) -> Response:
        """Forget one batch of sagas that ended long ago."""
        _only_these_flags("older_than", "limit")
        if "older_than" not in request.args:
            raise BadInput("older_than is required: seconds since the saga ended", "older_than")
        before = self.parts.engine.around.clock() - _number("older_than", 0, 0, 1e9)
        return jsonify(pruned=self.parts.log.prune(before, int(_number("limit", 500, 1, 500))))

    def test_status(self) -> Response:
        """One call to a service, undone again."""
        _only_these_flags("service", "saga")
        definition = self.parts.definition(request.args.get("saga"))
        service = request.args.get("service")
        if not service:
            raise BadInput("service is required: /test_status?service=a", "service")
        step = next((step for step in definition.steps if step.name.lower() == service.lower()), None)
        if step is None:
            names = ", ".join(step.name for step in definition.steps)
            raise BadInput(f"service: there is no service {service!r}; the services are {names}", "service")
        return jsonify(service=service, **probe.probe(definition, step, self.parts.settings.token))

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
        record, lines = self.parts.engine.read(saga_id)
        response = jsonify(represent(record, lines))
        response.headers["Location"] = f"/sagas/{saga_id}"
        return response, 202


def answer(record: Stored, lines: Sequence[Line]) -> Response:
    """The one representation, with the status code that tells how the saga ended."""
    shown = represent(record, lines)
    response = jsonify(shown)
    if shown["status"] == "COMPLETED":
        response.status_code = 200
    elif shown["status"] == "COMPENSATED":
        response.status_code = COMPENSATED_CODES.get((shown["error"] or {}).get("kind"), 500)
    else:
        response.status_code = 202
        response.headers["Location"] = f"/sagas/{record.id}"
    return response


def _saga_error(error: SagaError) -> Response | tuple[str, int]:
    code = code_of(error)
    if pages.is_page(request.path):
        return pages.error_page(error), code
    response = _error(code, error, getattr(error, "field", None))
    if code == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER)
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


def states_of(status: str | None) -> tuple[list[State], bool | None]:
    """The states that a public status stands for, and whether only readable or only unreadable sagas have it."""
    if status is None:
        return [], None
    if status.upper() == UNREADABLE:
        return [], False
    states = [state for state, public in PUBLIC_STATUS.items() if public == status.upper()]
    if not states:
        raise BadInput(f"status: there is no status {status!r}; they are {', '.join(STATUSES)}", "status")
    return states, True


def _prefers_async() -> bool:
    """Prefer: respond-async (RFC 7240)."""
    preferences = ",".join(request.headers.getlist("Prefer")).split(",")
    return any(preference.split(";")[0].strip().lower() == "respond-async" for preference in preferences)


def _idempotency_key() -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not re.fullmatch(r"[\x20-\x7e]{1,255}", key):
        raise BadInput("the header Idempotency-Key must be 1 to 255 printable ASCII characters", "Idempotency-Key")
    return key
