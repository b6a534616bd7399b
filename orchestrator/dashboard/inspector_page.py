"""The parts of a saga's page that are loaded by themselves: the inspector and the log."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlencode

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from orchestrator.dashboard.log_page import LogPage, read_log_page
from orchestrator.dashboard.step_inspector import Inspected, inspect_line, inspect_step
from orchestrator.parts import Orchestrator
from orchestrator.request_arguments import whole_number_in
from saga.errors import SagaUnreadable
from saga.saga_row import SagaRow
from saga.unreadable import Unreadable
from saga.views.phrasing import Phrases

MOST = 999_999_999  # the number of a line

blueprint = Blueprint("inspector_page", __name__)


@blueprint.get("/ui/sagas/<saga_id>/steps/<name>")
def show_step(orchestrator: Orchestrator, saga_id: str, name: str) -> Response | str:
    """Show the inspector at a step."""
    return _part(orchestrator, saga_id, {"step": name}, lambda row: inspect_step(orchestrator, row, name))


@blueprint.get("/ui/sagas/<saga_id>/attempts/<int:seq>")
def show_line(orchestrator: Orchestrator, saga_id: str, seq: int) -> Response | str:
    """Show the inspector at a line of the log, which may be an attempt."""
    return _part(orchestrator, saga_id, {"seq": str(seq)}, lambda row: inspect_line(orchestrator, row, seq))


@blueprint.get("/ui/sagas/<saga_id>/log")
def show_log(orchestrator: Orchestrator, saga_id: str) -> Response | str:
    """Show a page of the log."""
    if not _asked_by_script():
        return redirect(f"/ui/sagas/{saga_id}?{urlencode(request.args)}#log")
    row = _readable(orchestrator, saga_id)
    page = asked_log_page(orchestrator, row)
    return render_template("log_part.html", saga_id=saga_id, log=page, row=row, say=Phrases(row.definition.mode))


def asked_log_page(orchestrator: Orchestrator, row: SagaRow) -> LogPage:
    """Return the page of the log that the request asks for: `of` a step, `before` a line."""
    before = whole_number_in("before", 0, 0, MOST) or None
    return read_log_page(orchestrator.lines, row, request.args.get("of", ""), before)


def asked_inspection(orchestrator: Orchestrator, row: SagaRow) -> Inspected | None:
    """Return what the request asks the inspector to show: `step` or `seq`; None where it asks for neither."""
    if "seq" in request.args:
        return inspect_line(orchestrator, row, whole_number_in("seq", 0, 0, MOST))
    return inspect_step(orchestrator, row, request.args["step"]) if request.args.get("step") else None


def _part(
    orchestrator: Orchestrator, saga_id: str, asked: dict[str, str], inspect: Callable[[SagaRow], Inspected]
) -> Response | str:
    if not _asked_by_script():
        return redirect(f"/ui/sagas/{saga_id}?{urlencode(asked)}#inspector")
    row = _readable(orchestrator, saga_id)
    return render_template("inspector_part.html", saga_id=saga_id, inspected=inspect(row), row=row)


def _asked_by_script() -> bool:
    return "HX-Request" in request.headers


def _readable(orchestrator: Orchestrator, saga_id: str) -> SagaRow:
    found = orchestrator.starter.read(saga_id)
    if isinstance(found, Unreadable):
        raise SagaUnreadable(f"the saga {saga_id} cannot be read: {found.reason}")
    return found
