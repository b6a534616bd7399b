"""The orchestrator as a Flask app: the HTTP API and the dashboard, a blueprint for each area."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flask import Blueprint, Flask, request

from orchestrator import csrf
from orchestrator.api import commands, dead_letters, events, operations, sagas
from orchestrator.bootstrap import bootstrap
from orchestrator.dashboard import (
    break_it_page,
    compare_page,
    dead_letters_page,
    health_page,
    inspector_page,
    isolation_page,
    list_page,
    saga_page,
    stuck_page,
    template_context,
)
from orchestrator.dashboard.compare_page import NaiveRuns
from orchestrator.dashboard.health_page import Measures
from orchestrator.dashboard.list_page import RenderedLists
from orchestrator.error_answers import answer_errors
from orchestrator.parts import Orchestrator
from saga.kits.flask_json import ExactJson
from saga.kits.request_body import read_bodies
from saga.process.settings import Settings, load_settings
from saga.views.stuck import StuckSagas

BODY_AT_MOST = 1 << 20  # bytes
UI = Path(__file__).resolve().parent.parent / "ui"
API = (sagas, commands, dead_letters, events, operations)
PAGES = (saga_page, inspector_page, break_it_page, isolation_page, dead_letters_page)


def create_app(settings: Settings | None = None, orchestrator: Orchestrator | None = None) -> Flask:
    """Make the Flask app and start driving and recovering sagas; the app's `close()` ends that."""
    orchestrator = orchestrator or bootstrap(settings or load_settings())
    app = Flask("orchestrator", template_folder=str(UI / "templates"), static_folder=str(UI / "static"))
    app.json = ExactJson(app)
    app.close = orchestrator.close  # type: ignore[attr-defined]
    answer_errors(app)
    csrf.protect(app)
    read_bodies(app, BODY_AT_MOST)
    template_context.add(app, orchestrator)
    injected = {"orchestrator": orchestrator}
    areas: dict[Blueprint, Mapping[str, Any]] = {area.blueprint: injected for area in (*API, *PAGES)}
    stuck = StuckSagas(orchestrator.log, orchestrator.search)
    areas[list_page.blueprint] = {**injected, "rendered": RenderedLists(), "stuck": stuck}
    areas[health_page.blueprint] = {**injected, "measures": Measures()}
    areas[stuck_page.blueprint] = {**injected, "stuck": stuck}
    areas[compare_page.blueprint] = {**injected, "naive_runs": NaiveRuns()}
    register(app, areas)
    orchestrator.open()
    return app


def register(app: Flask, areas: Mapping[Blueprint, Mapping[str, Any]]) -> None:
    """Add blueprints, each of whose functions is called with these arguments besides those in its URL."""
    for blueprint in areas:
        app.register_blueprint(blueprint)
    injected = {blueprint.name: arguments for blueprint, arguments in areas.items()}

    @app.url_value_preprocessor
    def inject(endpoint: str | None, values: dict[str, Any] | None) -> None:
        if values is not None and request.blueprint:
            values.update(injected[request.blueprint])
