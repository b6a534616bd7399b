"""The page that runs the same saga with the same fault twice: here, and with a naive coordinator.

A naive run goes by the id of the saga beside it. What it did is asked of the services, so that the page outlives a
restart of the orchestrator; what it said does not, since a naive coordinator keeps no log.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import quote

from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from orchestrator.dashboard.break_it_form import started_by
from orchestrator.dashboard.break_it_page import carried, lesson_of, render_form
from orchestrator.dashboard.naive import (
    NaiveRun,
    contradiction,
    found_of,
    remembered_by_services,
    rows_by_step,
    run_naive,
    sweep,
)
from orchestrator.dashboard.naive_diagram import naive_diagram
from orchestrator.dashboard.saga_view import find_view
from orchestrator.parts import Orchestrator
from orchestrator.status_codes import status_code_of
from saga.definition import ORCHESTRATION
from saga.errors import Conflict, SagaError
from saga.payload import mask

RUNS_KEPT = 20  # runs, in memory: a naive coordinator has no log
RUNS_AT_ONCE = 4

blueprint = Blueprint("compare_page", __name__)


class NaiveRuns:
    """The latest runs of the naive coordinator, by their ids; None stands for one that is under way."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, NaiveRun | None] = OrderedDict()

    def check_room(self) -> None:
        """Raise Conflict where so many runs are under way that no other may be started."""
        if sum(run is None for run in self._runs.values()) >= RUNS_AT_ONCE:
            raise Conflict(f"{RUNS_AT_ONCE} naive runs are under way: wait for one to end")

    def start(self, run_id: str, run: Callable[[], NaiveRun]) -> None:
        """Run it on a thread of its own; the oldest of the runs gives way."""
        self._runs[run_id] = None
        while len(self._runs) > RUNS_KEPT:
            self._runs.popitem(last=False)

        def keep() -> None:
            self._runs[run_id] = run()

        threading.Thread(target=keep, name="naive", daemon=True).start()

    def is_under_way(self, run_id: str) -> bool:
        """Tell whether the run has been started here and has not ended."""
        return run_id in self._runs and self._runs[run_id] is None

    def get(self, run_id: str) -> NaiveRun | None:
        """The run, where it has ended and is kept."""
        return self._runs.get(run_id)


@blueprint.post("/ui/compare")
def start(orchestrator: Orchestrator, naive_runs: NaiveRuns) -> Response | tuple[str, int]:
    """Start the same saga here and with the naive coordinator, and show both side by side."""
    token, form = orchestrator.settings.token, request.form
    try:
        definition, body = started_by(orchestrator, form, ORCHESTRATION if form.get("mode") == "both" else None)
        naive_runs.check_room()
        orchestrator.check_start(definition)
        saga_id = orchestrator.starter.start(definition, body)
    except SagaError as error:
        return render_form(orchestrator, str(error)), status_code_of(error)
    transport = orchestrator.starter.deps.transport
    naive_runs.start(saga_id, lambda: run_naive(definition, body, saga_id, token, transport))
    return redirect(f"/ui/compare/{saga_id}{carried()}", 303)


@blueprint.get("/ui/compare/<saga_id>")
def show(orchestrator: Orchestrator, naive_runs: NaiveRuns, saga_id: str) -> str:
    """Show what each of the two says, and what the services have."""
    view = find_view(orchestrator, saga_id)
    definition = view["snapshot"]
    found = found_of(saga_id, definition, orchestrator.settings.token, orchestrator.starter.deps.transport)
    under_way, kept = naive_runs.is_under_way(saga_id), naive_runs.get(saga_id)
    run = kept or remembered_by_services(found, saga_id)
    rows = rows_by_step(found)
    return render_template(
        "compare.html",
        **view,
        **lesson_of(orchestrator, request.args, view),
        view=view,
        naive=run,
        under_way_there=under_way,
        forgotten=kept is None and not under_way,
        naive_rows=mask(rows, definition.secret),
        naive_drawing=naive_diagram([step.name for step in definition.steps], run, found) if run.calls else None,
        contradiction=contradiction(run, rows),
    )


@blueprint.post("/ui/compare/<saga_id>/sweep")
def sweep_up(orchestrator: Orchestrator, naive_runs: NaiveRuns, saga_id: str) -> Response:
    """Undo what a naive run has left behind, as somebody would have to by hand."""
    definition = find_view(orchestrator, saga_id)["snapshot"]
    sweep(saga_id, definition, orchestrator.settings.token, orchestrator.starter.deps.transport)
    return redirect(f"/ui/compare/{saga_id}{carried()}", 303)


@blueprint.get("/ui/compare/<saga_id>/sweep")
def show_after_sweep(orchestrator: Orchestrator, naive_runs: NaiveRuns, saga_id: str) -> Response:
    """Lead from the address of the sweep's form back to the run's page."""
    return redirect(f"/ui/compare/{quote(saga_id, safe='')}{carried()}")
