"""Attempts of a choreographed step, each a delivery of an event; and what is known of the earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from saga.call import error_kind
from saga.choreography.events import SagaEvent, StepSubscription
from saga.machine import Direction

REMEMBERED = 10_000  # steps whose earlier attempts are known


@dataclass(frozen=True)
class AttemptHistory:
    """What is known of a step's earlier attempts: not after a crash."""

    waits: int = 0  # deliveries that were no attempts
    uncertain: bool = False  # one of them may have taken effect
    timed_out: bool = False
    status: int | None = None  # of the last one
    message: str = "its attempts were interrupted"

    def kind(self, status: int | None) -> str:
        """Why the step gives up, or says no, with this status after these attempts: what it is over HTTP."""
        return error_kind(not self.uncertain, status, self.timed_out)


@dataclass(frozen=True)
class Attempt:
    """One attempt of a step's action or compensation."""

    part: StepSubscription
    event: SagaEvent
    direction: Direction
    number: int  # of all there were, over replays too
    began: float
    before: int = 0  # how many of them were made before the event was last replayed

    @property
    def since(self) -> int:
        """Its number among those since the event was last replayed: these are what limits and rounds count."""
        return self.number - self.before

    @property
    def limit(self) -> int:
        """Attempts in a round."""
        return 1 + self.part.step.retries

    @property
    def flags(self) -> list[tuple[str, str]]:
        """The injected ones."""
        return self.part.faults(self.event, self.direction)

    def undoing(self, now: float) -> Attempt:
        """The attempt at undoing its own action that belongs to an attempt of the action beyond the last."""
        number = self.before + max(1, self.since - self.limit + 1)
        return Attempt(self.part, self.event, Direction.COMPENSATION, number, now, self.before)

    def told(self, verdict: str, status: int | None, now: float) -> dict[str, Any]:
        """What an event says of it to whoever observes."""
        line = {
            "call": self.direction,
            "number": self.number,
            "verdict": verdict,
            "status_code": status,
            "duration_ms": round((now - self.began) * 1000, 3),
        }
        return {"at": now, "attempt": line}


class AttemptHistories:
    """What is known of the latest steps' earlier attempts, in memory."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], AttemptHistory] = {}

    def __contains__(self, of: tuple[SagaEvent, StepSubscription]) -> bool:
        return _key(*of) in self._known

    def of(self, event: SagaEvent, part: StepSubscription) -> AttemptHistory:
        """Of this step; nothing where nothing is known."""
        return self._known.get(_key(event, part), AttemptHistory())

    def remember(self, event: SagaEvent, part: StepSubscription, past: AttemptHistory) -> None:
        """Know it from now on."""
        if len(self._known) >= REMEMBERED:
            self._known.pop(next(iter(self._known)), None)
        self._known[_key(event, part)] = past

    def forget(self, event: SagaEvent, part: StepSubscription) -> None:
        """It is over."""
        self._known.pop(_key(event, part), None)


def _key(event: SagaEvent, part: StepSubscription) -> tuple[str, str]:
    return event.saga_id, part.step.name
