"""The observer of choreographed sagas: it writes the events of services into the saga log, and decides nothing.

The log's lines are those of the state machine, so that a choreographed saga is read, shown and audited like any
other. An event that is delivered again changes nothing; one that came before its time is delivered again, later.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from saga.choreography.broker import ACK, Delivery, Reaction
from saga.choreography.dead_letter import DEAD
from saga.choreography.event_body import saga_id_of
from saga.choreography.event_fold import Early, abandon, fold_event, rounds_of, shortened
from saga.choreography.events import OBSERVED, EventKind, SagaEvent, parse_event
from saga.choreography.permitted_commands import refusal
from saga.errors import (
    BadInput,
    Conflict,
    IllegalEvent,
    LeaseLost,
    LogUnavailable,
    NoSuchSaga,
    SagaUnreadable,
    WriteRefused,
)
from saga.machine import (
    FAULT,
    OVERDUE,
    PARKED,
    REPLAYED,
    Direction,
    Line,
    next_call,
)
from saga.payload import iso
from saga.runtime.end_signals import EndSignals
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.unreadable import Unreadable

logger = logging.getLogger("saga")

KNOWN = 2000  # sagas whose present is kept in memory
TRIES = 5  # at writing a saga that another orchestrator observes as well
EVENT_TIMEOUT = 10.0  # seconds that handling one event may take
EARLY = 0.01  # seconds, doubling with each delivery
EARLY_AT_MOST = 5.0

# Injects failures. It is called "after" a call was answered, before its event is in the log, and "before" a call that
# follows from the log. Its arguments: which of the two, the call's direction and step, the saga, and a function that
# adds a line about a fault to the saga's log.
OnCall = Callable[[str, Direction, str, SagaRow, Callable[[str, Mapping[str, Any]], None]], None]


class Observer:
    """The handler of all sagas' events (see broker.Handler): it writes what each says into the log of its saga."""

    def __init__(
        self,
        log: SagaLog,
        end_signals: EndSignals,
        clock: Callable[[], float],
        observe: Callable[[SagaRow, Line], None],
        on_call: OnCall | None = None,
    ):
        """`observe` is called with every line once it is durable; `on_call` injects failures, see OnCall."""
        self._log = log
        self._end_signals = end_signals
        self._clock = clock
        self._observe = observe
        self._on_call = on_call
        self._known: OrderedDict[str, SagaRow] = OrderedDict()

    def timeout_for(self, subject: str) -> float:
        """Return the seconds that one event may take."""
        return EVENT_TIMEOUT

    def ordering_key(self, subject: str, payload: bytes) -> str | None:
        """Return the saga's id: the events of one saga are handled in the order in which the broker has them."""
        return saga_id_of(payload)

    def on_timeout(self, delivery: Delivery) -> Reaction:
        """Let the event be delivered again: the log is slow."""
        return Reaction(again=1.0)

    def handle(self, delivery: Delivery) -> Reaction:
        """Write what the event says into the log."""
        try:
            if delivery.subject.startswith(DEAD):
                self._parked(delivery)
                return ACK
            heard = parse_event(delivery.subject, delivery.payload)
            self._hear(heard)
        except BadInput as error:
            logger.warning("event_not_understood subject=%s: %s", delivery.subject, error)
        except Early:
            return Reaction(again=min(EARLY_AT_MOST, EARLY * 2.0 ** min(delivery.number, 16)))
        except (LeaseLost, LogUnavailable):
            return Reaction(again=1.0)
        except SagaUnreadable as error:  # only a version that can read the saga could do something about its events
            logger.warning(
                "event_left_alone saga_id=%s subject=%s: %s", saga_id_of(delivery.payload), delivery.subject, error
            )
        except (WriteRefused, IllegalEvent) as error:
            logger.error(
                "event_left_alone saga_id=%s subject=%s: %s", saga_id_of(delivery.payload), delivery.subject, error
            )
        return ACK

    def overdue(self, row: SagaRow) -> None:
        """Log that a saga's deadline has passed; nobody is in charge who could turn the saga back.

        Raises LeaseLost or LogUnavailable where that could not be written.
        """
        self._add_line(row.id, OVERDUE, None, {}, due_at=None)

    def replayed(self, saga_id: str, letter: int, subject: str) -> None:
        """Log that an operator has let a parked event be published again. Raises LogUnavailable."""
        detail = {"letter": letter, "subject": subject, "by": "operator"}
        with _busy_is_unavailable():
            self._add_line(saga_id, REPLAYED, None, detail, rounds=0)

    def abandoned(self, saga_id: str, note: str) -> None:
        """End a saga for which no service will ever act. Raises Conflict, NoSuchSaga or LogUnavailable."""

        def ended(row: SagaRow) -> tuple[SagaRow, list[Line]]:
            if why := refusal("abandon", row):
                raise Conflict(why)
            return abandon(row, note, round(self._clock(), 6))

        with _busy_is_unavailable():
            if not self._change(saga_id, ended):
                raise NoSuchSaga(f"there is no saga {saga_id!r}")

    def _hear(self, heard: SagaEvent) -> None:
        if heard.kind not in OBSERVED:
            return
        for fresh in (False, *[True] * TRIES):
            known = self._read(heard.saga_id, fresh)
            if known is None:  # forgotten, or started by an orchestrator with another log: one broker is for one stack
                logger.warning("event_of_unknown_saga saga_id=%s subject=%s", heard.saga_id, heard.subject)
                return
            self._remember(known)
            self._answered(heard, known)
            try:
                after, new = fold_event(known, heard)
                if new:
                    after = self._write_what_fits(known, heard, after, new)
                self._about_to_call(after)
                return
            except Early:
                if fresh:
                    raise
            except LeaseLost:  # another orchestrator has written meanwhile
                continue
        raise LeaseLost(heard.saga_id)

    def _write_what_fits(self, row: SagaRow, heard: SagaEvent, after: SagaRow, new: list[Line]) -> SagaRow:
        """Write what an event says; where the log cannot take all of it, write that it happened, and what is missing.

        The step has acted, and the others go on with its result, so nobody turns back; only the log lacks the result.
        """
        try:
            self._write(row, after, new)
        except WriteRefused as error:
            logger.error("event_not_stored saga_id=%s subject=%s: %s", row.id, heard.subject, error)
            after, new = fold_event(row, shortened(heard), f"the result cannot be stored: {error}")
            self._write(row, after, new)
        return after

    def _read(self, saga_id: str, fresh: bool) -> SagaRow | None:
        known = None if fresh else self._known.get(saga_id)
        if known is None:
            found = self._log.find(saga_id)
            if isinstance(found, Unreadable):
                raise SagaUnreadable(f"it cannot be read: {found.reason}")
            known = found if found and found.definition.choreographed else None
        return known

    def _write(self, row: SagaRow, after: SagaRow, new: Sequence[Line]) -> None:
        answered = {step: after.results[step] for step in after.results.keys() - row.results.keys()}
        self._known.pop(row.id, None)
        self._log.advance(row.id, row.epoch, after.present, new, answered, next_epoch=row.epoch + 1)
        self._remember(replace(after, epoch=row.epoch + 1))
        for line in new:
            self._observe(after, line)
        if after.ended:  # callers wait for nothing but the end
            self._end_signals.ended(row.id)

    def _remember(self, row: SagaRow) -> None:
        if not row.ended:
            self._known[row.id] = row
            while len(self._known) > KNOWN:
                self._known.popitem(last=False)

    def _add_line(self, saga_id: str, event: str, step: str | None, detail: Mapping[str, Any], **changes: Any) -> None:
        """Add a line of no event of the machine, and make these changes to the row; nothing where there is no row."""

        def noted(row: SagaRow) -> tuple[SagaRow, list[Line]]:
            line = Line(row.context.lines + 1, round(self._clock(), 6), event, step, detail=detail)
            after = replace(row.after(line), **changes)
            return replace(after, rounds=rounds_of(after.rounds, after.context)), [line]

        self._change(saga_id, noted)

    def _change(self, saga_id: str, change: Callable[[SagaRow], tuple[SagaRow, list[Line]]]) -> bool:
        """Write what `change` makes of a saga's row, with its new lines, and return whether there is such a row.

        Where another orchestrator has written meanwhile, the row is read and changed again. Raises LeaseLost after
        TRIES tries, and LogUnavailable.
        """
        for _ in range(TRIES):
            row = self._read(saga_id, fresh=True)
            if row is None:
                return False
            after, new = change(row)
            try:
                self._write(row, after, new)
                return True
            except LeaseLost:
                continue
        raise LeaseLost(saga_id)

    def _parked(self, delivery: Delivery) -> None:
        subject = delivery.subject.removeprefix(DEAD)
        saga_id = saga_id_of(delivery.payload)
        if saga_id is None:
            return  # the list of dead letters shows it
        known = self._read(saga_id, fresh=True)
        letter: dict[str, Any] = {
            "letter": delivery.sequence,
            "stored_at": iso(delivery.at),
        }  # a broker's new disk counts from 1 again
        if known and not known.context.knows(delivery.sequence, letter["stored_at"]):
            message, service = delivery.headers.get("Saga-Reason", ""), delivery.headers.get("Saga-Service", "")
            detail = {"subject": subject, "message": message, **letter, "service": service}
            self._add_line(saga_id, PARKED, service or None, detail)

    def _answered(self, heard: SagaEvent, row: SagaRow) -> None:
        """Let a failure be injected between a call's answer, which this event is, and its being logged."""
        direction = _ANSWERS.get(heard.kind)
        if direction and heard.step:
            self._inject("after", direction, heard.step, row)

    def _about_to_call(self, row: SagaRow) -> None:
        """Let a failure be injected before the call that follows from the log."""
        if row.definition.faults and (call := next_call(row.saga)):
            self._inject("before", call.direction, call.step.name, row)

    def _inject(self, when: str, direction: Direction, step: str, row: SagaRow) -> None:
        if self._on_call and row.definition.faults:
            self._on_call(when, direction, step, row, partial(self._add_line, row.id, FAULT))


# The kinds of events that answer a call, and the direction of that call.
_ANSWERS = {
    EventKind.DONE: Direction.ACTION,
    EventKind.REFUSED: Direction.ACTION,
    EventKind.UNDONE: Direction.COMPENSATION,
}


@contextmanager
def _busy_is_unavailable() -> Iterator[None]:
    """Turn the LeaseLost of a saga that others keep writing into LogUnavailable: the caller is to try again later."""
    try:
        yield
    except LeaseLost as error:
        raise LogUnavailable("other orchestrators keep writing this saga's log: try again") from error
