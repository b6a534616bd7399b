"""Choreography: sagas in which nobody calls the services; they react to each other's events through a message broker.

Read `events.py` first (who publishes what, and who listens to it), then `listener.py` (what a service does about an
event) and `observer.py` (how the orchestrator writes the saga log from what it hears). `broker.py` says what a broker
has to do; `jetstream/` does it with NATS JetStream, and `memory_broker.py` in one process. Only `jetstream/` needs the
extra `[nats]`.
"""

from __future__ import annotations

from importlib.util import find_spec

from saga.errors import SettingsError


def require_nats() -> None:
    """Raise SettingsError, which says what to install, where the NATS client is not installed."""
    if find_spec("nats") is None:
        message = (
            "NATS_URL needs the NATS client: pip install 'saga-stack[nats]', or switch choreography off: NATS_URL=off"
        )
        raise SettingsError(message, "NATS_URL")
