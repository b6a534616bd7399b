"""This is the kit for a Flask service in sagas: the author writes two functions, and the kit keeps the contract.

    def create_user(tx, fields):            # the action: in one local transaction with the barrier row
        made = tx.execute(users.insert(), {"saga_id": tx.saga_id, "username": fields["username"]})
        return {"user_id": made.inserted_primary_key[0]}

    def delete_user(tx, fields):            # its compensation; called only where the action took effect
        tx.execute(users.delete().where(users.c.saga_id == tx.saga_id))

Either raises Refused to say no. That a call is sent twice, late, or in the wrong order is the kit's business.

What the contract says is in saga/participant.py. Here are only the routes, and Flask's requests and responses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from saga.barrier import Transaction
from saga.errors import Refused, SettingsError
from saga.kits.flask_json import ExactJson
from saga.kits.request_body import read_bodies
from saga.kits.wiring import REQUEST_THREADS, RunningParticipant, check_installed, run_participant
from saga.participant import (
    HEADERS,
    REQUEST_BYTES_AT_MOST,
    ParticipantDefinition,
    ParticipantRequest,
    ParticipantResponse,
    business_table,
    error_response,
    failure_response,
)
from saga.process import server
from saga.process.settings import Settings, load_settings

__all__ = ["REQUEST_THREADS", "Participant", "Refused", "Settings", "Transaction", "business_table", "load_settings"]

# WSGI's names: to look them up there costs less than in request.headers.
WSGI_HEADERS = {name: f"HTTP_{name.upper().replace('-', '_')}" for name in HEADERS}


class Participant(ParticipantDefinition):
    """One service: its name (also its step's), its table, its two functions, and the JSON Schema of their fields."""

    def create_app(self, settings: Settings | None = None, exit: Callable[[int], Any] = os._exit) -> Flask:
        """Return the service's Flask app, connected to its database.

        Tests pass their own settings, and an `exit` that an injected crash calls.
        """
        running = run_participant(self, settings or load_settings(), exit)
        app = Flask(self.name)
        app.json = ExactJson(app)
        app.extensions["saga"] = running
        app.close = running.close  # type: ignore[attr-defined]
        # A saga's id may hold two slashes in a row.
        app.url_map.merge_slashes = False
        _add_routes(app, running)
        return app

    def serve(self, target: str) -> None:
        """Run the app that the factory `target` ("service_a.app:create_app") makes, until SIGTERM."""
        try:
            settings = load_settings()
            port = settings.service_port(self.name)
            check_installed(self.name, settings)
        except SettingsError as error:
            sys.exit(str(error))
        variable = f"SERVICE_{self.name}_PORT"
        server.serve(
            target, host=settings.host, port=port, variable=variable, threads=REQUEST_THREADS, plain=settings.plain
        )


def _add_routes(app: Flask, running: RunningParticipant) -> None:
    endpoints = running.endpoints

    @app.before_request
    def check_token() -> Response | None:
        refusal = endpoints.check_token(request.path, request.headers.get("Authorization", ""))
        return _sent(refusal) if refusal else None

    read_bodies(app, REQUEST_BYTES_AT_MOST)

    @app.post("/invoke")
    def invoke() -> Response:
        return _sent(endpoints.invoke(_received()))

    @app.post("/compensate")
    def compensate() -> Response:
        return _sent(endpoints.compensate(_received()))

    @app.get("/records")
    def latest_records() -> Response:
        return _sent(endpoints.latest_records(request.args.get("limit", "50")))

    @app.get("/records/<path:saga_id>")
    def records(saga_id: str) -> Response:
        return _sent(endpoints.records(saga_id))

    @app.get("/healthz")
    def healthy() -> Response:
        return _sent(endpoints.healthy())

    @app.get("/readyz")
    def ready() -> Response:
        return _sent(endpoints.ready())

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(running.calls.metrics(), mimetype="text/plain; version=0.0.4")

    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, lambda error: _sent(failure_response(error)))


def _received() -> ParticipantRequest:
    environ = request.environ
    headers = {name: environ[key] for name, key in WSGI_HEADERS.items() if key in environ}
    # Werkzeug parses a query also where there is none.
    query = list(request.args.items(multi=True)) if environ.get("QUERY_STRING") else []
    return ParticipantRequest(headers, query, request.get_data())


def _sent(response: ParticipantResponse) -> Response:
    return Response(response.text, response.status, response.headers, content_type=response.content_type)


def _http_error(error: HTTPException) -> Response:
    """Return the answer to what Flask or Werkzeug refuses: an unknown path, a wrong method, too large a body."""
    response = _sent(error_response(error.code or 500, error.description))
    # Among them Allow, of a 405.
    response.headers.extend([(name, value) for name, value in error.get_headers() if name != "Content-Type"])
    return response
