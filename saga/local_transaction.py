"""A participant's two local transactions behind its barrier, and the injected faults acted out around them.

Whether a call came over HTTP or an event asked for it is not known here.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine

from saga import barrier
from saga.barrier import Answer, Handled, Key, News, Transaction
from saga.errors import Refused
from saga.faults.flags import FaultKind
from saga.machine import Direction

Function = Callable[[Transaction, Mapping[str, Any]], Mapping[str, Any] | None]
Count = Callable[[str, Direction, Handled, float], None]  # a call of this step, how it was dealt with, seconds

_COMMITTED = frozenset(
    {FaultKind.AFTER, FaultKind.LOST, FaultKind.GARBAGE, FaultKind.CRASH_AFTER}
)  # what follows the commit is lost


@dataclass(frozen=True)
class Outcome:
    """What came of it: an answer, whether it is certain that nothing was changed, whether it cannot be read."""

    answer: Answer
    certain: bool = False
    garbage: bool = False


class LocalTransactions:
    """The action and the compensation of one service; `closed` ends what an injected fault holds back."""

    def __init__(
        self,
        engine: Engine,
        action: Function,
        compensation: Function,
        exit: Callable[[int], Any],
        closed: threading.Event,
        hold: float,
        count: Count = lambda step, call, handled, seconds: None,
    ):
        self.engine = engine
        self._action = action
        self._compensation = compensation
        self._exit = exit
        self.closed = closed
        self._hold = hold  # seconds
        self._count = count

    def act(
        self, key: Key, fields: Mapping[str, Any], faults: Collection[FaultKind], news: News | None = None
    ) -> Outcome:
        """The action. An injected fault that strikes after the commit loses the news, as it loses an answer."""
        return self._counted(key, Direction.ACTION, lambda: self._act(key, fields, faults, news))

    def _counted(self, key: Key, call: Direction, work: Callable[[], Outcome]) -> Outcome:
        began, handled = time.perf_counter(), Handled.FAILED
        try:
            outcome = work()
            handled = Handled.FAILED if outcome.answer.status >= 500 else outcome.answer.handled
            return outcome
        finally:
            self._count(key.step, call, handled, time.perf_counter() - began)

    def _act(self, key: Key, fields: Mapping[str, Any], faults: Collection[FaultKind], news: News | None) -> Outcome:
        if FaultKind.BEFORE in faults:
            return Outcome(Answer(500, {"error": "injected: before"}), certain=True)
        if FaultKind.LATE in faults:
            self.closed.wait(self._hold)
        action = _refuse if FaultKind.REFUSE in faults else self._action
        crash = (lambda: self._exit(17)) if FaultKind.CRASH in faults else (lambda: None)
        tell = news if news and not _COMMITTED & set(faults) else _nothing
        answer = barrier.act(self.engine, key, lambda tx: action(tx, fields), crash, tell)
        if answer.status != 200:
            return Outcome(answer)
        if FaultKind.CRASH_AFTER in faults:
            self._exit(17)
        if FaultKind.LOST in faults:
            self.closed.wait(self._hold)
            if news:  # whoever has waited so long hears of it after all
                barrier.act(self.engine, key, lambda tx: action(tx, fields), news=news)
        if FaultKind.AFTER in faults:
            return Outcome(Answer(500, {"error": "injected: after"}))
        return Outcome(answer, garbage=FaultKind.GARBAGE in faults)

    def compensate(
        self,
        key: Key,
        fields: Mapping[str, Any],
        faults: Collection[FaultKind] = (),
        news: News | None = None,
        can_undo: bool = True,
        check: Callable[[Transaction], None] = lambda tx: None,
    ) -> Outcome:
        """The compensation; without `can_undo` an action that has taken effect stays, which is a refusal.

        `check` may raise where there is something to undo: in the same transaction, which then changes nothing.
        """
        compensation = self._compensation if can_undo else _cannot

        def undo(tx: Transaction) -> Mapping[str, Any] | None:
            check(tx)
            return compensation(tx, fields)

        def compensate() -> Outcome:
            if FaultKind.UNDO in faults:
                return Outcome(Answer(500, {"error": "injected: undo"}), certain=True)
            return Outcome(barrier.compensate(self.engine, key, undo, news or _nothing))

        return self._counted(key, Direction.COMPENSATION, compensate)


def _refuse(tx: Transaction, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    raise Refused("injected: refuse")


def _cannot(tx: Transaction, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    raise Refused("this step has no compensation")


def _nothing(answer: Answer) -> Sequence[Any]:
    return ()
