"""Every exception of this library is here. Each says whose fault it is, and so what its caller does about it.

SagaError
├── BadInput            the caller's fault: mend the request (400); it names the field
│   ├── DefinitionError   in a saga's YAML file; it names the file and the line as well
│   ├── SettingsError     in an environment variable
│   └── NotExpressible    a saga that cannot be exported to another engine's language
├── KeyReused           the caller's fault: this idempotency key was used for something else (422)
├── Forbidden           the caller's fault: it is switched off, or not allowed here (403)
│   └── FaultsOff         it would inject a failure, where FAULTS=off
├── NoSuchSaga          the caller's fault: no saga has this id (404)
├── NoSuchLine          the caller's fault: the saga has no such step, or its log no such line (404)
├── NoSuchLetter        the caller's fault: no dead letter has this number (404)
├── Conflict            the caller's fault: the saga's state forbids it (409)
│   └── SagaUnreadable    this version cannot read the saga's row or lines: leave it alone
├── NotJson             a service's own fault: its function returned what JSON cannot hold; nothing took effect (500)
├── WriteRefused        the database refuses this write for what it contains: never try it again (400)
├── Refused             a participant says no, for good: never try it again (409)
├── OutcomeUnknown      a COMMIT failed: the transaction may have taken effect
├── LogUnavailable      the database does not answer: try again later (503)
├── BrokerUnavailable   the broker of choreographed sagas does not answer: try again later (503)
├── EngineUnavailable   Temporal, or its workers, do not answer: try again later (503)
├── Overloaded          too many sagas are in flight here: try again later (503)
├── Overtaken           a line was added beside the driver: number the lines after it, and write them again
├── LeaseLost           another driver has this saga: stop at once, and silently
└── IllegalEvent        our fault: an event that the saga's state does not know; a bug, which nobody handles
"""

from __future__ import annotations


class SagaError(Exception):
    """The root of the tree. It is caught only at a border, to be translated."""


class BadInput(SagaError):
    """The request is wrong. The message names the field and says what it should be."""

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


class DefinitionError(BadInput):
    """A saga's YAML file is wrong. The message is `FILE:LINE: FIELD: what is wrong`."""

    def __init__(self, file: str, line: int | None, field: str, problem: str):
        place = f"{file}:{line}" if line else file
        super().__init__(f"{place}: {field}: {problem}" if field else f"{place}: {problem}", field)
        self.file = file
        self.line = line


class SettingsError(BadInput):
    """An environment variable holds something unusable; `field` is its name."""


class NotExpressible(BadInput):
    """The saga cannot be exported: the target's language has no way to say this."""


class KeyReused(SagaError):
    """The same idempotency key came with another body, for another saga, or in another mode."""


class Forbidden(SagaError):
    """It is switched off here, or the caller is not allowed to do it."""


class FaultsOff(Forbidden):
    """A call asks for an injected failure, and failure injection is switched off."""

    def __init__(self) -> None:
        super().__init__("failure injection is switched off here (FAULTS=off)")


class NoSuchSaga(SagaError):
    """No saga has this id."""


class NoSuchLine(SagaError):
    """The saga has no step of this name, or its log no line with this number."""


class NoSuchLetter(SagaError):
    """No dead letter has this number."""


class Conflict(SagaError):
    """The saga's state does not allow this now."""


class NotJson(SagaError):
    """A service's function returned what JSON cannot hold. The message names the field."""


class SagaUnreadable(Conflict):
    """This version cannot read the saga's row or its lines, so nothing is done to it."""


class WriteRefused(SagaError):
    """The database refuses a write for what it contains: it is too large, or has a value that a column cannot hold.

    It would be refused every time, so it is not tried again; the caller has to write something else.
    """


class Refused(SagaError):
    """A participant's business rule says no: nothing has happened, and nothing will."""


class OutcomeUnknown(SagaError):
    """A COMMIT was not confirmed, so nobody knows whether the transaction took effect."""


class LogUnavailable(SagaError):
    """The database did not answer, or did not accept the write."""


class BrokerUnavailable(SagaError):
    """The broker did not answer, or did not take the event."""


class EngineUnavailable(SagaError):
    """The engine that drives the saga, or its workers, did not answer in time."""


class Overloaded(SagaError):
    """More sagas are in flight than this process takes on."""


class Overtaken(SagaError):
    """Nothing was written: `SagaLog.add_line`, which explains it, has taken the number of the first of the lines."""


class LeaseLost(SagaError):
    """Another driver owns this saga now: its epoch has moved on. Write nothing, call nothing, stop."""


class IllegalEvent(SagaError):
    """The transition table has no row for this event in this state, which is a bug in this library."""
