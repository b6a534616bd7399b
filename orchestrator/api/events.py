"""The lines of the saga log across all sagas: the latest of them, and each as it is committed."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from orchestrator.bootstrap import Orchestrator
from orchestrator.request_arguments import check_flags, last_event_id, whole_number_in
from orchestrator.stream import event_stream
from saga.views.representation import represent_line

blueprint = Blueprint("events", __name__)


@blueprint.get("/logs")
def latest_lines(orchestrator: Orchestrator) -> Response:
    """The latest lines of all sagas, newest first."""
    check_flags("limit")
    found = orchestrator.lines.latest(whole_number_in("limit", 100, 1, 500))
    records = orchestrator.log.find_many({saga_id for saga_id, _ in found})
    return jsonify(
        lines=[{"saga_id": saga_id, **represent_line(line, records.get(saga_id))} for saga_id, line in found]
    )


@blueprint.get("/events")
def events(orchestrator: Orchestrator) -> Response:
    """The lines of all sagas, or of one, as they are committed: server-sent events."""
    check_flags("saga_id")
    start = orchestrator.stream.start(last_event_id())
    return event_stream(orchestrator.stream.follow(start, request.args.get("saga_id")))


@blueprint.get("/ui/news")
def changes(orchestrator: Orchestrator) -> Response:
    """Signal to the dashboard's pages, as server-sent events, that lines were committed."""
    return event_stream(orchestrator.stream.changes(orchestrator.stream.start(None)))
