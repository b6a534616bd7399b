"""How many orders of the calls hold what, for one setting of the switches. Each setting is run once in a process."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from orchestrator.isolation.history import Anomaly, Finding, History, anomalies
from orchestrator.isolation.laboratory import OPENING_BALANCE, laboratory
from orchestrator.isolation.purchase import Switches
from saga.machine import State


class World(StrEnum):
    """How Ann's purchase goes; Ben's goods can always be sent."""

    SOLD_OUT = "sold-out"
    BOTH = "both"


class Count(StrEnum):
    """What is counted besides the anomalies, which come first in every table."""

    LOST = Anomaly.LOST
    DIRTY = Anomaly.DIRTY
    FUZZY = Anomaly.FUZZY
    # The balance at the end is not what the completed sagas have left of it.
    WRONG = "wrong"
    # A saga has turned back that would have completed if it had been alone.
    TURNED_AWAY = "turned-away"
    # A saga does not end: after its pivot it makes a call that is always refused.
    STUCK = "stuck"


@dataclass(frozen=True)
class Order:
    """One order of the calls, and what was found in it."""

    history: History
    findings: tuple[Finding, ...]
    counts: frozenset[Count]


@dataclass(frozen=True)
class Tally:
    """All orders of the calls in one world, sorted by whose turn it was."""

    orders: tuple[Order, ...]

    @cached_property
    def counts(self) -> Mapping[Count, int]:
        """In how many orders each of them occurs."""
        return {count: len(self.with_(count)) for count in Count}

    def with_(self, count: Count) -> tuple[Order, ...]:
        """Return the orders in which it occurs."""
        return tuple(order for order in self.orders if count in order.counts)


@dataclass(frozen=True)
class Report:
    """The tallies of both worlds for one setting of the switches, and the seconds that it took to run them."""

    on: Switches
    tallies: Mapping[World, Tally]
    seconds: float


_reports: dict[Switches, Report] = {}  # at most 16
_one_at_a_time = threading.Lock()


def report_of(on: Switches) -> Report:
    """Run every order of the calls with these countermeasures, or return the report of the time when they were run."""
    with _one_at_a_time:
        if on not in _reports:
            began = time.perf_counter()
            with laboratory(on) as opened:
                tallies = {
                    world: _tally(list(opened.histories(sold_out=world is World.SOLD_OUT)), world) for world in World
                }
            _reports[on] = Report(on, tallies, time.perf_counter() - began)
        return _reports[on]


def _tally(histories: list[History], world: World) -> Tally:
    return Tally(tuple(_order(history, world) for history in sorted(histories, key=lambda each: each.order)))


def _order(history: History, world: World) -> Order:
    findings = tuple(anomalies(history))
    counts = {Count(finding.anomaly) for finding in findings}
    meant_to_fail = {"Ann"} if world is World.SOLD_OUT else set()
    if any(state is State.COMPENSATED for name, state in history.ends.items() if name not in meant_to_fail):
        counts.add(Count.TURNED_AWAY)
    if history.stuck:
        counts.add(Count.STUCK)
    elif history.balance_missed(OPENING_BALANCE):
        counts.add(Count.WRONG)
    return Order(history, findings, frozenset(counts))
