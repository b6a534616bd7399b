"""Which sagas are asked for: a query, and what of it only Python can judge. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from saga.machine import State
from saga.payload import mask
from saga.saga_row import SagaRow, Stored

NEWEST, OLDEST, LONGEST = "newest", "oldest", "longest"
SORTS = (NEWEST, OLDEST, LONGEST)
KINDS = ("refused", "failed", "timeout", "cancelled", "deadline")  # of a saga's error
MARGIN = 60.0  # seconds by which the time in an id may differ from the start of its saga


@dataclass(frozen=True)
class SagaQuery:
    """Which sagas are asked for: those that fit every condition. By default there is no condition."""

    states: Collection[State] = ()  # they are in one of these states; empty means any
    name: str = ""  # they are sagas of this name
    q: str = ""  # their id begins with this, in either case, or this is their idempotency key; else: see SagaSearch
    before: str = ""  # the next page of a list that ended with this id
    ended_since: float | None = None  # they ended at this time or later
    needs_attention: bool = False  # they have not ended, and stall too often, are overdue, or cannot be read
    readable: bool | None = None  # True: they can be read; False: they cannot; None: both
    most: int = 50  # no more than so many are found
    mode: str = ""
    engine: str = ""
    step: str = ""  # the step that made them turn back, or at which they were cancelled
    kind: str = ""  # of their error
    since: float | None = None  # they started at this time or later
    until: float | None = None  # they started at this time or earlier
    sort: str = NEWEST

    @property
    def about_json(self) -> bool:
        """Whether a condition is about what only a decoded row tells."""
        return bool(self.mode or self.engine or self.step or self.kind)

    def fits(self, saga: Stored) -> bool:
        """Whether a saga fits those conditions; one that cannot be read fits none."""
        if not self.about_json:
            return True
        if not isinstance(saga, SagaRow):
            return False
        error = saga.error or {}
        wanted = {"mode": self.mode, "engine": self.engine, "step": self.step, "kind": self.kind}
        found = {
            "mode": saga.definition.mode,
            "engine": saga.definition.engine,
            "step": error.get("step"),
            "kind": error.get("kind"),
        }
        return all(not value or found[name] == value for name, value in wanted.items())


def id_at(at: float) -> str:
    """Return what the ids of the sagas begin with that started at this time (a UUIDv7, RFC 9562)."""
    stamp = f"{max(0, min(int(at * 1000), 2**48 - 1)):012x}"
    return f"{stamp[:8]}-{stamp[8:]}"


def input_has(input: Any, text: str, secret: Collection[str]) -> bool:
    """Return whether a field that is not secret has this text in it, in either case."""
    return _has(mask(input, secret), text.casefold()) if isinstance(input, Mapping) else False


def _has(value: Any, text: str) -> bool:
    if isinstance(value, Mapping):
        return any(_has(item, text) for item in value.values())
    if isinstance(value, list):
        return any(_has(item, text) for item in value)
    return value is not None and not isinstance(value, bool) and text in str(value).casefold()
