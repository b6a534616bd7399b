"""The page of one saga, with the forms of an operator's commands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import quote

from flask import Blueprint, redirect, render_template, request
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response

from orchestrator.dashboard.break_it_page import carried_back, lesson_of
from orchestrator.dashboard.inspector_page import asked_inspection, asked_log_page
from orchestrator.dashboard.saga_view import FIRST_LINES, view_of
from orchestrator.parts import Orchestrator
from orchestrator.status_codes import status_code_of
from saga.errors import BadInput, BrokerUnavailable, Conflict, NoSuchLetter
from saga.payload import parse_object
from saga.unreadable import Unreadable
from saga.views.representation import represent, represent_lines

blueprint = Blueprint("saga_page", __name__)


@blueprint.get("/ui/sagas/<saga_id>")
def show_saga(orchestrator: Orchestrator, saga_id: str) -> tuple[str, int]:
    """Show one saga."""
    return _render(orchestrator, saga_id)


@blueprint.post("/ui/sagas/<saga_id>/<command>")
def send_command(orchestrator: Orchestrator, saga_id: str, command: str) -> Response | tuple[str, int]:
    """Carry out an operator's command, from a form; a refusal is said on the saga's page."""
    try:
        if command not in COMMANDS:
            raise BadInput(f"there is no verb {command!r}", "verb")
        COMMANDS[command](orchestrator, saga_id, request.form)
    except (Conflict, BadInput, BrokerUnavailable, NoSuchLetter) as error:
        return _render(orchestrator, saga_id, f"{error}.", status_code_of(error))
    return redirect(f"/ui/sagas/{saga_id}{carried_back()}", 303)


@blueprint.get("/ui/sagas/<saga_id>/<command>")
def show_saga_after_command(orchestrator: Orchestrator, saga_id: str, command: str) -> Response:
    """Lead from the address of a command, which a browser keeps when it was refused, back to the saga's page."""
    if command not in COMMANDS:
        raise NotFound
    return redirect(f"/ui/sagas/{quote(saga_id, safe='')}")


def _resolve(orchestrator: Orchestrator, saga_id: str, form: Mapping[str, str]) -> None:
    given = form.get("result", "").strip()
    result = parse_object(given, "result") if given else None
    orchestrator.resolve(saga_id, form.get("note", ""), result, form.get("outcome"))


COMMANDS: Mapping[str, Callable[[Orchestrator, str, Mapping[str, str]], None]] = {
    "cancel": lambda orchestrator, saga_id, form: orchestrator.operator.cancel(saga_id),
    "resume": lambda orchestrator, saga_id, form: orchestrator.operator.resume(saga_id),
    "resolve": _resolve,
    "abandon": lambda orchestrator, saga_id, form: orchestrator.operator.abandon(saga_id, form.get("note", "")),
}


def _render(orchestrator: Orchestrator, saga_id: str, problem: str | None = None, code: int = 200) -> tuple[str, int]:
    saga = orchestrator.starter.read(saga_id)
    if isinstance(saga, Unreadable):
        lines = represent_lines(orchestrator.log.lines(saga_id, most=FIRST_LINES), saga)
        return render_template("unreadable.html", saga=represent(saga), lines=lines, problem=problem), code
    view = view_of(orchestrator, saga)
    learnt = lesson_of(orchestrator, request.args, view)
    parts = {"row": saga, "log": asked_log_page(orchestrator, saga), "inspected": asked_inspection(orchestrator, saga)}
    return render_template("saga.html", **view, **learnt, **parts, problem=problem), code
