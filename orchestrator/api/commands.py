"""The routes of an operator's commands: cancel, resume, resolve, abandon. Each is answered 202, with the saga."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from orchestrator.parts import Orchestrator
from saga.errors import BadInput
from saga.payload import parse_object
from saga.views.representation import represent

blueprint = Blueprint("commands", __name__)


@blueprint.post("/sagas/<saga_id>/cancel")
def cancel(orchestrator: Orchestrator, saga_id: str) -> tuple[Response, int]:
    """Roll a saga back."""
    orchestrator.operator.cancel(saga_id)
    return _accepted(orchestrator, saga_id)


@blueprint.post("/sagas/<saga_id>/resume")
def resume(orchestrator: Orchestrator, saga_id: str) -> tuple[Response, int]:
    """Make the call that stalled a saga again now, or replay the parked events of a choreographed one."""
    orchestrator.operator.resume(saga_id)
    return _accepted(orchestrator, saga_id)


@blueprint.post("/sagas/<saga_id>/resolve")
def resolve(orchestrator: Orchestrator, saga_id: str) -> tuple[Response, int]:
    """Let a stalled saga go on as if its call had succeeded, because an operator has done the work by hand."""
    body = parse_object(request.get_data())
    note, result, outcome = body.get("note"), body.get("result"), body.get("outcome")
    if not isinstance(note, str):
        raise BadInput("note is required, a text: what was done by hand, and by whom", "note")
    if "result" in body and not isinstance(result, dict):
        raise BadInput("result must be a JSON object: what the call would have answered", "result")
    if outcome is not None and outcome not in ("completed", "compensated"):
        raise BadInput("outcome must be completed or compensated", "outcome")
    orchestrator.resolve(saga_id, note, result, outcome)
    return _accepted(orchestrator, saga_id)


@blueprint.post("/sagas/<saga_id>/abandon")
def abandon(orchestrator: Orchestrator, saga_id: str) -> tuple[Response, int]:
    """End a choreographed saga that no service has heard of."""
    note = parse_object(request.get_data()).get("note")
    if not isinstance(note, str):
        raise BadInput("note is required, a text: why it is abandoned, and by whom", "note")
    orchestrator.operator.abandon(saga_id, note)
    return _accepted(orchestrator, saga_id)


def _accepted(orchestrator: Orchestrator, saga_id: str) -> tuple[Response, int]:
    response = jsonify(represent(orchestrator.starter.read(saga_id)))
    response.headers["Location"] = f"/sagas/{saga_id}"
    return response, 202
