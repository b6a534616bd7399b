"""Whether somebody listens to each step of a choreographed saga: asked of the broker before one is started.

A service that was up once has a durable consumer, named after its step, and hears later what it missed. Where there is
none nobody will, unless it is started: the mode is wrong, the service has no NATS_URL, or its name is not the step's.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence

from saga.choreography.broker import Broker, ConsumerStatus
from saga.choreography.events import needed_subscriptions
from saga.choreography.namespace import covers
from saga.definition import SagaDefinition
from saga.errors import BadInput, BrokerUnavailable

ASKED_WITHIN = 2.0  # seconds: a broker that does not say so by then is away, and the saga waits in the outbox
COMING_WITHIN = 3.0  # seconds that the first start of a saga waits for services that are starting, too
LOOK = 0.1  # seconds


class Listeners:
    """Remembers what is listened to, so that one start after the other asks the broker nothing."""

    def __init__(self, broker: Broker):
        self._broker = broker
        self._heard: frozenset[tuple[str, str]] = frozenset()  # (subject, step)
        self._waited_for: set[str] = set()  # sagas
        self._asking = threading.Lock()

    def check(self, definition: SagaDefinition) -> None:
        """BadInput, naming the step and what to start, where a step certainly has no listener."""
        needed = needed_subscriptions(definition)
        if self._heard >= needed.items():
            return
        with self._asking:  # of those who start at the same time one asks
            self._ask(definition, needed)

    def _ask(self, definition: SagaDefinition, needed: Mapping[str, str]) -> None:
        patience = 0.0 if definition.name in self._waited_for else COMING_WITHIN
        until = time.monotonic() + patience
        while not self._heard >= needed.items():
            try:
                listening = self._broker.consumers(ASKED_WITHIN)
            except BrokerUnavailable:
                return
            self._heard |= {(subject, step) for subject, step in needed.items() if _hears(listening, step, subject)}
            if (missing := needed.items() - self._heard) and time.monotonic() >= until:
                self._waited_for.add(definition.name)
                first = next(step for subject, step in needed.items() if (subject, step) in missing)
                raise BadInput(_said(definition, first, listening), "mode")
            if missing:
                time.sleep(LOOK)


def _hears(listening: Sequence[ConsumerStatus], step: str, subject: str) -> bool:
    return any(each.durable == step and any(covers(one, subject) for one in each.subjects) for each in listening)


def _said(definition: SagaDefinition, step: str, listening: Sequence[ConsumerStatus]) -> str:
    names = sorted(each.durable for each in listening if not each.durable.startswith("orchestrator"))
    if step in names:
        problem = f"the service {step} listens to other events: start it again, with this saga's file in its SAGAS_DIR"
    else:
        problem = (
            f"start the service whose Participant is called {step!r}, as the step is, with this NATS_URL and with this "
            "saga's file in its SAGAS_DIR"
        )
    there = f"the services that listen are {', '.join(names)}" if names else "no service listens"
    return f"mode: nobody listens to step {step} of {definition.name}: {problem}; {there}"
