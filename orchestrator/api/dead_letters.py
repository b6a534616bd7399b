"""The routes of dead letters, the events of choreographed sagas that a service could not handle."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify

from orchestrator.parts import Orchestrator
from orchestrator.request_arguments import check_flags, whole_number_in

blueprint = Blueprint("dead_letters", __name__)


@blueprint.get("/dead-letters")
def list_dead_letters(orchestrator: Orchestrator) -> Response:
    """Return the parked events, newest first."""
    check_flags("limit")
    return jsonify(dead_letters=orchestrator.choreography.dead_letters(whole_number_in("limit", 100, 1, 500)))


@blueprint.post("/dead-letters/<int:letter>/replay")
def replay(orchestrator: Orchestrator, letter: int) -> tuple[Response, int]:
    """Publish the event of one dead letter again."""
    return jsonify(orchestrator.choreography.replay(letter)), 202
