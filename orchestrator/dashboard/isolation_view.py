"""What the page of the isolation laboratory shows of a run. It is loaded when the laboratory is."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

from orchestrator.dashboard.countermeasures import COUNTERMEASURES
from orchestrator.isolation.history import Turn
from orchestrator.isolation.laboratory import AMOUNTS, OPENING_BALANCE
from orchestrator.isolation.purchase import PurchaseStep, Switches, steps_of
from orchestrator.isolation.report import Count, Order, Report, Tally, World
from saga.errors import BadInput
from saga.machine import ENDED, Direction, State


@dataclass(frozen=True)
class Code:
    """The source of one function that ran; `changed` says that a switch has put it there."""

    source: str
    changed: bool


@dataclass(frozen=True)
class StepShown:
    """One step with its code; `moved` says that it comes at another place than without countermeasures."""

    name: str
    pivot: bool
    moved: bool
    action: tuple[Code, ...]
    compensation: tuple[Code, ...]


def column(report: Report) -> dict[str, Any]:
    """Return one column of the table of counts: its heading, the address's switches, and the numbers by world."""
    on = {name: "on" for name, is_on in vars(report.on).items() if is_on}
    return {
        "title": " + ".join(COUNTERMEASURES[name].title for name in on) or "Without",
        "on": on,
        "worlds": {str(world): _by_name(tally) for world, tally in report.tallies.items()},
        "is_stuck": any(tally.counts[Count.STUCK] for tally in report.tallies.values()),
        "orders": {str(world): len(tally.orders) for world, tally in report.tallies.items()},
    }


def code_of(on: Switches) -> list[StepShown]:
    """Return the steps as they ran, each with the source of its functions."""
    without = steps_of(Switches())
    known = {source for step in without for source in _sources(step.action, step.compensation)}
    places = {step.name: place for place, step in enumerate(without)}
    return [_shown(step, known, moved=places.get(step.name, place) != place) for place, step in enumerate(steps_of(on))]


def opened(report: Report, world: str, show: str, number: int) -> dict[str, Any]:
    """Return one order of the calls, turn by turn: the one with this number, from 1 on, of those that have `show`.

    Raises BadInput where there are not so many.
    """
    found = report.tallies[World(world)].with_(Count(show))
    if number > len(found):
        how_many = f"are {len(found)} such orders" if found else "is no such order"
        raise BadInput(f"n: there {how_many} of the calls", "n")
    order = found[number - 1]
    history = order.history
    return {
        "world": world,
        "show": show,
        "number": number,
        "of": len(found),
        "turns": list(_turns(order)),
        "ends": {name: _public(state) for name, state in history.ends.items()},
        "amounts": AMOUNTS,
        "opening": OPENING_BALANCE,
        "closing": history.closing,
        "missed": history.balance_missed(OPENING_BALANCE),
    }


def _by_name(tally: Tally) -> dict[str, int]:
    return {str(count): number for count, number in tally.counts.items()}


def _turns(order: Order) -> Iterator[Mapping[str, Any]]:
    for number, turn in enumerate(order.history.turns):
        yield {
            "saga": turn.saga,
            "step": turn.step if turn.direction is Direction.ACTION else f"undo {turn.step}",
            "did": _said(turn),
            "balance": turn.balance,
            "refused": turn.refusal is not None,
            "findings": [(str(each.anomaly), each.text) for each in order.findings if each.turn == number],
        }


def _said(turn: Turn) -> str:
    """What a call did, in words."""
    if turn.refusal is not None:
        return f"is refused: {turn.refusal}"
    did = [f"writes {each.left}" if each.wrote else f"reads {each.found}" for each in turn.accesses]
    return " and ".join(did) or "takes the mark off"


def _public(state: State) -> str:
    return state.upper() if state in ENDED else "STALLED"


def _shown(step: PurchaseStep, known: set[str], moved: bool) -> StepShown:
    def codes(function: Callable[..., Any] | None) -> tuple[Code, ...]:
        return tuple(Code(source, source not in known) for source in _sources(function))

    return StepShown(step.name, step.pivot, moved, codes(step.action), codes(step.compensation))


def _sources(*functions: Callable[..., Any] | None) -> Iterator[str]:
    """Yield the source of these functions, and of the functions that they are wrapped around."""
    for function in functions:
        if function is not None:
            yield dedent(inspect.getsource(function)).rstrip()
            cells = [cell.cell_contents for cell in function.__closure__ or ()]
            yield from _sources(*(each for each in cells if callable(each)))
