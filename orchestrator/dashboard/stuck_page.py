"""Retry all that is stuck for one cause: first a dry run that lists the sagas, then those are retried and no others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flask import Blueprint, render_template, request

from orchestrator.dashboard.list_page import label_of
from orchestrator.parts import Orchestrator
from saga.errors import BadInput, SagaError
from saga.views.stuck import StuckSaga, StuckSagas

RETRIED_AT_ONCE = 100  # sagas that one confirmation retries

blueprint = Blueprint("stuck_page", __name__)


@dataclass(frozen=True)
class Retried:
    """What came of retrying one saga; `problem` says why it was left alone."""

    saga_id: str
    problem: str | None = None


@blueprint.get("/ui/stuck")
def show_dry_run(orchestrator: Orchestrator, stuck: StuckSagas) -> str:
    """List the sagas that are stuck for one cause, and that a confirmation would retry."""
    name, what = request.args.get("saga", ""), request.args.get("what", "")
    group = next((each for each in stuck.groups() if (each.saga, each.what) == (name, what)), None)
    permitted = orchestrator.operator.permitted_commands
    sagas = [each for each in group.sagas if "resume" in permitted(each.row)] if group else []
    return render_template(
        "stuck_dry_run.html",
        group=group,
        what=what,
        sagas=sagas[:RETRIED_AT_ONCE],
        all=len(sagas),
        labels=_labels(orchestrator, sagas),
    )


@blueprint.post("/ui/stuck")
def retry(orchestrator: Orchestrator, stuck: StuckSagas) -> str:
    """Retry the sagas that the form names; one that is not stuck at that call any more is left alone."""
    saga_ids, call = request.form.get("sagas", "").split(), request.form.get("call", "")
    if not saga_ids or len(saga_ids) > RETRIED_AT_ONCE:
        raise BadInput(f"sagas must name 1 to {RETRIED_AT_ONCE} sagas", "sagas")
    known = stuck.read(saga_ids)
    done = [_retried(orchestrator, saga_id, known.get(saga_id), call) for saga_id in dict.fromkeys(saga_ids)]
    return render_template("stuck_retried.html", done=done, call=call)


def _retried(orchestrator: Orchestrator, saga_id: str, stuck: StuckSaga | None, call: str) -> Retried:
    if stuck is None:
        return Retried(saga_id, "it is not stalled any more")
    if stuck.call != call:
        return Retried(saga_id, f"it is stuck at another call now: {stuck.call}")
    try:
        orchestrator.operator.resume(saga_id)
    except SagaError as error:
        return Retried(saga_id, str(error))
    return Retried(saga_id)


def _labels(orchestrator: Orchestrator, sagas: Sequence[StuckSaga]) -> dict[str, str]:
    rows = [each.row for each in sagas[:RETRIED_AT_ONCE]]
    inputs = orchestrator.search.inputs(rows)
    return {row.id: label_of(row, inputs.get(row.id))[1] for row in rows}
