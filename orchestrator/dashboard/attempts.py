"""What the attempts of a call came to: named by what is known of them, and counted. Pure."""

from __future__ import annotations

from collections import Counter

from orchestrator.dashboard.formatting import listed, quoted, times
from orchestrator.dashboard.log_reader import CallHistory
from saga.machine import Direction
from saga.views.lines import ShownLine, detail_of
from saga.views.phrasing import Phrases


def outcome_of(line: ShownLine) -> str:
    """What an attempt came to, as its line says: the end of the name of a phrase."""
    status, verdict = line["status_code"], detail_of(line).get("verdict")
    if verdict == "done":
        return "done" if status else "done in silence"
    if verdict == "refused":
        return "refused" if status else "unreachable"
    if status is None:
        return "timed out"
    return "without an object" if 200 <= status < 300 else "failed"


def answer_of(line: ShownLine, say: Phrases) -> str:
    """The same as the diagram says it: an answer, or what a service did."""
    outcome, status, undo = outcome_of(line), line["status_code"], detail_of(line).get("call")
    name = {"done": "answer", "without an object": "answer failed"}.get(outcome, f"answer {outcome}")
    name = "answer 409" if outcome == "refused" and status == 409 else name
    undoing = undo == Direction.COMPENSATION and outcome in ("done", "done in silence", "refused", "unreachable")
    return say(f"{name} to an undo" if undoing else name, status=status)


def tried(call: CallHistory, say: Phrases) -> str:
    """How many attempts there were of a call that was given up; empty where it was one."""
    count = say("after attempts", count=call.number) if call.number > 1 else ""
    lost = lost_attempts(call)
    return count + (say("attempts without a line", count=lost) if lost else "")


def before_it_succeeded(call: CallHistory, say: Phrases) -> str:
    """What its failed attempts came to, or all where none failed: answered HTTP 503 twice and gave no answer once."""
    lines = call.failed or call.attempts
    counts = Counter(say(f"attempt {outcome_of(line)}", status=line["status_code"]) for line in lines)
    return (
        listed([f"{attempt} {times(count, call.left_out > 0)}" for attempt, count in counts.items()]) if counts else ""
    )


def why(call: CallHistory, say: Phrases) -> str:
    """Why its last attempt failed, in brackets; empty where the log does not say."""
    if not call.attempts:
        return ""
    last = call.attempts[-1]
    message = str(detail_of(last).get("message") or "")
    if not message:
        return ""
    name = "why, with a status" if last["status_code"] and not message.startswith("HTTP ") else "why"
    return say(name, status=last["status_code"], plain=message, message=quoted(message))


def lost_attempts(call: CallHistory) -> int:
    """How many of its attempts have no line; 0 where lines are left out, so that it is not known."""
    return 0 if call.left_out else max(0, call.number - len(call.attempts))
