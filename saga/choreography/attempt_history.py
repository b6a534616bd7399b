"""One attempt at a choreographed step, which is one delivery of its event; and what is remembered of earlier ones.

A listener asks AttemptHistories what the attempts at a step say together. All of it is in memory: after a crash the
step counts as one that may have taken effect.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from saga.call import Attempt, Outcome, Verdict, combine_attempts, error_kind
from saga.choreography.events import SagaEvent, StepSubscription
from saga.machine import Direction

REMEMBERED = 10_000  # steps whose earlier attempts are known


@dataclass(frozen=True)
class StepAttempt:
    """One attempt at a step's action or compensation."""

    subscription: StepSubscription
    event: SagaEvent  # that asks for it
    direction: Direction
    number: int  # counted from 1, over replays of the event, too
    began: float  # in seconds since the epoch
    before: int = 0  # how many attempts had been made when the event was last replayed

    @property
    def since(self) -> int:
        """The attempt's number since the event was last replayed, from 1; limits and rounds count these."""
        return self.number - self.before

    @property
    def limit(self) -> int:
        """How many attempts a round has."""
        return 1 + self.subscription.step.retries

    @property
    def in_round(self) -> int:
        """The attempt's number in its round, from 1; 0 where it is the last one of its round."""
        return self.since % self.limit

    @property
    def rounds(self) -> int:
        """The number of rounds that have ended; this attempt is the last one of its round."""
        return self.since // self.limit

    @property
    def fault_flags(self) -> list[tuple[str, str]]:
        """The flags of failure injection for this attempt, as (name, value)."""
        return self.subscription.faults(self.event, self.direction)

    def giving_up(self, now: float) -> StepAttempt:
        """Return the attempt at undoing the action, which is given up; its attempts are counted from 1 again."""
        number = self.before + max(1, self.since - self.limit + 1)
        return replace(self, direction=Direction.COMPENSATION, number=number, began=now)

    def failed(self, status: int | None, message: str, certain: bool, now: float, timed_out: bool = False) -> Attempt:
        """Return this attempt as a failed one of a call over HTTP; `certain`: it certainly changed nothing."""
        verdict = Verdict.REFUSED if certain else Verdict.UNKNOWN
        return Attempt(self.number, verdict, True, status, self._took(now), message, timed_out)

    def report(self, verdict: str, status: int | None, now: float) -> dict[str, Any]:
        """Return the fields `at` and `attempt` of an event, which tell the observer of this attempt."""
        line = {
            "call": self.direction,
            "number": self.number,
            "verdict": verdict,
            "status_code": status,
            "duration_ms": self._took(now),
        }
        return {"at": now, "attempt": line}

    def _took(self, now: float) -> float:
        """Return how long the attempt has taken, in milliseconds."""
        return round((now - self.began) * 1000, 3)


@dataclass(frozen=True)
class AttemptHistory:
    """What this process remembers of the earlier attempts at a step's action; after a crash it is empty."""

    waits: int = 0  # deliveries that were no attempts
    interrupted: bool = False  # there were attempts of another process, or before a crash: any may have taken effect
    attempts: tuple[Attempt, ...] = ()  # the last one that failed, and one before it that decides the outcome, if any

    def outcome(self) -> Outcome:
        """Return what all attempts together say, by the rule for calls over HTTP."""
        if not self.attempts:
            kind = error_kind(certain=not self.interrupted, status=None, timed_out=False)
            verdict = Verdict.UNKNOWN if self.interrupted else Verdict.REFUSED
            return Outcome(verdict, kind=kind, message="its attempts were interrupted")
        return combine_attempts(self.attempts, uncertain_before=self.interrupted)

    def after(self, attempt: Attempt) -> AttemptHistory:
        """Return the history with one more attempt that failed.

        Of the attempts before it at most one is kept, without its message: one that timed out, or else one that may
        have had an effect. All others change no outcome, and a step may be attempted for days.
        """
        decisive = [each for each in self.attempts if each.timed_out] + [
            each for each in self.attempts if each.verdict is Verdict.UNKNOWN
        ]
        return replace(self, attempts=(*(replace(each, message=None) for each in decisive[:1]), attempt))

    def refusal_kind(self, status: int) -> str:
        """Return the kind of error where the step's own barrier says that the action was refused.

        The barrier knows what became of attempts that a crash has interrupted; one that timed out may still be running.
        """
        timed_out = any(attempt.timed_out for attempt in self.attempts)
        return error_kind(certain=not timed_out, status=status, timed_out=timed_out)


class AttemptHistories:
    """The histories of the steps that were attempted last, in memory."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], AttemptHistory] = {}

    def of(self, event: SagaEvent, subscription: StepSubscription) -> AttemptHistory:
        """Return the history of this step in this saga; an empty one where nothing is known."""
        return self._known.get(_key(event, subscription), AttemptHistory())

    def knows(self, event: SagaEvent, subscription: StepSubscription) -> bool:
        """Return whether there is a history of this step in this saga."""
        return _key(event, subscription) in self._known

    def remember(self, event: SagaEvent, subscription: StepSubscription, history: AttemptHistory) -> None:
        """Keep this history; where there are too many, forget the one that has not changed for longest."""
        self._known.pop(_key(event, subscription), None)
        if len(self._known) >= REMEMBERED:
            self._known.pop(next(iter(self._known)), None)
        self._known[_key(event, subscription)] = history

    def forget(self, event: SagaEvent, subscription: StepSubscription) -> None:
        """Forget the history of a step that has ended."""
        self._known.pop(_key(event, subscription), None)


def _key(event: SagaEvent, subscription: StepSubscription) -> tuple[str, str]:
    return event.saga_id, subscription.step.name
