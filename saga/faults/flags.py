"""This module parses the flags of failure injection, `fail=` and `delay=`, and says what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from saga.errors import BadInput, FaultsOff

DELAY_MS_AT_MOST = 60_000  # milliseconds
CRASH_EXIT_CODE = 17  # of a process that an injected crash ends


class FaultKind(StrEnum):
    """What a service does wrong, on purpose."""

    BEFORE = "before"  # 500 before its local transaction
    AFTER = "after"  # commits, then 500
    REFUSE = "refuse"  # 409, nothing done
    LOST = "lost"  # commits, then holds the answer back past the time-out
    LATE = "late"  # waits past the time-out, then runs the action after all
    GARBAGE = "garbage"  # commits, then 200 with a body that is not JSON
    CRASH = "crash"  # the process exits before its commit
    CRASH_AFTER = "crash-after"  # the process exits after its commit
    UNDO = "undo"  # its compensation answers 500


class _FirstAttempts:
    """What is injected into the first `times` attempts of a call; None: into all of them."""

    times: int | None

    def strikes(self, attempt: int) -> bool:
        """Tell whether it happens in the attempt with this number (Saga-Attempt)."""
        return self.times is None or attempt <= self.times

    def _flag(self, what: object) -> str:
        """Return the value of the flag that asks for it: what is injected, and how often."""
        return str(what) if self.times is None else f"{what}:{self.times}"


@dataclass(frozen=True)
class Fault(_FirstAttempts):
    """One injected failure, in the first `times` attempts of a call; None: in all of them."""

    kind: FaultKind
    times: int | None = None

    def __str__(self) -> str:
        return self._flag(self.kind)


@dataclass(frozen=True)
class Delay(_FirstAttempts):
    """An injected wait before an attempt, in the first `times` attempts of a call; None: in all of them."""

    milliseconds: int
    times: int | None = None

    def __str__(self) -> str:
        return self._flag(self.milliseconds)


@dataclass(frozen=True)
class FaultPlan:
    """What is to go wrong in one saga, by step; `orchestrator` names the orchestrator's own crashes, as "before-B"."""

    services: Mapping[str, tuple[Fault, ...]] = field(default_factory=dict)
    delays: Mapping[str, tuple[Delay, ...]] = field(default_factory=dict)
    orchestrator: tuple[str, ...] = ()

    def queries(self) -> dict[tuple[str, str], list[tuple[str, str]]]:
        """Return the flags that the calls of each step carry in their query, by (step, "action" or "compensation")."""
        found: dict[tuple[str, str], list[tuple[str, str]]] = {}
        for step, faults in self.services.items():
            for fault in faults:
                call = "compensation" if fault.kind is FaultKind.UNDO else "action"
                found.setdefault((step, call), []).append(("fail", str(fault)))
        for step, delays in self.delays.items():
            for call in ("action", "compensation"):
                found.setdefault((step, call), []).extend(("delay", str(delay)) for delay in delays)
        return found


def parse_plan(fail: Sequence[str], delay: Sequence[str], steps: Sequence[str], enabled: bool) -> FaultPlan:
    """Return the plan in the flags of POST /start: `fail=<service>:<kind>[:<times>]`, `delay=<service>:<ms>[:<times>]`.

    Raises BadInput, naming the flag that is wrong, and FaultsOff where a flag is given and nothing is `enabled`.
    """
    if (fail or delay) and not enabled:
        raise FaultsOff
    services: dict[str, tuple[Fault, ...]] = {}
    own: list[str] = []
    for flag in fail:
        service, _, rest = flag.partition(":")
        if service.lower() == "orchestrator":
            own.append(_own_crash(flag, rest, steps))
        else:
            step = _step(flag, "fail", service, steps)
            services[step] = (*services.get(step, ()), parse_fault(rest or FaultKind.BEFORE, f"fail={flag}"))
    delays: dict[str, tuple[Delay, ...]] = {}
    for flag in delay:
        service, _, rest = flag.partition(":")
        step = _step(flag, "delay", service, steps)
        delays[step] = (*delays.get(step, ()), parse_delay(rest, f"delay={flag}"))
    return FaultPlan(services, delays, tuple(own))


def parse_fault(text: str, flag: str = "fail") -> Fault:
    """Return the fault in `<kind>[:<times>]`. Raises BadInput, which quotes `flag`, where it is wrong."""
    name, colon, times = text.partition(":")
    try:
        kind = FaultKind(name.lower())
    except ValueError:
        raise BadInput(f"{flag}: there is no kind {name!r}; the kinds are {', '.join(FaultKind)}", "fail") from None
    return Fault(kind, _times(times, flag, "fail") if colon else None)


def parse_delay(text: str, flag: str = "delay") -> Delay:
    """Return the delay in `<milliseconds>[:<times>]`, at most a minute. Raises BadInput, which quotes `flag`."""
    wait, colon, times = text.partition(":")
    if not (wait.isascii() and wait.isdigit() and len(wait) < 10 and int(wait) <= DELAY_MS_AT_MOST):
        raise BadInput(f"{flag}: {wait!r} is not a number of milliseconds, 0 to {DELAY_MS_AT_MOST}", "delay")
    return Delay(int(wait), _times(times, flag, "delay") if colon else None)


def total_delay(delays: Sequence[Delay], attempt: int) -> float:
    """Return for how many seconds the delays together hold up the attempt with this number."""
    return sum(delay.milliseconds for delay in delays if delay.strikes(attempt)) / 1000


def _times(text: str, flag: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) >= 1):
        raise BadInput(f"{flag}: {text!r} is not a number of times, 1 or more", name)
    return int(text)


def _step(flag: str, name: str, service: str, steps: Sequence[str]) -> str:
    for step in steps:
        if step.lower() == service.lower():
            return step
    raise BadInput(f"{name}={flag}: there is no service {service!r}; the services are {', '.join(steps)}", name)


def _own_crash(flag: str, point: str, steps: Sequence[str]) -> str:
    prefixes = ("before-undo-", "after-undo-", "before-", "after-")
    for prefix in prefixes:
        if point.lower().startswith(prefix):
            return prefix + _step(flag, "fail", point[len(prefix) :], steps)
    raise BadInput(f"fail={flag}: the orchestrator's kinds are {', '.join(p + '<step>' for p in prefixes)}", "fail")
