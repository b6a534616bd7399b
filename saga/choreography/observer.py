"""Observes choreographed sagas: folds the events that their services publish into the saga log, and decides nothing.

The log's lines are those of the state machine, so that a choreographed saga is read, shown and audited like any
other. An event that is delivered again changes nothing; one that came before its time is delivered again, later.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
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
TRIES = 5  # at a saga that another orchestrator follows, too
TIMEOUT = 10.0  # seconds that handling one event may take
EARLY = 0.01  # seconds, doubling with each delivery
EARLY_AT_MOST = 5.0


class Observer:
    """Handles every event (see broker.Handler) by writing what it says into the log of the saga that it concerns."""

    def __init__(
        self,
        log: SagaLog,
        end_signals: EndSignals,
        clock: Callable[[], float],
        observe: Callable[[SagaRow, Line], None],
        exit: Callable[[int], None],
    ):
        self._log = log
        self._end_signals = end_signals
        self._clock = clock
        self._observe = observe
        self._exit = exit
        self._known: OrderedDict[str, SagaRow] = OrderedDict()

    def timeout_for(self, subject: str) -> float:
        """The seconds that one event may take."""
        return TIMEOUT

    def ordering_key(self, subject: str, payload: bytes) -> str | None:
        """The saga: its events are handled in the order in which the broker has them, where one led to the other."""
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
        """Note that a saga's deadline has passed; nobody is in charge of it who could turn it back.

        Raises LeaseLost or LogUnavailable where that could not be written.
        """
        self._add_line(row.id, OVERDUE, None, {}, due_at=None)

    def replayed(self, saga_id: str, letter: int, subject: str) -> None:
        """Note that an operator has let a parked event be published again. Raises LeaseLost or LogUnavailable."""
        self._add_line(saga_id, REPLAYED, None, {"letter": letter, "subject": subject, "by": "operator"}, rounds=0)

    def abandoned(self, saga_id: str, note: str) -> None:
        """End a saga for which no service will ever act. Raises Conflict, NoSuchSaga, LeaseLost or LogUnavailable."""
        for _ in range(TRIES):
            known = self._read(saga_id, fresh=True)
            if known is None:
                raise NoSuchSaga(f"there is no saga {saga_id!r}")
            if why := refusal("abandon", known):
                raise Conflict(why)
            after, new = abandon(known, note, round(self._clock(), 6))
            try:
                self._write(known, after, new)
                return
            except LeaseLost:
                continue
        raise Conflict("it is moving too fast, try again")

    def _hear(self, heard: SagaEvent) -> None:
        if heard.kind not in OBSERVED:
            return
        for fresh in (False, *[True] * TRIES):
            known = self._read(heard.saga_id, fresh)
            if known is None:  # forgotten, or started by an orchestrator with another log: one broker is for one stack
                logger.warning("event_of_unknown_saga saga_id=%s subject=%s", heard.saga_id, heard.subject)
                return
            self._remember(known)
            self._crash("after", heard, known)
            try:
                after, new = fold_event(known, heard)
                if new:
                    after = self._write_what_fits(known, heard, after, new)
                self._crash("before", heard, after)
                return
            except Early:
                if fresh:
                    raise
            except LeaseLost:  # another orchestrator has written meanwhile
                continue
        raise LeaseLost(heard.saga_id)

    def _write_what_fits(self, row: SagaRow, heard: SagaEvent, after: SagaRow, new: list[Line]) -> SagaRow:
        """Write what an event says; where the log cannot take all of it, that it happened, and why no more is known.

        The step has acted, and the others go on with its result, which only the log will not have: nobody turns back.
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
        for _ in range(TRIES):
            row = self._read(saga_id, fresh=True)
            if row is None:
                return
            line = Line(row.context.lines + 1, round(self._clock(), 6), event, step, detail=detail)
            after = replace(row.after(line), **changes)
            after = replace(after, rounds=rounds_of(after.rounds, after.context))
            try:
                self._write(row, after, [line])
                return
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

    def _crash(self, when: str, heard: SagaEvent, row: SagaRow) -> None:
        """Make the orchestrator crash where the saga's definition says so, once a saga.

        `when` is "after": the event says that a call was answered, and is not in the log yet; or "before": the log has
        the event, and the next call follows from it.
        """
        if not row.definition.faults:
            return
        if when == "after":
            undo = {EventKind.DONE: "", EventKind.REFUSED: "", EventKind.UNDONE: "undo-"}.get(heard.kind)
            point = None if undo is None else f"{undo}{heard.step}"
        else:
            call = next_call(row.saga)
            undo = "undo-" if call and call.direction is Direction.COMPENSATION else ""
            point = f"{undo}{call.step.name}" if call else None
        name = f"{when}-{point}"
        if point is None or name not in row.definition.faults:
            return
        if name not in row.context.faults:
            self._add_line(row.id, FAULT, point.removeprefix("undo-"), {"fault": name})
            self._exit(17)
