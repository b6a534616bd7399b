"""The page "Break it": scenario cards, and a form with any fault; it starts a saga in one mode, or in both."""

from __future__ import annotations

from urllib.parse import urlencode

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from orchestrator.dashboard.break_it_form import INPUT, MEANINGS, body_in, flags_in, prefilled, started_by
from orchestrator.dashboard.prediction import findings_for
from orchestrator.dashboard.saga_view import find_view
from orchestrator.dashboard.scenarios import SCENARIOS
from orchestrator.parts import Orchestrator
from orchestrator.status_codes import status_code_of
from saga.definition import CHOREOGRAPHY, ORCHESTRATION, SagaDefinition
from saga.errors import BadInput, SagaError
from saga.faults.flags import FaultKind

MODES = (ORCHESTRATION, CHOREOGRAPHY)

blueprint = Blueprint("break_it_page", __name__)


@blueprint.get("/ui/break-it")
@blueprint.post("/ui/break-it")  # to see what the form would send, without starting anything
def show_form(orchestrator: Orchestrator) -> str:
    """Show the cards, and the form of all faults as its reader has filled it in."""
    return render_form(orchestrator)


@blueprint.get("/break-it")
@blueprint.get("/ui/lab")  # its former address
def lead_to_form(orchestrator: Orchestrator) -> Response:
    """Lead from the short address of the page, and from its former one, to the page itself."""
    return redirect("/ui/break-it" + (f"?{urlencode(list(request.args.items(multi=True)))}" if request.args else ""))


@blueprint.get("/ui/start")
@blueprint.get("/ui/both")
@blueprint.get("/ui/compare")
def show_form_after_refusal(orchestrator: Orchestrator) -> Response:
    """Lead from the address of a form, which a browser keeps when it was refused, back to the page."""
    return redirect("/ui/break-it")


@blueprint.post("/ui/start")
def start(orchestrator: Orchestrator) -> Response | tuple[str, int]:
    """Start a saga from a form, and show its page."""
    try:
        definition, body = started_by(orchestrator, request.form)
        orchestrator.check_start(definition)
        saga_id = orchestrator.starter.start(definition, body)
    except SagaError as error:
        return render_form(orchestrator, str(error)), status_code_of(error)
    asked = {name: value for name, value in request.form.items() if name.startswith(("scenario", "predict-"))}
    return redirect(f"/ui/sagas/{saga_id}" + (f"?{urlencode(asked)}" if asked else ""), 303)


@blueprint.post("/ui/both")
def start_in_both_modes(orchestrator: Orchestrator) -> Response | tuple[str, int]:
    """Start the same saga twice, orchestrated and choreographed, and show both side by side."""
    try:
        started = [started_by(orchestrator, request.form, mode) for mode in MODES]
        for definition, _ in started:  # before either is started
            orchestrator.check_start(definition)
        saga_ids = [orchestrator.starter.start(definition, body) for definition, body in started]
    except SagaError as error:
        return render_form(orchestrator, str(error)), status_code_of(error)
    asked = {name: value for name, value in request.form.items() if name == "scenario"}
    return redirect(f"/ui/both/{'/'.join(saga_ids)}" + (f"?{urlencode(asked)}" if asked else ""), 303)


@blueprint.get("/ui/both/<saga_id>/<other_id>")
def show_both_modes(orchestrator: Orchestrator, saga_id: str, other_id: str) -> str:
    """Show two sagas side by side."""
    views = [find_view(orchestrator, each) for each in (saga_id, other_id)]
    return render_template(
        "both.html", sides=[{**view, "findings": findings_for(request.args, view)[0]} for view in views]
    )


def render_form(orchestrator: Orchestrator, problem: str | None = None) -> str:
    """The page; `problem` is why what its reader has sent was refused."""
    asked = request.values
    definition = orchestrator.definition_or_first(asked.get("saga") if problem is None else None)
    mode = asked.get("mode", SagaDefinition.mode)
    if problem is None and mode not in MODES:
        orchestrator.mode(mode)  # which refuses it
    try:
        flags, body = flags_in(asked, definition), body_in(asked, definition)
    except BadInput as error:
        flags, body, problem = [], {}, problem or str(error)
    if mode in MODES and mode != SagaDefinition.mode:
        flags.insert(0, ("mode", mode))
    return render_template(
        "break_it.html",
        scenarios=SCENARIOS if definition.name == "signup" else (),
        definition=definition,
        kinds=list(FaultKind),
        meanings=MEANINGS,
        faults=orchestrator.settings.faults,
        flags=flags,
        body=body or prefilled(definition),
        chosen=asked,
        problem=problem,
        input=INPUT,
    )
