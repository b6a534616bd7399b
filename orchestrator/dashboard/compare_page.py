"""The page that runs the same saga with the same fault twice: here, and with a naive coordinator."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from urllib.parse import quote, urlencode

import uuid_utils
from flask import Blueprint, redirect, render_template, request
from werkzeug.wrappers import Response

from orchestrator.dashboard.break_it_form import started_by
from orchestrator.dashboard.break_it_page import render_form
from orchestrator.dashboard.naive import NaiveRun, contradiction, orphans, run_naive, sweep
from orchestrator.dashboard.saga_view import find_view
from orchestrator.parts import Orchestrator
from orchestrator.status_codes import status_code_of
from saga.errors import Conflict, NoSuchSaga, SagaError

KEPT = 20  # runs, in memory: a naive coordinator has no log
AT_ONCE = 4

blueprint = Blueprint("compare_page", __name__)


class NaiveRuns:
    """The latest runs of the naive coordinator, by their ids; None stands for one that is under way."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, NaiveRun | None] = OrderedDict()

    def check_room(self) -> None:
        """Raise Conflict where so many runs are under way that no other may be started."""
        if sum(run is None for run in self._runs.values()) >= AT_ONCE:
            raise Conflict(f"{AT_ONCE} naive runs are under way: wait for one to end")

    def start(self, run_id: str, run: Callable[[], NaiveRun]) -> None:
        """Run it on a thread of its own; the oldest of the runs gives way."""
        self._runs[run_id] = None
        while len(self._runs) > KEPT:
            self._runs.popitem(last=False)

        def keep() -> None:
            self._runs[run_id] = run()

        threading.Thread(target=keep, name="naive", daemon=True).start()

    def knows(self, run_id: str) -> bool:
        """Tell whether the run is under way or kept."""
        return run_id in self._runs

    def get(self, run_id: str) -> NaiveRun | None:
        """The run, where it has ended and is kept."""
        return self._runs.get(run_id)


@blueprint.post("/ui/compare")
def start(orchestrator: Orchestrator, naive_runs: NaiveRuns) -> Response | tuple[str, int]:
    """Start the same saga here and with the naive coordinator, and show both side by side."""
    run_id, token = uuid_utils.uuid7().hex, orchestrator.settings.token
    try:
        definition, body = started_by(orchestrator, request.form)
        naive_runs.check_room()
        orchestrator.check_start(definition)
        saga_id = orchestrator.starter.start(definition, body)
    except SagaError as error:
        return render_form(orchestrator, str(error)), status_code_of(error)
    transport = orchestrator.starter.deps.transport
    naive_runs.start(run_id, lambda: run_naive(definition, body, run_id, token, transport))
    return redirect(_address(run_id, saga_id), 303)


@blueprint.get("/ui/compare/<run_id>")
def show(orchestrator: Orchestrator, naive_runs: NaiveRuns, run_id: str) -> str:
    """Show what each of the two says, and what the services have."""
    view = find_view(orchestrator, request.args.get("saga", ""))
    naive = naive_runs.get(run_id)
    definition = orchestrator.definition(view["saga"]["saga"])
    token, transport = orchestrator.settings.token, orchestrator.starter.deps.transport
    left = orphans(naive, definition, token, transport) if naive else {}
    return render_template(
        "compare.html",
        view=view,
        saga=view["saga"],
        flags=view["flags"],
        run_id=run_id,
        naive=naive,
        forgotten=not naive_runs.knows(run_id),
        left=left,
        contradiction=contradiction(naive, left) if naive else None,
    )


@blueprint.post("/ui/compare/<run_id>/sweep")
def sweep_up(orchestrator: Orchestrator, naive_runs: NaiveRuns, run_id: str) -> Response:
    """Undo what a naive run has left behind, as somebody would have to by hand."""
    naive, view = naive_runs.get(run_id), find_view(orchestrator, request.args.get("saga", ""))
    if naive is None:
        raise NoSuchSaga("there is no such run any more")
    token, transport = orchestrator.settings.token, orchestrator.starter.deps.transport
    sweep(naive, orchestrator.definition(view["saga"]["saga"]), token, transport)
    return redirect(_address(run_id, view["saga"]["saga_id"]), 303)


@blueprint.get("/ui/compare/<run_id>/sweep")
def show_after_sweep(orchestrator: Orchestrator, naive_runs: NaiveRuns, run_id: str) -> Response:
    """Lead from the address of the sweep's form back to the run's page."""
    return redirect(_address(quote(run_id, safe=""), request.args.get("saga", "")))


def _address(run_id: str, saga_id: str) -> str:
    return f"/ui/compare/{run_id}?{urlencode({'saga': saga_id})}"
