"""The routes of the saga log across all sagas: its latest lines, and all lines as they are committed."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from orchestrator.parts import Orchestrator
from orchestrator.request_arguments import check_flags, last_event_id, whole_number_in
from orchestrator.shown_lines import show_lines
from orchestrator.stream import event_stream

blueprint = Blueprint("events", __name__)


@blueprint.get("/logs")
def latest_lines(orchestrator: Orchestrator) -> Response:
    """Return the latest lines of all sagas, newest first."""
    check_flags("limit")
    found = orchestrator.lines.latest(whole_number_in("limit", 100, 1, 500))
    return jsonify(lines=show_lines(found, orchestrator.log))


@blueprint.get("/events")
def events(orchestrator: Orchestrator) -> Response:
    """Send the lines of all sagas, or of one, as they are committed: server-sent events."""
    check_flags("saga_id")
    start = orchestrator.stream.start(last_event_id())
    return event_stream(orchestrator.stream.follow(start, request.args.get("saga_id")))


@blueprint.get("/ui/news")
def changes(orchestrator: Orchestrator) -> Response:
    """Signal to the dashboard's pages, as server-sent events, that lines were committed."""
    return event_stream(orchestrator.stream.changes(orchestrator.stream.start(None)))
