"""The orchestrator as a Flask app: the HTTP API, a blueprint for each area, and the dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flask import Flask, request

from orchestrator import csrf
from orchestrator.api import commands, dead_letters, events, operations, sagas
from orchestrator.bootstrap import Orchestrator, bootstrap
from orchestrator.dashboard import pages
from orchestrator.error_answers import answer_errors
from saga.kits.flask_json import ExactJson
from saga.kits.request_body import read_bodies
from saga.process.settings import Settings, load_settings

BODY_AT_MOST = 1 << 20  # bytes
UI = Path(__file__).resolve().parent.parent / "ui"
API = (sagas, commands, dead_letters, events, operations)


def create_app(settings: Settings | None = None, orchestrator: Orchestrator | None = None) -> Flask:
    """Make the Flask app and start driving and recovering sagas; the app's `close()` ends that."""
    orchestrator = orchestrator or bootstrap(settings or load_settings())
    app = Flask("orchestrator", template_folder=str(UI / "templates"), static_folder=str(UI / "static"))
    app.json = ExactJson(app)
    app.close = orchestrator.close  # type: ignore[attr-defined]
    answer_errors(app)
    csrf.protect(app)
    read_bodies(app, BODY_AT_MOST)
    for area in API:
        app.register_blueprint(area.blueprint)
    _inject(app, {area.blueprint.name: {"orchestrator": orchestrator} for area in API})
    pages.register(app, orchestrator)
    orchestrator.open()
    return app


def _inject(app: Flask, arguments: dict[str, dict[str, Any]]) -> None:
    """Let each function of a blueprint be called with these arguments, by the blueprint's name, besides its URL's."""

    @app.url_value_preprocessor
    def inject(endpoint: str | None, values: dict[str, Any] | None) -> None:
        if values is not None and request.blueprint:
            values.update(arguments[request.blueprint])
