"""What happened to a saga, in one to three plain sentences that claim nothing the log does not say. Pure.

Both functions take the saga's representation and its log's lines as the API shows them, already masked. Here is decided
what is said; the words are in phrasing.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from orchestrator.dashboard.attempts import before_it_succeeded, lost_attempts, tried, why
from orchestrator.dashboard.formatting import listed, moment, quoted, times
from orchestrator.dashboard.log_reader import CallHistory, SagaHistory, read_history
from saga.machine import ENDED, STALLED, Event, State
from saga.views.lines import ShownLine, detail_of
from saga.views.phrasing import Phrases

SENTENCES_AT_MOST = 3

_FAILED = {"refused": "refused", "timeout": "timed out"}  # by the error's kind; else: failed
_STUCK = {str(State.STALLED_DECIDING): "stuck, cannot tell", str(State.STALLED_FINISHING): "stuck past the pivot"}
_SUCCESSES = (Event.ACTION_DONE, Event.COMPENSATION_DONE)


def summarize(saga: Mapping[str, Any], lines: Sequence[ShownLine], in_a_panel: bool = False) -> str:
    """What happened, why, and what happens next; not what it is stuck at, where that is said in a panel of its own."""
    return _Summary(saga, read_history(lines), in_a_panel).text()


def root_cause(saga: Mapping[str, Any], lines: Sequence[ShownLine]) -> str | None:
    """Why the saga turned back, else what it is stalled at; None where neither is so."""
    return _Summary(saga, read_history(lines)).root_cause()


class _Summary:
    def __init__(self, saga: Mapping[str, Any], history: SagaHistory, in_a_panel: bool = False):
        self.saga = saga
        self.in_a_panel = in_a_panel
        self.history = history
        self.say = Phrases(saga["mode"])

    def text(self) -> str:
        way = self._in_short() if self.history.torn else self._way()
        said = [*way, *self._asides()][:SENTENCES_AT_MOST] or [self.say("status", status=self.saga["status"])]
        return " ".join(f"{self._opened(sentence)}." for sentence in said)

    def root_cause(self) -> str | None:
        history = self.history
        if history.torn:
            cause = self._first_cause()
            return cause and self._opened(cause)
        if history.turn and not history.went_forward:
            return self._opened(self._cause(history.turn))
        return self._opened(self._stuck()) if history.state in STALLED else None

    def _opened(self, sentence: str) -> str:
        """The sentence with a capital, unless it begins with a step's name: those stay as they are."""
        first = re.split(r"[\s,;]", sentence, maxsplit=1)[0]
        named = any(first == step["name"] for step in self.saga["steps"])
        return sentence if named else sentence[0].upper() + sentence[1:]

    def _way(self) -> Iterator[str]:
        """Say how the saga went, forward, back, or back to its pivot and forward again; and where it is now."""
        turn, seal, state = self.history.turn, self.history.seal, self.history.state
        if turn is None:
            if state == State.COMPLETED:
                yield self._effects()
        elif seal is None:
            yield f"{self._cause(turn)}{self._doubt(turn)}, {self._so(turn)}"
        elif seal.end is None:
            yield f"{self._cause(turn)}{self._doubt(turn)}, {self.say('pivot is asked', step=turn.step)}"
        else:
            yield f"{self._cause(turn)}{self._doubt(turn)}"
            yield f"{self._settled(seal)}, {self._so(turn)}"
        if state in STALLED:
            yield from () if self.in_a_panel else (self._stalled(),)
        elif state not in ENDED:
            yield from self._present()

    def _in_short(self) -> Iterator[str]:
        """What the representation alone tells, of a saga whose log is shown in parts."""
        saga, steps = self.saga, self.saga["steps"]
        if saga["ended_at"] and saga["status"] == "COMPLETED":
            yield self.say("all took effect", count=len(steps))
            return
        if cause := self._first_cause():
            yield cause
        done = [step["name"] for step in steps if step["status"] == "DONE"]
        undone = [step["name"] for step in reversed(steps) if step["status"] == "COMPENSATED"]
        effects = [self.say("took effect", steps=listed(done))] if done and not saga["ended_at"] else []
        effects += [self.say("were undone", **_were(undone))] if undone else []
        if effects:
            yield "; ".join(effects)
        if saga["status"] == "STALLED":
            yield self.say("status until", status=saga["status"], at=saga["due_at"])
        elif not saga["ended_at"]:
            yield self.say("status", status=saga["status"])

    def _first_cause(self) -> str | None:
        error = self.saga["error"]
        if not error:
            return None
        where = self.say("at a step", step=error["step"])
        if error["kind"] == "cancelled":
            return self.say("cancelled", where=where)
        if error["kind"] == "deadline":
            return self.say("deadline passed", where=where)
        message = f" ({quoted(str(error['message']))})"
        failed = _FAILED.get(str(error["kind"]), "failed")
        return self.say("step failed", step=error["step"], failed=failed, tries="", why=message)

    def _cause(self, turn: CallHistory) -> str:
        """Why it turned back."""
        where = self.say("at a step" if turn.number else "before a step", step=turn.step)
        if turn.event == Event.CANCELLED:
            return self.say("cancelled", where=where)
        if turn.event == Event.DEADLINE_PASSED:
            return self.say("deadline passed", where=where)
        failed, tries = self._failed(turn), tried(turn, self.say)
        return self.say("step failed", step=turn.step, failed=failed, tries=tries, why=why(turn, self.say))

    def _doubt(self, turn: CallHistory) -> str:
        """What was known of the step's effect when it turned back."""
        if turn.event == Event.ACTION_REFUSED:
            return "" if self._failed(turn) == "refused" else self.say("changed nothing")
        if turn.event == Event.ACTION_UNKNOWN:
            return self.say("in doubt")
        verdicts = [detail_of(line).get("verdict") for line in turn.attempts]
        if "done" in verdicts:
            return self.say("had taken effect", step=turn.step)
        return self.say("may have been called", step=turn.step) if turn.number and not verdicts else ""

    def _failed(self, turn: CallHistory) -> str:
        error = self.saga["error"] or {}
        return _FAILED.get(str(error.get("kind")), "failed") if error.get("step") == turn.step else "failed"

    def _settled(self, seal: CallHistory) -> str:
        """What became of a pivot whose outcome was unknown."""
        if seal.by_hand:
            return self._by_hand(seal)
        return self.say("pivot had committed" if seal.committed else "pivot is sealed", step=seal.step)

    def _so(self, turn: CallHistory) -> str:
        """What came of its turning back."""
        history = self.history
        if history.went_forward:
            ended = history.state == State.COMPLETED
            return self.say("went forward and ended", effects=self._effects()) if ended else self.say("went forward")
        if history.state != State.COMPENSATED:
            return self.say("turns back")
        rest = [
            self.say(f"cannot be undone, {step['effect']}", step=step["name"])
            for step in self.saga["steps"]
            if step["status"] == "SKIPPED" and step["effect"] in ("applied", "unknown")
        ]
        rest += [self._by_hand(call) for call in history.undone_by_hand]
        return "; ".join([self._undone(turn, bool(rest)), *rest])

    def _undone(self, turn: CallHistory, more_is_said: bool) -> str:
        others = [step for step in self.history.undone if step != turn.step]
        if turn.step in self.history.undone:
            both = self.say("undid it and others", step=turn.step, **_were(others)) if others else ""
            return both or self.say("undid it", step=turn.step)
        if others:
            return self.say("undid the others", **_were(others))
        return self.say("turned back" if more_is_said else "nothing to undo")

    def _effects(self) -> str:
        """What took effect, of a completed saga."""
        history, count = self.history, len(self.saga["steps"])
        if not history.done_by_hand:
            return self.say("all took effect", count=count) if count > 1 else self.say("the only one took effect")
        effects = [self.say("took effect", steps=listed(history.done))] if history.done else []
        return "; ".join([*effects, *map(self._by_hand, history.done_by_hand)])

    def _stalled(self) -> str:
        saga = self.saga
        at = saga["due_at"] if saga["status"] == "STALLED" else None
        at_a_time = self.say("tried again at", at=moment(at)) if at else ""
        again = self.say("its event is parked") if self.history.parked else self.say("tried again", at=at_a_time)
        since = moment(self.history.calls[-1].stalls[0]["at"])
        name = "stalled, needs attention" if saga["needs_attention"] else "stalled"
        return self.say(name, at=since, stuck=self._stuck(), again=again)

    def _stuck(self) -> str:
        call = self.history.calls[-1]
        count = len(call.stalls)
        rounds = self.say("rounds", count=count) if count > 1 else self.say("one round")
        rounds = self.say("at least", what=rounds) if call.left_out else rounds
        name = _STUCK.get(self.history.state, "stuck")
        return self.say(name, call=self._subject(call, call.step), rounds=rounds, why=why(call, self.say))

    def _present(self) -> Iterator[str]:
        """Say what took effect or was undone, and what the saga waits for."""
        call, history = self.history.calls[-1], self.history
        active = (step["name"] for step in self.saga["steps"] if step["status"] in ("RUNNING", "COMPENSATING"))
        if not (at := next(active, call.step)):
            return
        name = "waits, has tried" if call.attempts else "waits"
        attempts = before_it_succeeded(call, self.say)
        waits = self.say(name, call=self._subject(call, at), attempts=attempts, next=call.number + 1)
        before = history.undone if call.backward else history.done
        happened = self.say("were undone" if call.backward else "took effect", **_were(before)) if before else ""
        yield f"{happened}; {waits}" if before else waits

    def _asides(self) -> Iterator[str]:
        """What else there was on the way, the weightiest first."""
        yield from self._of_nobody_in_charge()
        history, more = self.history, self.history.left_out
        if history.cancel_requested_at:
            yield self.say("cancel left to the pivot", step=history.cancel_requested_at)
        if history.taken_over:
            yield self.say("taken over", times=times(history.taken_over, more))
        if history.handed_over:
            yield self.say("handed over", times=times(history.handed_over, more))
        succeeded = [call for call in history.calls if call.event in _SUCCESSES]
        if said := "; ".join(phrase for call in succeeded for phrase in self._tries_of(call) if phrase):
            yield said

    def _tries_of(self, call: CallHistory) -> Iterator[str]:
        """What there was before a call succeeded."""
        if call.failed:
            attempts = before_it_succeeded(call, self.say)
            yield self.say("failed before it succeeded", call=self._subject(call, call.step), attempts=attempts)
        lost = lost_attempts(call)
        if lost and not call.backward:
            yield self.say("one attempt unheard" if lost == 1 else "attempts unheard", step=call.step, count=lost)

    def _of_nobody_in_charge(self) -> Iterator[str]:
        """What only a choreographed saga comes to."""
        history, ended = self.history, self.history.state in ENDED
        for line in history.parked if not ended and not self.in_a_panel else ():
            detail = detail_of(line)
            message = f" ({quoted(detail['message'])})" if detail.get("message") else ""
            yield self.say("parked", step=line["step"], subject=detail.get("subject"), why=message)
        if history.overdue and ended:
            yield self.say("was overdue")
        elif history.overdue and not self.in_a_panel:
            turned = history.turn and not history.went_forward
            yield self.say("overdue, turning back" if turned else "overdue")
        if history.replayed:
            yield self.say("replayed", times=times(history.replayed, history.left_out))
        if history.crashes and (said := self.say("listener crashed", times=times(history.crashes, history.left_out))):
            yield said

    def _by_hand(self, call: CallHistory) -> str:
        note = str(((call.end or {}).get("detail") or {}).get("note", ""))
        return self.say("done by hand", call=self._subject(call, call.step), note=quoted(note))

    def _subject(self, call: CallHistory, step: str) -> str:
        return self.say("compensation" if call.backward else "action", step=step)


def _were(steps: Sequence[str]) -> dict[str, str]:
    return {"steps": listed(steps), "were": "was" if len(steps) == 1 else "were"}
