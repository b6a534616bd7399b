"""What two purchases did to one row in one order of their calls, and which anomalies that holds. Pure.

The anomalies are those that Richardson lists for sagas ("Microservices Patterns", 2018, section 4.3):

- a lost update: one saga overwrites a change of another without having read it;
- a dirty read: one saga reads a change of another that is undone afterwards;
- a fuzzy read: two steps of one saga read different balances, because another saga has changed the row in between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from saga.machine import ENDED, Direction, State


class Anomaly(StrEnum):
    """What can go wrong between two sagas."""

    LOST = "lost"
    DIRTY = "dirty"
    FUZZY = "fuzzy"


@dataclass(frozen=True)
class Access:
    """One read or write of the balance; `found` is the balance before it, `left` the balance after it."""

    found: int
    left: int
    wrote: bool


@dataclass(frozen=True)
class Turn:
    """One call of one saga, with the balance after it.

    `effect` is what the call is there to add to the balance, 0 for most; `refusal` is why it was refused, where it was.
    """

    saga: str
    step: str
    direction: Direction
    effect: int
    accesses: tuple[Access, ...]
    refusal: str | None
    balance: int


@dataclass(frozen=True)
class Finding:
    """An anomaly, the number of the turn (from 0) in which it shows, and what is wrong there."""

    anomaly: Anomaly
    turn: int
    text: str


@dataclass(frozen=True)
class History:
    """One order of the calls: the turns, the state in which each saga was left, and the row's balance then."""

    turns: tuple[Turn, ...]
    ends: Mapping[str, State]
    closing: int

    @property
    def order(self) -> tuple[str, ...]:
        """Whose turn it was, turn by turn."""
        return tuple(turn.saga for turn in self.turns)

    @property
    def stuck(self) -> bool:
        """Whether a saga has not ended: it would make the same call again and again."""
        return any(state not in ENDED for state in self.ends.values())

    def balance_missed(self, opening: int) -> int:
        """Return by how much the balance is wrong at the end: it should have lost what completed sagas have taken."""
        taken = sum(turn.effect for turn in self.turns if self.ends[turn.saga] is State.COMPLETED)
        return self.closing - (opening + taken)


@dataclass
class _Seen:
    """What is known of the row while a history is read from its beginning."""

    # The sagas whose taking is part of the balance,
    included: frozenset[str] = frozenset()
    # and those whose taking was part of the balance that a saga has seen, by the saga,
    included_when_seen: dict[str, frozenset[str]] = field(default_factory=dict)
    # with the balance that the saga would find if nobody else did anything.
    expected: dict[str, int] = field(default_factory=dict)


def anomalies(history: History) -> Iterator[Finding]:
    """Yield the anomalies of a history, in the order in which they show."""
    undone = {turn.saga: number for number, turn in enumerate(history.turns) if turn.effect > 0}
    seen = _Seen()
    for number, turn in enumerate(history.turns):
        for access in turn.accesses:
            found = _written(seen, turn, access) if access.wrote else _read(seen, turn, access, number, undone)
            for anomaly, text in found.items():
                yield Finding(anomaly, number, text)


def _written(seen: _Seen, turn: Turn, access: Access) -> dict[Anomaly, str]:
    saga, before = turn.saga, seen.included
    missing = access.left - access.found - turn.effect
    if missing:
        seen.included = seen.included_when_seen[saga]
    seen.included = seen.included | {saga} if turn.effect < 0 else seen.included - {saga}
    seen.expected[saga] += turn.effect
    if not missing:
        return {}
    other = next(name for name in before ^ seen.included if name != saga)
    return {Anomaly.LOST: f"{saga} overwrites {access.found}, which {other} has written since {saga} looked"}


def _read(seen: _Seen, turn: Turn, access: Access, number: int, undone: Mapping[str, int]) -> dict[Anomaly, str]:
    saga, found = turn.saga, {}
    dirty = next((name for name in seen.included - {saga} if undone.get(name, -1) > number), None)
    if dirty:
        found[Anomaly.DIRTY] = f"{saga} reads {access.found}, with what {dirty} has taken and puts back later"
    expected = seen.expected.get(saga, access.found)
    if expected != access.found:
        found[Anomaly.FUZZY] = f"{saga} reads {access.found}, where its own steps would have left {expected}"
    seen.included_when_seen.setdefault(saga, seen.included)  # what it goes by is its first look
    seen.expected[saga] = access.found
    return found
