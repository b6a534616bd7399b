"""The page "Break it": cards, and a form with any fault; it starts a saga in one mode, or in both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from flask import Blueprint, make_response, redirect, render_template, request
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from orchestrator.dashboard.break_it_form import (
    CRASHES,
    INPUT,
    MEANINGS,
    Flags,
    Form,
    body_in,
    endless_delays,
    flags_in,
    form_of,
    prefilled,
    started_by,
    with_flags,
)
from orchestrator.dashboard.curl import flags_of
from orchestrator.dashboard.lessons import LESSONS, Lesson, find_lesson
from orchestrator.dashboard.prediction import asked_of, judge, predict
from orchestrator.dashboard.saga_view import find_view
from orchestrator.dashboard.scenario_cards import GROUPS
from orchestrator.dashboard.scenarios import scenarios_for
from orchestrator.parts import Orchestrator
from orchestrator.status_codes import status_code_of
from saga.definition import CHOREOGRAPHY, MODES, ORCHESTRATION, SagaDefinition
from saga.errors import BadInput, SagaError, SagaUnreadable
from saga.faults.flags import FaultKind
from saga.unreadable import Unreadable

BOTH = "both"
PREDICT = "Predict, run, explain"  # heads the cards of a lesson
REMEMBERED = {"mode": (ORCHESTRATION, CHOREOGRAPHY, BOTH), "predict": ("off", "on")}  # the default first
_FLAGS_OF_MODE: dict[str, Flags] = {CHOREOGRAPHY: [("mode", CHOREOGRAPHY)]}
YEAR = 365 * 24 * 3600  # seconds for which a browser remembers them
CARRIED = ("scenario", "lesson", "predict-")  # beginnings of the fields that go on to the page of the saga

blueprint = Blueprint("break_it_page", __name__)


@blueprint.get("/ui/break-it")
@blueprint.post("/ui/break-it")  # to see what the form would send, without starting anything
def show_form(orchestrator: Orchestrator) -> Response:
    """Show the cards, and the form of all faults as its reader has filled it in; remember what the switches say."""
    response = make_response(render_form(orchestrator))
    for name, known in REMEMBERED.items():
        if request.args.get(name) in known:
            response.set_cookie(
                _cookie(name), request.args[name], max_age=YEAR, path="/ui", httponly=True, samesite="Lax"
            )
    return response


@blueprint.get("/break-it")
@blueprint.get("/ui/lab")  # its former address
def lead_to_form(orchestrator: Orchestrator) -> Response:
    """Lead from the short address of the page, and from its former one, to the page itself."""
    return redirect("/ui/break-it" + (f"?{urlencode(list(request.args.items(multi=True)))}" if request.args else ""))


@blueprint.get("/ui/start")
@blueprint.get("/ui/both")
@blueprint.get("/ui/compare")
@blueprint.get("/ui/again/<saga_id>")
def show_form_after_refusal(orchestrator: Orchestrator, saga_id: str | None = None) -> Response:
    """Lead from the address of a form, which a browser keeps when it was refused, back to the page."""
    return redirect("/ui/break-it")


@blueprint.post("/ui/start")
def start(orchestrator: Orchestrator) -> Response | tuple[str, int]:
    """Start a saga from a form, and show its page; in both modes where the form says so."""
    if request.form.get("mode") == BOTH:
        return start_in_both_modes(orchestrator)
    try:
        definition, body = started_by(orchestrator, request.form)
        _check_prediction(definition)
        orchestrator.check_start(definition)
        saga_id = orchestrator.starter.start(definition, body)
    except SagaError as error:
        return render_form(orchestrator, str(error)), status_code_of(error)
    return redirect(f"/ui/sagas/{saga_id}{carried()}", 303)


@blueprint.post("/ui/both")
def start_in_both_modes(orchestrator: Orchestrator) -> Response | tuple[str, int]:
    """Start the same saga twice, orchestrated and choreographed, and show both side by side."""
    try:
        started = [started_by(orchestrator, request.form, mode) for mode in MODES]
        for definition, _ in started:  # before either is started
            _check_prediction(definition)
            orchestrator.check_start(definition)
        saga_ids = [orchestrator.starter.start(definition, body) for definition, body in started]
    except SagaError as error:
        return render_form(orchestrator, str(error)), status_code_of(error)
    return redirect(f"/ui/both/{'/'.join(saga_ids)}{carried()}", 303)


@blueprint.get("/ui/both/<saga_id>/<other_id>")
def show_both_modes(orchestrator: Orchestrator, saga_id: str, other_id: str) -> str:
    """Show two sagas side by side."""
    views = [find_view(orchestrator, each) for each in (saga_id, other_id)]
    return render_template(
        "both.html", sides=[{**view, **lesson_of(orchestrator, request.args, view)} for view in views]
    )


@blueprint.post("/ui/again/<saga_id>")
def start_again(orchestrator: Orchestrator, saga_id: str) -> Response:
    """Start another saga with the input, the mode and the faults of this one, and show its page.

    Raises FaultsOff where FAULTS is off: there a saga is no exercise, and starting it again is the business's affair.
    """
    row = orchestrator.starter.read(saga_id)
    if isinstance(row, Unreadable):
        raise SagaUnreadable(f"the saga {saga_id} cannot be read: {row.reason}")
    definition = with_flags(orchestrator, row.definition.name, row.definition.mode, _faults_of(row.definition))
    orchestrator.check_start(definition)
    return redirect(f"/ui/sagas/{orchestrator.starter.start(definition, row.input)}{carried()}", 303)


def lesson_of(orchestrator: Orchestrator, arguments: Mapping[str, str], view: Mapping[str, Any]) -> dict[str, Any]:
    """What the page of a saga shows of the card, the prediction and the lesson that its address names."""
    try:
        lesson = find_lesson(arguments.get("lesson"))
    except BadInput:
        lesson = None  # somebody has typed the address by hand
    known, faults = view["saga"]["saga"] in orchestrator.definitions, orchestrator.settings.faults
    following = next((each for each in LESSONS if lesson and each.number == lesson.number + 1), None)
    return {
        "judgement": judge(arguments, view),
        "lesson": lesson,
        "following": following,
        "lessons": LESSONS,
        "may_run_again": known and faults,
    }


def carried() -> str:
    """The query with which what a form says of a card, a prediction and a lesson goes on to the next page."""
    asked = {name: value for name, value in request.values.items() if value and name.startswith(CARRIED)}
    return f"?{urlencode(asked)}" if asked else ""


def carried_back() -> str:
    """The same for a command's form on a saga's page, whose address is the one that the browser comes from."""
    came_from = parse_qsl(urlsplit(request.referrer or "").query)
    asked = [(name, value) for name, value in came_from if name.startswith(CARRIED)]
    return f"?{urlencode(asked)}" if asked else ""


def render_form(orchestrator: Orchestrator, problem: str | None = None) -> str:
    """The page; `problem` is why what its reader has sent was refused."""
    asked = _edited(orchestrator) if problem is None and request.args.get("edit") else request.values
    definition = _definition(orchestrator, asked.get("saga"), problem)
    try:
        flags, body = flags_in(asked, definition), body_in(asked, definition)
    except BadInput as error:
        flags, body, problem = [], {}, problem or str(error)
    switches = _switches(orchestrator, asked, problem)
    lesson = find_lesson(asked.get("lesson")) if problem is None else _found(asked.get("lesson"))
    scenarios = scenarios_for(definition) if orchestrator.settings.faults else ()
    shown = [each for each in scenarios if lesson is None or each.slug in lesson.cards]
    groups = {name: [each for each in shown if each.group == group] for group, name in GROUPS.items()}
    if lesson:
        groups = {PREDICT: sorted(shown, key=lambda each: lesson.cards.index(each.slug))}
    with_mode = _FLAGS_OF_MODE.get(str(switches["mode"]), ())
    return render_template(
        "break_it.html",
        groups={name: cards for name, cards in groups.items() if cards},
        definition=definition,
        questions=asked_of(definition),
        kinds=list(FaultKind),
        meanings=MEANINGS,
        crashes=CRASHES,
        faults=orchestrator.settings.faults,
        flags=[*with_mode, *flags],
        mode_flags=[*with_mode],
        body=body or prefilled(definition),
        sent_by_cards=prefilled(definition),
        warnings=list(endless_delays(flags, definition)),
        chosen=asked,
        switches=switches,
        lesson=lesson,
        lessons=LESSONS,
        following=next((each for each in LESSONS if lesson and each.number == lesson.number + 1), None),
        problem=problem,
        problem_at=asked.get("scenario") or "own",
        unfolded=not scenarios or _is_filled(asked) or bool(problem and not asked.get("scenario")),
        input=INPUT,
    )


def _check_prediction(definition: SagaDefinition) -> None:
    """Raise BadInput where the form asks for a prediction that its reader has not made, or only in part."""
    if request.form.get("predicting") and predict(request.form, asked_of(definition)) is None:
        raise BadInput("predict first: say how it ends, and which rows there are", "predict-status")


def _definition(orchestrator: Orchestrator, name: str | None, problem: str | None) -> SagaDefinition:
    """The saga that is asked for; the first where that is what the problem is about."""
    known = problem is None or name in orchestrator.definitions
    return orchestrator.definition_or_first(name if known else None)


def _edited(orchestrator: Orchestrator) -> Form:
    """The form filled in with a saga that is to be run again with changes."""
    row = orchestrator.starter.read(request.args["edit"])
    if isinstance(row, Unreadable):
        raise SagaUnreadable(f"the saga {row.id} cannot be read: {row.reason}")
    form = form_of(row, _faults_of(row.definition))
    if row.definition.name not in orchestrator.definitions:
        form.pop("saga")
    return form


def _faults_of(definition: SagaDefinition) -> Flags:
    return [(name, value) for name, value in flags_of(definition) if name != "mode"]


def _switches(orchestrator: Orchestrator, asked: Form, problem: str | None) -> dict[str, str]:
    """What the page's two switches stand at: what is asked for, else what is remembered, else the default.

    A lesson asks for predictions, unless its address says otherwise. Raises BadInput for a mode that there is not.
    """
    mode = asked.get("mode")
    if problem is None and mode not in (None, BOTH):
        orchestrator.mode(mode)
    found = {"predict": "on"} if asked.get("lesson") and request.args.get("predict") != "off" else {}
    for name, known in REMEMBERED.items():
        values = (asked.get(name), request.cookies.get(_cookie(name)))
        found.setdefault(name, next((value for value in values if value in known), known[0]))
    if orchestrator.choreographer is None:
        found["mode"] = ORCHESTRATION
    return found


def _found(number: str | None) -> Lesson | None:
    try:
        return find_lesson(number)
    except BadInput:
        return None


def _is_filled(asked: MultiDict[str, str]) -> bool:
    """Whether the form of all faults has something in it that its reader has put there."""
    return any(value and name.startswith(("kind-", "delay-", "crash", "edit")) for name, value in asked.items())


def _cookie(name: str) -> str:
    return f"break_it_{name}"
