"""The routes for operators and their tools: health, metrics, the audit, pruning, and a test call to a service."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from flask import Blueprint, Response, jsonify, request

from orchestrator.parts import Orchestrator
from orchestrator.probe import probe, step_called
from orchestrator.request_arguments import check_flags, time_in, whole_number_in
from saga.definition import SagaDefinition
from saga.errors import BadInput
from saga.machine import ENDED
from saga.runtime.pruning import prune
from saga.views.audit import audit
from saga.views.saga_filter import SagaQuery

OPENAPI = Path(__file__).parent.parent / "openapi.json"

blueprint = Blueprint("operations", __name__)


@blueprint.get("/audit")
def audit_sagas(orchestrator: Orchestrator) -> Response:
    """Compare the sagas that ended last with the participants' own records: all or nothing, or what is wrong."""
    check_flags("since", "limit")
    most = whole_number_in("limit", 100, 1, 500)
    ended = orchestrator.search.find(SagaQuery(states=ENDED, ended_since=time_in("since"), most=most))
    return jsonify(audit(ended, orchestrator.starter.deps.transport, orchestrator.settings.token))


@blueprint.post("/prune")
def prune_sagas(orchestrator: Orchestrator) -> Response:
    """Delete one batch of the sagas that ended at least `older_than` seconds ago."""
    check_flags("older_than", "limit")
    if "older_than" not in request.args:
        raise BadInput("older_than is required: seconds since the saga ended", "older_than")
    before = orchestrator.starter.deps.clock() - whole_number_in("older_than", 0, 0, 10**9)
    most = whole_number_in("limit", 500, 1, 500)
    return jsonify(pruned=prune(orchestrator.log, before, most, orchestrator.exchanges.forgetting()))


@blueprint.post("/test_status")
def test_status(orchestrator: Orchestrator) -> Response:
    """Call a service once, and undo what that did."""
    check_flags("service", "saga")
    service = request.args.get("service")
    if not service:
        raise BadInput("service is required: /test_status?service=a", "service")
    definition, step = step_called(service, _definitions(orchestrator, request.args.get("saga")))
    transport, token = orchestrator.starter.deps.transport, orchestrator.settings.token
    return jsonify(service=service, **probe(definition, step, transport, token))


def _definitions(orchestrator: Orchestrator, named: str | None) -> list[SagaDefinition]:
    """Return the saga whose services are meant; all of them where none is named, the default one first."""
    if named:
        return [orchestrator.definition(named)]
    return [orchestrator.definition_or_first(None), *map(orchestrator.definition, orchestrator.definitions)]


@blueprint.get("/healthz")
def alive(orchestrator: Orchestrator) -> Response:
    """Answer as long as the process serves requests."""
    return jsonify(status="ok")


@blueprint.get("/readyz")
def ready(orchestrator: Orchestrator) -> Response:
    """Answer 200 where the saga log answers, and else 503."""
    orchestrator.log.ping()
    return jsonify(status="ready")


@blueprint.get("/metrics")
def metrics(orchestrator: Orchestrator) -> Response:
    """Metrics in Prometheus's text format."""
    return Response(orchestrator.telemetry.metrics(), mimetype="text/plain; version=0.0.4")


@blueprint.get("/openapi.json")
def openapi(orchestrator: Orchestrator) -> Response:
    """This API as OpenAPI 3.1."""
    return jsonify(_openapi())


@cache
def _openapi() -> Any:
    return json.loads(OPENAPI.read_text(encoding="utf-8"))
