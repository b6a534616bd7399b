"""The page of the isolation laboratory: switches, counts over all orders of the calls, the code, and one order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flask import Blueprint, render_template, request

from orchestrator.dashboard.countermeasures import COUNTED, COUNTERMEASURES, WORLDS
from orchestrator.parts import Orchestrator
from saga.errors import BadInput, FaultsOff

if TYPE_CHECKING:
    from orchestrator.isolation.report import Report

RUN = ("run", "compare", "world", "show")  # any of these, or a switch, in the address runs the laboratory

blueprint = Blueprint("isolation_page", __name__)


@blueprint.get("/ui/isolation")
def show_isolation(orchestrator: Orchestrator) -> str:
    """Show the laboratory, and what the address asks it to run. Raises FaultsOff, and BadInput for a wrong query."""
    if not orchestrator.settings.faults:
        raise FaultsOff
    chosen = {name: _one_of(name, ("off", "on")) == "on" for name in COUNTERMEASURES}
    page: dict[str, Any] = {"chosen": chosen, "countermeasures": COUNTERMEASURES, "worlds": WORLDS, "counted": COUNTED}
    if any(chosen.values()) or any(name in request.args for name in RUN):
        page |= _run(chosen)
    return render_template("isolation.html", **page)


def _run(chosen: Mapping[str, bool]) -> dict[str, Any]:
    """What the page shows of a run: a column for each setting of the switches, their code, and one order."""
    # Imported here and not above: who does not press the button does not load the laboratory.
    from orchestrator.dashboard.isolation_view import code_of, column, opened
    from orchestrator.isolation.purchase import Switches
    from orchestrator.isolation.report import report_of

    on = Switches(**chosen)
    settings = [Switches()]
    if _one_of("compare", ("", "all")):
        settings += [Switches(**{name: True}) for name in COUNTERMEASURES]
    settings += [on] if on not in settings else []
    reports: list[Report] = [report_of(each) for each in settings]
    world, show = _one_of("world", ("", *WORLDS)), _one_of("show", ("", *COUNTED))
    return {
        "columns": [column(report) for report in reports],
        "steps": code_of(on),
        "opened": opened(report_of(on), world, show, _number()) if world and show else None,
        "orders": sum(len(tally.orders) for report in reports for tally in report.tallies.values()),
        "seconds": sum(report.seconds for report in reports),
    }


def _one_of(name: str, known: tuple[str, ...]) -> str:
    """Return an argument of the address, the first of the `known` where it is missing. Raises BadInput for another."""
    value = request.args.get(name) or known[0]
    if value not in known:
        raise BadInput(f"{name} must be {' or '.join(filter(None, known))}, not {value!r}", name)
    return value


def _number() -> int:
    """Return which of the orders is shown, from 1 on. Raises BadInput where it is no number."""
    value = request.args.get("n", "1")
    if not (value.isascii() and value.isdecimal() and 1 <= len(value) <= 3 and int(value)):
        raise BadInput(f"n must be a number from 1 on, not {value!r}", "n")
    return int(value)
