"""The page of the services, the saga log, the broker, the invariant "all or nothing", and how the sagas go."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from flask import Blueprint, render_template

from orchestrator.dashboard.rates import SAMPLE, WITHIN, Rates, rates
from orchestrator.parts import Orchestrator
from saga.errors import LogUnavailable
from saga.storage import filter_sql
from saga.views.backlog import Backlog, backlog
from saga.views.saga_filter import MARGIN, id_at

COUNTED = 1000  # sagas that wait: beyond it, "1000+"
FRESH = 2.0  # seconds for which what was measured is shown to all readers

blueprint = Blueprint("health_page", __name__)


@dataclass(frozen=True)
class Measure:
    """What was read of the log last: how the sagas go that started lately, and what waits for somebody."""

    rates: Rates
    waiting: Backlog


class Measures:
    """Measures at most every FRESH seconds, however many readers there are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._measured: Measure | None = None
        self._until = float("-inf")

    def latest(self, orchestrator: Orchestrator) -> Measure | None:
        """Return what was measured last; None where the log does not answer."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._measured = _measure(orchestrator)
                self._until = time.monotonic() + FRESH
            return self._measured


@blueprint.get("/ui/health")
def show_health(orchestrator: Orchestrator, measures: Measures) -> str:
    """Show what the health monitor found last, and what was measured."""
    return render_template("health.html", measure=measures.latest(orchestrator), counted=COUNTED)


@blueprint.get("/ui/signs")
def show_signs(orchestrator: Orchestrator, measures: Measures) -> str:
    """Show only the lights of the head, for an open page that looks again."""
    return render_template("signs_only.html")


def _measure(orchestrator: Orchestrator) -> Measure | None:
    now = orchestrator.starter.deps.clock()
    values = {"lowest_id": id_at(now - WITHIN - MARGIN), "most": SAMPLE}
    try:
        spans = orchestrator.log.database.select(filter_sql.LATEST_SPANS, values)
        return Measure(rates(spans, now), backlog(orchestrator.log, now, COUNTED + 1))
    except LogUnavailable:
        return None
