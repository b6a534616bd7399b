"""What the head of every page shows: are the services and the log there, and does the invariant hold?

A page never waits for it: it shows what was found last, and has it found out again in the background when that is old.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import requests

from saga.audit import audit
from saga.bulkhead import service_of
from saga.definition import SagaDefinition
from saga.errors import BrokerUnavailable, LogUnavailable
from saga.log import SagaLog
from saga.machine import ENDED

logger = logging.getLogger("saga")

FRESH = 4.0  # seconds
TIMEOUT = 2.0  # seconds
AUDITED = 100  # of the sagas that ended last; those found right before are not asked about again


@dataclass(frozen=True)
class Service:
    """A service that sagas call; `problem` is what is wrong with it now, None where nothing is."""

    name: str
    url: str
    problem: str | None


@dataclass(frozen=True)
class Findings:
    """What was found last; `at` in seconds since the epoch."""

    at: float
    services: Sequence[Service]
    log_problem: str | None
    broker_problem: str | None
    dead_letters: int | None  # None: nobody could be asked, or there is no broker
    checked: int
    violations: Sequence[Mapping[str, Any]]
    unreachable: Sequence[Mapping[str, Any]]

    @property
    def invariant(self) -> str:
        """`broken`, `holds`, or `unknown` where nobody could be asked."""
        if self.violations:
            return "broken"
        return "unknown" if self.log_problem or (self.unreachable and not self.checked) else "holds"


class Watch:
    """Finds it out, at most every few seconds, and only while somebody looks."""

    def __init__(
        self,
        log: SagaLog,
        definitions: Iterable[SagaDefinition],
        token: str | None,
        clock: Callable[[], float],
        letters: Callable[[], int] | None = None,
    ):
        self._log = log
        self._token = token
        self._clock = clock
        self._letters = letters  # counts the dead letters; None: choreography is off
        steps = [step for definition in definitions for step in definition.steps]
        self._urls: dict[str, dict[str, None]] = {}  # the steps that a service serves, by its URL
        for step in steps:
            self._urls.setdefault(service_of(step.action), {})[step.name] = None
        self._found: Findings | None = None
        self._right: set[str] = set()  # sagas found all-or-nothing: that does not change
        self._wrong: set[str] = set()
        self._looking = threading.Lock()

    def look(self) -> Findings | None:
        """What was found last; None before the first time."""
        old = self._found is None or self._clock() - self._found.at > FRESH
        if old and self._looking.acquire(blocking=False):
            threading.Thread(target=self._look, name="watch", daemon=True).start()
        return self._found

    def _look(self) -> None:
        try:
            self._found = self._find_out()
        except Exception:
            logger.exception("event=watch_failed")
        finally:
            self._looking.release()

    def _find_out(self) -> Findings:
        with ThreadPoolExecutor(max(1, len(self._urls))) as pool:
            problems = pool.map(_problem, self._urls)
            services = [
                Service(", ".join(names), url, problem)
                for (url, names), problem in zip(self._urls.items(), problems, strict=True)
            ]
        broker_problem, letters = self._ask_broker()
        try:
            ended = {record.id: record for record in self._log.search(states=ENDED, most=AUDITED)}
            ended.update(self._log.find_many(self._wrong - ended.keys(), bare=True))  # until it is right, it is shown
        except LogUnavailable as error:
            return Findings(self._clock(), services, str(error), broker_problem, letters, 0, [], [])
        said = audit([record for saga_id, record in ended.items() if saga_id not in self._right], self._token)
        silent = {each["saga_id"] for each in said["unreachable"]}
        self._wrong = {each["saga_id"] for each in said["violations"]}
        self._right = ended.keys() - silent - self._wrong
        return Findings(
            self._clock(),
            services,
            None,
            broker_problem,
            letters,
            len(ended.keys() - silent),
            said["violations"],
            said["unreachable"],
        )

    def _ask_broker(self) -> tuple[str | None, int | None]:
        """What is wrong with it, and how many events are parked there."""
        try:
            return None, self._letters() if self._letters else None
        except BrokerUnavailable as error:
            return str(error), None


def _problem(url: str) -> str | None:
    try:
        answer = requests.get(f"{url}/readyz", timeout=TIMEOUT)
    except requests.Timeout:
        return f"no answer within {TIMEOUT:g} s"
    except requests.RequestException:
        return "not reachable"
    return "not ready" if answer.status_code == 503 else None  # it answers; not every service has a /readyz
