"""This module keeps what a row notes of choreographed sagas alone: dead letters, and whether a service has heard.

The core knows no more of choreography than this, the name of the mode (definition.py), and the names of the lines that
these notes are made from (machine.py). It must know that much, because every process has to be able to read every row,
also where choreography is not installed. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from saga.definition import SagaDefinition
from saga.machine import FAULT, OVERDUE, PARKED, REPLAYED, STARTED, Line

ORCHESTRATOR = "orchestrator"  # the service in the line of an event that the orchestrator itself could not publish
_NO_SERVICE_CAUSES = frozenset({STARTED, OVERDUE, FAULT})  # the events of lines that no service can have caused
REPLAYED_LETTERS_KEPT = 20  # replayed dead letters that are remembered, so that none gets a second line


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter: an event of a choreographed saga that a service could not handle, and that was parked."""

    letter: int  # its number at the broker
    subject: str | None
    stored_at: str | None  # with the number it names the letter: a broker with a new disk counts from 1 again
    line: int  # the number of the line that tells of it


def tells_of_a_service(definition: SagaDefinition, line: Line) -> bool:
    """Return whether a line shows that a service has heard, or may have heard, of a saga that nobody drives."""
    return definition.choreographed and not before_any_service(line)


def before_any_service(line: Line) -> bool:
    """Return whether a line of a choreographed saga can be written before any service has heard of the saga."""
    return line.event in _NO_SERVICE_CAUSES or (line.event == PARKED and line.facts.get("service") == ORCHESTRATOR)


def parked_after(parked: Sequence[DeadLetter], line: Line) -> tuple[DeadLetter, ...]:
    """Return the dead letters that wait after one more line: parking adds one, a replay takes it away."""
    if line.event not in (PARKED, REPLAYED):
        return tuple(parked)
    letter = _letter(line)
    others = tuple(each for each in parked if each.letter != letter.letter)
    return (*others, letter) if line.event == PARKED else others


def replayed_after(parked: Sequence[DeadLetter], replayed: Sequence[DeadLetter], line: Line) -> tuple[DeadLetter, ...]:
    """Return the latest REPLAYED_LETTERS_KEPT dead letters that were replayed, after a line that tells of a replay."""
    number = _letter(line).letter
    return (*replayed, *(each for each in parked if each.letter == number))[-REPLAYED_LETTERS_KEPT:]


def _letter(line: Line) -> DeadLetter:
    facts = line.facts
    return DeadLetter(int(facts.get("letter", 0)), facts.get("subject"), facts.get("stored_at"), line.seq)
