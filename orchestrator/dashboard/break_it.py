"""Where sagas are broken on purpose: scenarios, any fault you like, and a naive coordinator beside ours."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import uuid_utils
from flask import Flask, redirect, render_template, request
from werkzeug.wrappers import Response

from orchestrator.bootstrap import Orchestrator
from orchestrator.dashboard.naive import NaiveRun, orphans, run_naive, sweep, verdict
from orchestrator.dashboard.scenarios import SCENARIOS, Finding, check, compare, predict
from orchestrator.probe import sample
from orchestrator.status_codes import status_code_of
from saga.definition import CHOREOGRAPHY, ORCHESTRATION, SagaDefinition
from saga.errors import BadInput, Conflict, NoSuchSaga, SagaError
from saga.faults.flags import FaultKind, FaultPlan, parse_plan
from saga.payload import parse_object

NAIVE_RUNS = 20  # kept, in memory: a naive coordinator has no log
NAIVE_AT_ONCE = 4
INPUT = {"username": "ada", "address": "1 Main St", "payment": "4111-1111"}  # of the scenarios
MEANINGS = {
    FaultKind.BEFORE: "500 before its transaction",
    FaultKind.AFTER: "commits, then 500",
    FaultKind.REFUSE: "409, nothing done",
    FaultKind.LOST: "commits, and the answer is lost",
    FaultKind.LATE: "acts only after the time-out",
    FaultKind.GARBAGE: "commits, then answers no JSON",
    FaultKind.CRASH: "the process exits before its commit",
    FaultKind.CRASH_AFTER: "the process exits after its commit",
    FaultKind.UNDO: "its compensation answers 500",
}

_HERE = "the field"  # a JSON object's key, under which a form's field is read

View = dict[str, Any]
Flags = list[tuple[str, str]]


def register(app: Flask, parts: Orchestrator, saga_view: Callable[[str], View | None]) -> None:
    """Add the pages to the app; `saga_view` gives what is shown of a saga."""
    pages = _BreakIt(parts, saga_view)
    app.route("/ui/lab", methods=["GET", "POST"])(pages.form)  # POST: to see what a form would send
    app.post("/ui/start", endpoint="ui_start")(pages.start)
    app.post("/ui/both")(pages.start_in_both_modes)
    for path in ("start", "both", "compare"):  # what a browser asks for that was left there by an error
        app.get(f"/ui/{path}", endpoint=f"ui_{path}_form")(lambda: redirect("/ui/lab"))
    app.get("/ui/both/<saga_id>/<other_id>")(pages.both_modes)
    app.post("/ui/compare")(pages.start_both)
    app.get("/ui/compare/<run_id>")(pages.both)
    app.post("/ui/compare/<run_id>/sweep", endpoint="ui_sweep")(pages.sweep)
    app.get("/ui/compare/<run_id>/sweep", endpoint="ui_swept")(pages.swept)


def findings_for(arguments: Mapping[str, str], view: View) -> tuple[Sequence[Finding], Sequence[Finding]]:
    """What the scenario's card said, and what the reader predicted, against what came of it; empty before the end."""
    saga, rows = view["saga"], counted(view["rows"])
    scenario = next((each for each in SCENARIOS if each.slug == arguments.get("scenario")), None)
    try:
        prediction = predict(arguments, list(rows))
    except BadInput:
        prediction = None  # of an address that somebody has typed
    if saga["ended_at"] is None:
        return (), ()
    return (
        check(scenario, saga, rows) if scenario else (),
        compare(prediction, saga, rows) if prediction else (),
    )


def counted(rows: Mapping[str, Any]) -> dict[str, int | None]:
    """How many rows each participant says it has; None where it says nothing."""
    return {step: None if found is None else len(found["records"]) for step, found in rows.items()}


class _BreakIt:
    def __init__(self, parts: Orchestrator, saga_view: Callable[[str], View | None]):
        self.parts = parts
        self._view = saga_view
        self._naive: OrderedDict[str, NaiveRun | None] = OrderedDict()  # None: under way

    def form(self, problem: str | None = None) -> str:
        """Scenario cards, and the form of all faults."""
        definition = self.parts.definition_or_first(request.values.get("saga") if problem is None else None)
        if request.values.get("mode", ORCHESTRATION) not in (ORCHESTRATION, CHOREOGRAPHY) and not problem:
            self.parts.mode(request.values["mode"])
        try:
            flags, body = flags_in(request.values, definition), body_in(request.values, definition)
        except BadInput as error:
            flags, body, problem = [], {}, problem or str(error)
        if request.values.get("mode") == CHOREOGRAPHY:
            flags.insert(0, ("mode", CHOREOGRAPHY))
        return render_template(
            "break_it.html",
            scenarios=SCENARIOS if definition.name == "signup" else (),
            definition=definition,
            kinds=list(FaultKind),
            meanings=MEANINGS,
            faults=self.parts.settings.faults,
            flags=flags,
            body=body or prefilled(definition),
            chosen=request.values,
            problem=problem,
            input=INPUT,
        )

    def start(self) -> Response | tuple[str, int]:
        """Start a saga from a form; its page shows the rest."""
        try:
            saga_id = self._start(*self._asked_for())
        except SagaError as error:
            return self._refused(error)
        asked = {name: value for name, value in request.form.items() if name.startswith(("scenario", "predict-"))}
        return redirect(f"/ui/sagas/{saga_id}" + (f"?{urlencode(asked)}" if asked else ""), 303)

    def start_in_both_modes(self) -> Response | tuple[str, int]:
        """Start the same saga twice: orchestrated and choreographed."""
        try:
            _, body, plan = self._asked_for()
            plain = self.parts.definition(request.form.get("saga"))  # whichever mode the form has, on the engine set
            definitions = [plain.in_mode(self.parts.mode(mode)) for mode in (ORCHESTRATION, CHOREOGRAPHY)]
            self.parts.check_listeners(definitions[-1])  # before either is started
            saga_ids = [self._start(each, body, plan) for each in definitions]
        except SagaError as error:
            return self._refused(error)
        asked = {name: value for name, value in request.form.items() if name == "scenario"}
        return redirect(f"/ui/both/{'/'.join(saga_ids)}" + (f"?{urlencode(asked)}" if asked else ""), 303)

    def both_modes(self, saga_id: str, other_id: str) -> str:
        """Two sagas side by side."""
        views = [self._view(each) for each in (saga_id, other_id)]
        if None in views:
            raise NoSuchSaga("there is no such saga")
        sides = [{**view, "findings": findings_for(request.args, view)[0]} for view in views if view]
        return render_template("both.html", sides=sides)

    def start_both(self) -> Response | tuple[str, int]:
        """Start the same saga here and with the naive coordinator."""
        run_id = uuid_utils.uuid7().hex
        try:
            definition, body, plan = self._asked_for()
            if sum(run is None for run in self._naive.values()) >= NAIVE_AT_ONCE:
                raise Conflict(f"{NAIVE_AT_ONCE} naive runs are under way: wait for one to end")
            saga_id = self._start(definition, body, plan)
        except SagaError as error:
            return self._refused(error)
        self._naive[run_id] = None
        while len(self._naive) > NAIVE_RUNS:
            self._naive.popitem(last=False)

        def run() -> None:
            token, transport = self.parts.settings.token, self.parts.engine.deps.transport
            self._naive[run_id] = run_naive(definition, body, plan, run_id, token, transport)

        threading.Thread(target=run, name="naive", daemon=True).start()
        return redirect(f"/ui/compare/{run_id}?{urlencode({'saga': saga_id})}", 303)

    def both(self, run_id: str) -> str:
        """The same fault, naive and correct, side by side."""
        view = self._view(request.args.get("saga", ""))
        if view is None:
            raise NoSuchSaga("there is no such saga")
        naive = self._naive.get(run_id)
        definition = self.parts.definition(view["saga"]["saga"])
        token, transport = self.parts.settings.token, self.parts.engine.deps.transport
        left = orphans(naive, definition, token, transport) if naive else {}
        return render_template(
            "compare.html",
            view=view,
            saga=view["saga"],
            flags=view["flags"],
            run_id=run_id,
            naive=naive,
            forgotten=run_id not in self._naive,
            left=left,
            verdict=verdict(naive, left) if naive else None,
        )

    def sweep(self, run_id: str) -> Response:
        """Undo what a naive run has left behind, by hand as it were."""
        naive = self._naive.get(run_id)
        view = self._view(request.args.get("saga", ""))
        if naive is None or view is None:
            raise NoSuchSaga("there is no such run any more")
        token, transport = self.parts.settings.token, self.parts.engine.deps.transport
        sweep(naive, self.parts.definition(view["saga"]["saga"]), token, transport)
        return redirect(f"/ui/compare/{run_id}?{urlencode({'saga': view['saga']['saga_id']})}", 303)

    def swept(self, run_id: str) -> Response:
        """The address of the sweep's form: the run's page."""
        return redirect(f"/ui/compare/{quote(run_id, safe='')}?{urlencode({'saga': request.args.get('saga', '')})}")

    def _asked_for(self) -> tuple[SagaDefinition, dict[str, Any], FaultPlan]:
        definition = self.parts.definition(request.form.get("saga"))
        flags, body = flags_in(request.form, definition), body_in(request.form, definition)
        plan = parse_plan(
            [value for name, value in flags if name == "fail"],
            [value for name, value in flags if name == "delay"],
            [step.name for step in definition.steps],
            self.parts.settings.faults,
        )
        return definition.in_mode(self.parts.mode(request.form.get("mode"))), body, plan

    def _start(self, definition: SagaDefinition, body: Mapping[str, Any], plan: FaultPlan) -> str:
        self.parts.check_listeners(definition)
        return self.parts.engine.start(definition.with_faults(plan.queries(), plan.orchestrator), body)

    def _refused(self, error: SagaError) -> tuple[str, int]:
        return self.form(str(error)), status_code_of(error)


def sample_input(definition: SagaDefinition) -> dict[str, Any]:
    """An input that the saga takes: of each field that it requires a value, as far as its schema tells one."""
    required = (definition.input or {}).get("required", [])
    return {name: INPUT.get(name) or sample(definition, name) for name in required}


def prefilled(definition: SagaDefinition) -> dict[str, Any]:
    """What the form sends as it is first shown, and of what it leaves empty the fields that the saga requires."""
    shown = {name: INPUT[name] for name in (definition.input or {}).get("properties", {}) if name in INPUT}
    return shown | sample_input(definition)


def flags_in(form: Any, definition: SagaDefinition) -> Flags:
    """The flags of POST /start in a form: as they are, or as the form's fields for each step."""
    flags = [(name, value) for name in ("fail", "delay") for value in form.getlist(name) if value]
    for step in definition.steps:
        name = step.name.lower()
        kind, times = form.get(f"kind-{step.name}", ""), form.get(f"times-{step.name}", "").strip()
        delay = form.get(f"delay-{step.name}", "").strip()
        if kind:
            flags.append(("fail", f"{name}:{kind}" + (f":{times}" if times else "")))
        if delay and delay != "0":
            flags.append(("delay", f"{name}:{delay}"))
    if form.get("crash"):
        flags.append(("fail", f"orchestrator:{form['crash'].lower()}"))
    return flags


def body_in(form: Any, definition: SagaDefinition) -> dict[str, Any]:
    """The saga's input in a form; BadInput names the field that is no JSON where its schema wants no text."""
    body: dict[str, Any] = {}
    for name, schema in (definition.input or {}).get("properties", {}).items():
        text = form.get(name, "")
        if text and isinstance(schema, dict) and schema.get("type", "string") != "string":
            try:
                body[name] = parse_object(f'{{"{_HERE}":{text}}}', name)[_HERE]
            except BadInput as error:
                if "deeply" in str(error) or (error.field or "").startswith(_HERE):
                    raise BadInput(f"{name}{str(error).removeprefix(name).removeprefix(_HERE)}", name) from None
                raise BadInput(f"{name} must be {schema['type']}, not {text!r}", name) from None
        elif text:
            body[name] = text
    return body
