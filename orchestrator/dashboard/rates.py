"""How the sagas went that started lately: how many a minute, how they ended, and how long that took. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saga.machine import State

WITHIN = 300.0  # seconds
SAMPLE = 2000  # sagas that are looked at: where more started, the latest of them


@dataclass(frozen=True)
class Rates:
    """Of the sagas that started within the last `seconds`. Lengths of time are in seconds."""

    seconds: float
    started: int
    completed: int
    compensated: int
    median: float | None  # of those that have ended, from the start to the end
    slowest: float | None  # 95 of 100 were quicker

    @property
    def open(self) -> int:
        """How many have not ended."""
        return self.started - self.completed - self.compensated

    @property
    def per_minute(self) -> float:
        """How many have started in a minute."""
        return 60 * self.started / self.seconds

    def share(self, number: int) -> str:
        """Return a number of them in percent of those that have ended: 12 %, <1 %."""
        ended = self.completed + self.compensated
        percent = 100 * number / ended if ended else 0
        return "<1 %" if 0 < percent < 1 else ">99 %" if 99 < percent < 100 else f"{percent:.0f} %"


def rates(spans: Sequence[Mapping[Any, Any]], now: float) -> Rates:
    """Return the rates from rows of LATEST_SPANS, newest first; those whose times cannot be read are left out."""
    timed = [row for row in spans if isinstance(row["started_at"], float) and isinstance(row["ended_at"], float | None)]
    known = [row for row in timed if row["started_at"] >= now - WITHIN]
    full = len(spans) >= SAMPLE and known
    seconds = max(1.0, now - known[-1]["started_at"]) if full else WITHIN
    took = sorted(max(0.0, row["ended_at"] - row["started_at"]) for row in known if row["ended_at"] is not None)
    states = [row["state"] for row in known]
    return Rates(
        seconds=seconds,
        started=len(known),
        completed=states.count(State.COMPLETED),
        compensated=states.count(State.COMPENSATED),
        median=_share_of(took, 0.5),
        slowest=_share_of(took, 0.95),
    )


def _share_of(lengths: Sequence[float], share: float) -> float | None:
    """Return the length that this share of them does not exceed."""
    return lengths[min(len(lengths) - 1, int(share * len(lengths)))] if lengths else None
