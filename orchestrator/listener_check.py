"""The check, before a choreographed saga is started, that the broker knows a listener for each of its steps.

A service that was up once has a durable consumer with its step's name, and gets the events that it missed later. Where
there is no such consumer the saga would wait in vain: the service was never started, it has no NATS_URL, or its name
is not the step's.
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

ASKED_WITHIN = 2.0  # seconds that the broker has to answer; later it counts as away, and the saga is started
COMING_WITHIN = 3.0  # seconds that the first start of a saga waits for services that are just starting
LOOK_EVERY = 0.1  # seconds between two questions while it waits


class ListenerCheck:
    """The check; it remembers which subjects have a listener, so that most starts need not ask the broker."""

    def __init__(self, broker: Broker):
        self._broker = broker
        self._heard: frozenset[tuple[str, str]] = frozenset()  # (subject, step)
        self._waited_for: set[str] = set()  # the names of the sagas whose services were waited for in vain
        self._asking = threading.Lock()

    def check(self, definition: SagaDefinition) -> None:
        """Raise BadInput, naming the step and what to start, where a step certainly has no listener.

        Nothing is raised where the broker does not answer: the saga's events wait in the outbox.
        """
        needed = needed_subscriptions(definition)
        if self._heard >= needed.items():
            return
        # Where several sagas are started at the same time, one of the callers asks for all.
        with self._asking:
            self._ask(definition, needed)

    def _ask(self, definition: SagaDefinition, needed: Mapping[str, str]) -> None:
        until = time.monotonic() + (0.0 if definition.name in self._waited_for else COMING_WITHIN)
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
                time.sleep(LOOK_EVERY)


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
