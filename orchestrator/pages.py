"""The pages: they render what the API says, and decide nothing."""

from __future__ import annotations

from flask import Flask, Response, redirect, render_template, request

from orchestrator.bootstrap import Orchestrator
from saga.errors import BadInput, SagaError
from saga.faults import Kind, parse_plan
from saga.machine import Line
from saga.representation import represent, represent_line

LATEST = 25  # sagas on the front page


def register(app: Flask, parts: Orchestrator) -> None:
    """Add the pages to the app."""

    @app.get("/")
    def index() -> str:
        """The start form, and the latest sagas."""
        return _index(parts)

    @app.post("/ui/start")
    def start_from_page() -> Response | tuple[str, int]:
        """What the form sends: starts the saga and shows its page."""
        try:
            definition = parts.definition(request.form.get("saga"))
            fail = [flag for flag in request.form.getlist("fail") if flag]
            plan = parse_plan(fail, [], [step.name for step in definition.steps], parts.settings.faults)
            names = (definition.input or {}).get("properties", {})
            body = {name: request.form[name] for name in names if request.form.get(name)}
            saga_id = parts.engine.start(definition.with_faults(plan.queries(), plan.orchestrator), body)
        except SagaError as error:
            return _index(parts, str(error)), 400 if isinstance(error, BadInput) else 503
        parts.engine.wait(saga_id, 1.0)  # most have ended by then
        return redirect(f"/ui/sagas/{saga_id}", 303)  # type: ignore[return-value]

    @app.get("/ui/sagas/<saga_id>")
    def saga_page(saga_id: str) -> tuple[str, int]:
        """One saga: its steps and its log."""
        record = parts.log.find(saga_id)
        if record is None:
            return render_template("missing.html", saga_id=saga_id), 404
        lines: list[Line] = parts.log.lines(saga_id)
        shown = [represent_line(line, record) for line in lines]
        return render_template("saga.html", saga=represent(record, lines), lines=shown), 200


def _index(parts: Orchestrator, error: str | None = None) -> str:
    records = parts.log.search(most=LATEST)
    lines = parts.log.lines_of(record.id for record in records)
    return render_template(
        "index.html",
        sagas=[represent(record, lines[record.id]) for record in records],
        definitions=parts.definitions,
        kinds=list(Kind),
        faults=parts.settings.faults,
        error=error,
    )
