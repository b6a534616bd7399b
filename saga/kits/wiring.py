"""This module puts together what a service runs behind its web framework: database, endpoints, and options."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from saga import barrier
from saga.barrier import Barrier
from saga.errors import FaultsOff
from saga.kits.metrics import Calls
from saga.local_transaction import NO_HOOKS, AttemptHooks, FindHooks, LocalTransactions
from saga.participant import Endpoints, ParticipantDefinition
from saga.process.settings import Settings
from saga.storage.database import connect, create_tables

if TYPE_CHECKING:
    from saga.choreography.wiring import MessageEndpoint

REQUEST_THREADS = 64  # requests served at once: an injected `lost` or `late` keeps one for 20 s


@dataclass(frozen=True)
class RunningParticipant:
    """One service as it runs in this process."""

    endpoints: Endpoints
    transactions: LocalTransactions
    calls: Calls
    # Set when the service stops: whatever waits then goes on.
    closed: threading.Event
    # Where choreographed sagas are known here: the service's connection to the broker.
    message_endpoint: MessageEndpoint | None

    def close(self) -> None:
        """Wait for nothing more, and listen to nothing more."""
        self.closed.set()
        if self.message_endpoint:
            self.message_endpoint.close()


def check_installed(name: str, settings: Settings) -> None:
    """Raise SettingsError where the service `name`, with these settings, needs a package that is not installed.

    A service that is a step of no saga needs no NATS client, even where NATS_URL is set.
    """
    if _choreography_is_configured(settings):
        from saga.choreography.wiring import check_listener

        check_listener(name, settings)


def run_participant(
    participant: ParticipantDefinition, settings: Settings, exit: Callable[[int], Any]
) -> RunningParticipant:
    """Make the service's tables, where it may, and connect it; `exit` ends the process for an injected crash."""
    engine = connect(settings.service_db_url(participant.name), pool_size=REQUEST_THREADS // 2, plain=settings.plain)
    create_tables(engine, participant.table.metadata)
    create_tables(engine, barrier.metadata)
    closed, calls = threading.Event(), Calls()
    find_hooks = _fault_injection(settings, exit, closed)
    transactions = LocalTransactions(
        Barrier(engine), participant.action, participant.compensation, find_hooks, calls.count
    )
    endpoints = Endpoints(participant, transactions, settings.token)
    message_endpoint = _listen(participant, settings, endpoints, transactions, closed)
    return RunningParticipant(endpoints, transactions, calls, closed, message_endpoint)


def _fault_injection(settings: Settings, exit: Callable[[int], Any], closed: threading.Event) -> FindHooks:
    if not settings.faults:
        return _refuse_flags
    # Imported here and not above: a service in production, where FAULTS=off, does not even load the code that fails.
    from saga.faults.injection import FaultInjector

    return FaultInjector(exit, closed, settings.fault_hold_seconds)


def _refuse_flags(flags: Sequence[tuple[str, str]], attempt: int) -> AttemptHooks:
    """Return no hooks: the FindHooks where failure injection is off.

    Raises FaultsOff for a call that asks for a failure.
    """
    if any(name in ("fail", "delay") for name, _ in flags):
        raise FaultsOff
    return NO_HOOKS


def _listen(
    participant: ParticipantDefinition,
    settings: Settings,
    endpoints: Endpoints,
    transactions: LocalTransactions,
    closed: threading.Event,
) -> MessageEndpoint | None:
    """Take part in choreographed sagas where a broker and the sagas' files are configured."""
    if not _choreography_is_configured(settings):
        return None
    # Imported here and not above: a service without a broker needs neither NATS's client nor what stands on it.
    from saga.choreography.wiring import attach_listener

    return attach_listener(participant, transactions, endpoints.schema, settings, closed)


def _choreography_is_configured(settings: Settings) -> bool:
    return settings.nats_url is not None and settings.sagas_dir.is_dir()
