"""What the head of every page shows: are the services and the log there, and does the invariant hold?

A page does not wait for it: it shows what was found last, and has it found out again in the background when that is
old. Only after an operator's `resolve` does it wait, shortly, until the services have been asked about that saga.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urljoin

from saga.call import authorization
from saga.definition import SagaDefinition
from saga.errors import BrokerUnavailable, LogUnavailable
from saga.http_client.transport import Failure, Transport
from saga.machine import ENDED
from saga.runtime.bulkhead import service_of
from saga.saga_log import SagaLog
from saga.unreadable import Unreadable
from saga.views.audit import audit
from saga.views.saga_filter import SagaQuery
from saga.views.saga_search import SagaSearch

logger = logging.getLogger("saga")

FRESH = 2.0  # seconds
PROBE_TIMEOUT = 2.0  # seconds
RECHECK_WITHIN = 1.0  # seconds that a page waits to be told of what an operator has resolved
AUDITED = 100  # of the sagas that ended last; those found right before are not asked about again


@dataclass(frozen=True)
class Service:
    """A service that sagas call; `problem` is what is wrong with it now, None where nothing is."""

    name: str
    url: str
    problem: str | None
    since: float | None = None  # since when it has been so, as far as anybody has looked


@dataclass(frozen=True)
class HealthReport:
    """What was found last; `at` is in seconds since the epoch."""

    at: float
    services: Sequence[Service]
    log_problem: str | None
    broker_problem: str | None
    dead_letters: int | None  # None: nobody could be asked, or there is no broker
    checked: int
    violations: Sequence[Mapping[str, Any]]
    unreachable: Sequence[Mapping[str, Any]]
    log_since: float | None = None  # since when the log and the broker have been as they are
    broker_since: float | None = None

    @property
    def problems(self) -> list[str]:
        """What is wrong now, each in a few words; empty where all lights are green."""
        lights = [(each.name, each.problem) for each in self.services]
        lights += [("log", self.log_problem), ("broker", self.broker_problem)]
        broken = ["all or nothing is broken"] if self.invariant == "broken" else []
        return broken + [f"{name}: {problem}" for name, problem in lights if problem]

    @property
    def invariant(self) -> str:
        """`broken`, `holds`, or `unknown` where nobody could be asked."""
        if self.violations:
            return "broken"
        return "unknown" if self.log_problem or (self.unreachable and not self.checked) else "holds"


class HealthMonitor:
    """Asks the services, the log and the broker, at most every FRESH seconds, and only while somebody looks."""

    def __init__(
        self,
        log: SagaLog,
        search: SagaSearch,
        definitions: Iterable[SagaDefinition],
        transport: Transport,
        token: str | None,
        clock: Callable[[], float],
        letters: Callable[[], int] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ):
        self._log = log
        self._search = search
        self._transport = transport
        self._token = token
        self._clock = clock
        self._monotonic = monotonic
        self._looked_at = float("-inf")  # by the monotonic clock
        self._letters = letters  # counts the dead letters; None: choreography is off
        steps = [step for definition in definitions for step in definition.steps]
        self._names: dict[str, dict[str, None]] = {}  # the steps that a service serves, by the service's URL
        self._ready: dict[str, str] = {}  # where to ask whether it is ready, with the user that the step's URL names
        for step in steps:
            service = service_of(step.action)
            self._names.setdefault(service, {})[step.name] = None
            self._ready.setdefault(service, urljoin(step.action, "/readyz"))
        self._found: HealthReport | None = None
        self._right: set[str] = set()  # sagas found all-or-nothing: that does not change
        self._wrong: set[str] = set()
        self._changed: dict[str, tuple[str | None, float]] = {}  # by the light: what it shows, and since when
        self._to_recheck: set[str] = set()  # an operator has had the last word: asked about as soon as they have ended
        self._looking, self._settling = threading.Lock(), threading.Lock()

    def latest(self) -> HealthReport | None:
        """Return what was found last, None before the first look; where it is old, look again in the background."""
        old = self._found is None or self._monotonic() - self._looked_at > FRESH
        if old and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, name="health", daemon=True).start()
        if self._to_recheck and self._settling.acquire(blocking=False):
            settling = threading.Thread(target=self._settle, name="health-recheck", daemon=True)
            settling.start()
            settling.join(RECHECK_WITHIN)
        return self._found

    def recheck(self, saga_id: str) -> None:
        """Ask the services about this saga before the next look: an operator says that something was done by hand."""
        if len(self._to_recheck) < AUDITED:
            self._to_recheck.add(saga_id)

    def report(self, saga_id: str, violations: Sequence[Mapping[str, Any]]) -> None:
        """Show from now on, until it is put right, what somebody else has found to be wrong with a saga."""
        if not violations:
            return
        self._right.discard(saga_id)
        self._wrong.add(saga_id)
        if found := self._found:
            others = [each for each in found.violations if each["saga_id"] != saga_id]
            self._found = replace(found, violations=[*violations, *others])

    def _settle(self) -> None:
        try:
            records = self._log.find_many(set(self._to_recheck))
            ended = [row for row in records.values() if row.ended]
            said = audit(ended, self._transport, self._token)
            silent = {each["saga_id"] for each in said["unreachable"]}
            for row in ended:
                self.report(row.id, [each for each in said["violations"] if each["saga_id"] == row.id])
            self._to_recheck -= {row.id for row in ended} - silent
        except LogUnavailable:
            return  # the other look says so
        finally:
            self._settling.release()

    def _look(self) -> None:
        try:
            self._found = self._find_out()
            self._looked_at = self._monotonic()
        except Exception:
            logger.exception("event=watch_failed")
        finally:
            self._looking.release()

    def _find_out(self) -> HealthReport:
        with ThreadPoolExecutor(max(1, len(self._ready))) as pool:
            problems = pool.map(self._problem, self._ready.values())
            services = [
                Service(", ".join(names), url, problem, self._since(url, problem))
                for (url, names), problem in zip(self._names.items(), problems, strict=True)
            ]
        broker_problem, letters = self._ask_broker()
        broker_since = self._since("broker", broker_problem)
        try:
            ended = {row.id: row for row in self._search.find(SagaQuery(states=ENDED, most=AUDITED))}
            ended.update(self._log.find_many(self._wrong - ended.keys(), bare=True))  # until it is right, it is shown
        except LogUnavailable as error:
            since = self._since("log", str(error))
            return HealthReport(
                self._clock(), services, str(error), broker_problem, letters, 0, [], [], since, broker_since
            )
        asked = [row for saga_id, row in ended.items() if saga_id not in self._right]
        said = audit(asked, self._transport, self._token)
        silent = {each["saga_id"] for each in said["unreachable"]}
        wrong = {each["saga_id"] for each in said["violations"]}
        told = [each for each in (self._found.violations if self._found else ()) if each["saga_id"] not in ended]
        self._wrong = wrong | (self._wrong - ended.keys())
        unreadable = {saga_id for saga_id, saga in ended.items() if isinstance(saga, Unreadable)}
        self._right = ended.keys() - silent - wrong - unreadable
        return HealthReport(
            self._clock(),
            services,
            None,
            broker_problem,
            letters,
            len(ended.keys() - silent - unreadable),
            [*said["violations"], *told],  # also what was told while this look was under way
            said["unreachable"],
            self._since("log", None),
            broker_since,
        )

    def _since(self, light: str, problem: str | None) -> float:
        """Since when a light has shown what it shows now."""
        shown = self._changed.get(light)
        if shown is None or (shown[0] is None) != (problem is None):
            shown = self._changed[light] = (problem, self._clock())
        return shown[1]

    def _ask_broker(self) -> tuple[str | None, int | None]:
        """Return what is wrong with the broker, and how many events are parked there."""
        try:
            return None, self._letters() if self._letters else None
        except BrokerUnavailable as error:
            return str(error), None

    def _problem(self, url: str) -> str | None:
        """Return what is wrong with the service that says at `url` whether it is ready."""
        answer = self._transport.get(url, authorization(url, self._token), PROBE_TIMEOUT)
        if answer.failure is Failure.TIMED_OUT:
            return f"no answer within {PROBE_TIMEOUT:g} s"
        if answer.status is None:
            return "not reachable"
        return "not ready" if answer.status == 503 else None  # it answers; not every service has a /readyz
