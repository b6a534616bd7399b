"""The page of the services, the saga log, the broker, and the invariant "all or nothing"."""

from __future__ import annotations

from flask import Blueprint, render_template

from orchestrator.parts import Orchestrator

blueprint = Blueprint("health_page", __name__)


@blueprint.get("/ui/health")
def show_health(orchestrator: Orchestrator) -> str:
    """Show what the health monitor found last."""
    return render_template("health.html")
