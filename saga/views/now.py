"""What a saga does now, in a few words: the list of sagas and `saga list` say the same.

A stalled saga is stuck at a call, which need not be the one whose failure turned it back: "undo A: HTTP 500". What its
representation does not hold (its rounds, since when it makes its call, the status code of the last attempt) is read by
saga/views/calls.py. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from saga.definition import CHOREOGRAPHY, ORCHESTRATION
from saga.payload import iso

PARKED = "its event is parked"
_VERBS = {"refused": "refused", "timeout": "timed out", "failed": "failed"}


@dataclass(frozen=True)
class Now:
    """What a saga does now. Times are in ISO 8601, UTC."""

    what: str  # "undo A: HTTP 500", "B", "B refused: no stock"; empty where there is nothing to say
    why: str | None = None  # the service's own message, where it says more
    rounds: int = 0  # in how many the call has failed
    since: str | None = None  # when the call that is under way was first made
    until: str | None = None  # when the call is made again


@dataclass(frozen=True)
class CallNow:
    """What only its row and its log tell of the call that a saga makes now."""

    rounds: int = 0
    since: float | None = None
    status_code: int | None = None
    parked: bool = False  # its event is a dead letter: nothing happens until that is replayed


def now_of(saga: Mapping[str, Any], call: CallNow | None = None) -> Now:
    """Return what a saga does now, from its representation and what else is known of its call."""
    call = call or CallNow()
    if saga["status"] == "STALLED":
        return _stuck(saga, call)
    if saga["ended_at"] or saga["status"] == "UNREADABLE":
        return _cause(saga["error"])
    active = next((step for step in saga["steps"] if step["status"] in ("RUNNING", "COMPENSATING")), None)
    undo = "undo " if active and active["status"] == "COMPENSATING" else ""
    if active and call.parked:
        return Now(f"{undo}{active['name']}: {PARKED}")
    return Now(f"{undo}{active['name']}", since=iso(call.since) or active["started_at"]) if active else Now("")


def now_line(now: Now, at: float | None = None) -> str:
    """Return it on one line; with the present time `at`, times are distances: "next in 1:29"."""
    parts = [now.what] if now.what else []
    if now.rounds:
        parts.append(f"{now.rounds} round{'s' if now.rounds != 1 else ''}")
    if now.until:
        left = None if at is None else datetime.fromisoformat(now.until).timestamp() - at
        parts.append(f"next at {now.until}" if left is None else "next now" if left <= 0 else f"next in {_clock(left)}")
    if now.since and at is not None:
        parts.append(f"{max(0.0, at - datetime.fromisoformat(now.since).timestamp()):.1f} s")
    return " · ".join(parts + ([now.why] if now.why else []))


def stuck_step(saga: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Return at which call a stalled saga is stuck, "undo A" or "C", and the step; None where nothing tells.

    The call is a compensation where one is under way. Otherwise the saga goes forward, and the call is the action of
    the first step that is not done, because all steps before it are.
    """
    undone = next((step for step in saga["steps"] if step["status"] == "COMPENSATING"), None)
    step = undone or next((step for step in saga["steps"] if step["status"] != "DONE"), None)
    return step and (f"undo {step['name']}" if undone else step["name"], step)


def _stuck(saga: Mapping[str, Any], call: CallNow) -> Now:
    found = stuck_step(saga)
    name, message = (found[0], found[1]["error"]) if found else ("a call", None)
    said = message or "no answer"
    what = f"HTTP {call.status_code}" if call.status_code else said
    why = said if what not in said else None
    if call.parked:
        return Now(f"{name}: {what} · {PARKED}", why, call.rounds)
    return Now(f"{name}: {what}", why, call.rounds, until=saga["due_at"] if TRIED_WHEN_DUE[saga["mode"]] else None)


# What a choreographed saga is due at is its deadline: its service tries again when it does.
TRIED_WHEN_DUE = {ORCHESTRATION: True, CHOREOGRAPHY: False}


def _cause(error: Mapping[str, Any] | None) -> Now:
    """Return why an ended saga turned back, or why a saga cannot be read."""
    if not error:
        return Now("")
    if error["kind"] not in _VERBS:
        return Now(str(error["message"]) + (f" at {error['step']}" if error["step"] else ""))
    message, code = str(error["message"]), error["status_code"]
    if error["kind"] == "failed" and code:
        said = f"HTTP {code}"
        return Now(f"{error['step']}: {said}", message if said not in message else None)
    return Now(f"{error['step']} {_VERBS[error['kind']]}: {message}")


def _clock(seconds: float) -> str:
    """Return a length of time as a clock shows it: 1:29, 2:05:00."""
    whole = -int(-seconds // 1)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
