"""How a call is told of: where an orchestrator makes it, and where a service does it by itself. Pure.

In a choreographed saga nobody calls and nobody answers: a service hears an event, does its part, and says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

from orchestrator.dashboard.formatting import listed, moment, quoted, times
from orchestrator.dashboard.log_reader import CallHistory
from saga.definition import CHOREOGRAPHY
from saga.views.lines import ShownLine

Saga = Mapping[str, Any]


class Voice(Protocol):
    """The words that differ."""

    def subject(self, call: CallHistory) -> str:
        """How a sentence calls it."""

    def tries(self, call: CallHistory) -> str:
        """Of a call that was given up: how many attempts there were."""

    def why(self, call: CallHistory) -> str:
        """The last attempt, in brackets."""

    def before_it_succeeded(self, call: CallHistory) -> str:
        """What its other attempts came to; empty where there were none."""

    def asks(self, turn: CallHistory) -> str:
        """That a pivot's outcome is being found out."""

    def sealed(self, seal: CallHistory) -> str:
        """What was found out."""

    def waits(self, call: CallHistory, at: str) -> str:
        """What has not happened yet at the step `at`."""

    def again(self, saga: Saga) -> str:
        """How a stalled saga goes on."""


class _Called:
    """Of an orchestrated saga."""

    def subject(self, call: CallHistory) -> str:
        return call.subject

    def tries(self, call: CallHistory) -> str:
        lost = _lost(call)
        return _after(call) + (f", {lost} of them perhaps cut short" if lost else "")

    def why(self, call: CallHistory) -> str:
        if not call.attempts:
            return ""
        status, message = call.attempts[-1]["status_code"], _message(call)
        if status and message and not message.startswith("HTTP "):
            return f" (HTTP {status}: {quoted(message)})"
        return f" ({message})" if message else ""

    def before_it_succeeded(self, call: CallHistory) -> str:
        return f"{call.subject} {_counted(call, _answer)} before it succeeded" if call.failed else ""

    def asks(self, turn: CallHistory) -> str:
        return f"so {turn.step} was asked to undo it"

    def sealed(self, seal: CallHistory) -> str:
        answer = "committed" if seal.committed else "not committed, and is sealed"
        return f"asked to undo it, {seal.step} answered that it had {answer}"

    def waits(self, call: CallHistory, at: str) -> str:
        subject = f"the compensation of {at}" if call.backward else at
        if call.attempts:
            return f"{subject} {_counted(call, _answer)}; attempt {call.number + 1} has no answer yet"
        return f"{subject} has not answered yet (attempt {call.number + 1})"

    def again(self, saga: Saga) -> str:
        at = f" at {moment(saga['due_at'])}" if saga["due_at"] and saga["status"] == "STALLED" else ""
        return f"it is tried again by itself{at}, and an operator can try it now or mark it as done by hand"


class _Heard:
    """Of a choreographed saga."""

    def subject(self, call: CallHistory) -> str:
        return _doing(call, call.step)

    def tries(self, call: CallHistory) -> str:
        lost = _lost(call)
        return _after(call) + (f", {lost} of which nothing was heard" if lost else "")

    def why(self, call: CallHistory) -> str:
        return f" ({quoted(message)})" if (message := _message(call)) else ""

    def before_it_succeeded(self, call: CallHistory) -> str:
        said = [f"{self.subject(call)} {_counted(call, _came_to)} before it succeeded"] if call.failed else []
        lost = 0 if call.backward else _lost(call)
        said += [f"nothing was heard of {lost} attempt{'s' if lost > 1 else ''} of {call.step}"] if lost else []
        return "; ".join(said)

    def asks(self, turn: CallHistory) -> str:
        return f"so {turn.step} asks its own barrier row"

    def sealed(self, seal: CallHistory) -> str:
        found = "that it had committed" if seal.committed else "that it had not, and sealed it"
        return f"its own barrier row told {seal.step} {found}"

    def waits(self, call: CallHistory, at: str) -> str:
        subject, attempt = _doing(call, at), f"attempt {call.number + 1}"
        if call.attempts:
            return f"{subject} {_counted(call, _came_to)}; nothing is heard of {attempt} yet"
        return f"nothing is heard of {subject} yet ({attempt})"

    def again(self, saga: Saga) -> str:
        return "its service tries it again by itself, and nobody is in charge who could be told to"


VOICES: Mapping[bool, Voice] = {False: _Called(), True: _Heard()}


def voice_of(saga: Saga) -> Voice:
    """The one for a saga's representation."""
    return VOICES[saga["mode"] == CHOREOGRAPHY]


def _after(call: CallHistory) -> str:
    return f" after {call.number} attempts" if call.number > 1 else ""


def _message(call: CallHistory) -> str:
    return str((call.attempts[-1]["detail"] or {}).get("message") or "") if call.attempts else ""


def _counted(call: CallHistory, named: Any) -> str:
    """What its failed attempts came to, or all where none failed: `answered HTTP 503 twice and gave no answer once`."""
    counts = Counter(named(line) for line in call.failed or call.attempts)
    return listed([f"{name} {times(count, call.left_out > 0)}" for name, count in counts.items()])


def _lost(call: CallHistory) -> int:
    """Attempts that have no line; not known where lines are left out."""
    return 0 if call.left_out else max(0, call.number - len(call.attempts))


def _answer(line: ShownLine) -> str:
    status, verdict = line["status_code"], (line["detail"] or {}).get("verdict")
    if status:
        return f"answered HTTP {status}" + (
            " without a JSON object" if 200 <= status < 300 and verdict != "done" else ""
        )
    return "could not be reached" if verdict == "refused" else "gave no answer"


def _came_to(line: ShownLine) -> str:
    verdict = (line["detail"] or {}).get("verdict")
    if verdict == "done":
        return "succeeded"
    if line["status_code"] is None and verdict != "refused":
        return "ran out of time"
    return "failed without effect" if verdict == "refused" else "failed with an unknown effect"


def _doing(call: CallHistory, step: str) -> str:
    return f"undoing {step}" if call.backward else step
