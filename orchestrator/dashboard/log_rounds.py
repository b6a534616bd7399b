"""Folds the lines of a log into rounds: the attempts of one call, up to the line that says that it stalled. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.dashboard.attempts import answer_of
from orchestrator.dashboard.log_reader import state_of
from saga.machine import ATTEMPT, CLAIMED, STALLED, Direction, Event
from saga.views.lines import ShownLine, detail_of
from saga.views.phrasing import Phrases


@dataclass(frozen=True)
class Round:
    """A round that failed: its lines, oldest first. `number` counts the rounds of the same call, from 1."""

    number: int
    step: str
    undoing: bool
    answers: str  # what its attempts came to: 3 × HTTP 500
    lines: tuple[ShownLine, ...]

    @property
    def first(self) -> ShownLine:
        """Its first line."""
        return self.lines[0]

    @property
    def last(self) -> ShownLine:
        """Its last line, which says that the saga stalled."""
        return self.lines[-1]


def fold(lines: Sequence[ShownLine], say: Phrases, rounds_before: int = 0) -> list[ShownLine | Round]:
    """Return the lines of a log, oldest first, with each round that failed as one item.

    `rounds_before` is how many rounds of the first line's call came before it.
    """
    folded: list[ShownLine | Round] = []
    begun: list[ShownLine] = []  # lines that are a round once a line says that the saga stalled
    number = rounds_before
    for line in lines:
        if line["event"] == ATTEMPT or _begins(line, begun):
            begun.append(line)
        elif begun and line["event"] in set(Event) and state_of(line) in STALLED:
            number += 1
            folded.append(_round(number, (*begun, line), say))
            begun = []
        else:
            folded += [*begun, line]
            begun = []
            number = _counted(number, line)
    return folded + begun


def _counted(number: int, line: ShownLine) -> int:
    """Return how many rounds of the call at the cursor there were after this line."""
    if line["event"] == Event.RESUMED or line["event"] not in set(Event):
        return number
    return number + 1 if state_of(line) in STALLED else 0


def _begins(line: ShownLine, begun: Sequence[ShownLine]) -> bool:
    """Tell whether the line may stand in a round beside its attempts: the saga was resumed, or taken over."""
    return (line["event"] == Event.RESUMED and not begun) or (line["event"] == CLAIMED and bool(begun))


def _round(number: int, lines: tuple[ShownLine, ...], say: Phrases) -> Round:
    attempts = [line for line in lines if line["event"] == ATTEMPT]
    counts = Counter(answer_of(line, say) for line in attempts)
    undoing = any(detail_of(line).get("call") == Direction.COMPENSATION for line in attempts)
    answers = ", ".join(f"{count} × {answer}" for answer, count in counts.items()) or "no attempt was answered"
    return Round(number, str(lines[-1]["step"] or ""), undoing, answers, lines)
