"""Every exception of this library. Each says whose fault it is, and so what the caller does about it.

SagaError
├── BadInput            the caller's: mend the request (400); names the field
│   ├── DefinitionError   a saga's YAML file; names file and line too
│   ├── SettingsError     an environment variable
│   └── NotExpressible    a saga that another engine's language cannot say
├── KeyReused           the caller's: this key was used with another body, saga or mode (422)
├── Forbidden           the caller's: switched off or not allowed here (403)
│   └── FaultsOff         a failure is to be injected, where FAULTS=off
├── NoSuchSaga          the caller's: there is no such saga (404)
├── NoSuchLetter        the caller's: there is no such dead letter (404)
├── Conflict            the caller's: the saga's state forbids it (409)
│   └── SagaUnreadable    its row or its lines are not for this version: leave it alone
├── NotJson             a service's own: its function returned what JSON cannot say; nothing took effect (500)
├── WriteRefused        the database refuses what it is asked to write: do not try it again (400)
├── Refused             a participant says no, for good: do not retry (409)
├── OutcomeUnknown      a COMMIT failed: perhaps it took effect
├── LogUnavailable      the database does not answer: try again later (503)
├── BrokerUnavailable   the broker of choreographed sagas does not answer: try again later (503)
├── EngineUnavailable   Temporal, or its workers, do not answer: try again later (503)
├── Overloaded          too many sagas in flight: try again later (503)
├── Overtaken           somebody has noted something in the log meanwhile: number the lines anew, and write again
├── LeaseLost           another orchestrator drives this saga: stop at once, silently
└── IllegalEvent        ours: an event that its state does not know; a bug, never handled
"""

from __future__ import annotations


class SagaError(Exception):
    """The root: catch it only at a border, to translate."""


class BadInput(SagaError):
    """The request is wrong; the message names the field and says what it should be."""

    def __init__(self, message: str, field: str | None = None):
        super().__init__(message)
        self.field = field


class DefinitionError(BadInput):
    """A saga's YAML file is wrong: `FILE:LINE: FIELD: what is wrong`."""

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
    """It is switched off here, or the caller may not."""


class FaultsOff(Forbidden):
    """A call asks for an injected failure, and failure injection is switched off."""

    def __init__(self) -> None:
        super().__init__("failure injection is switched off here (FAULTS=off)")


class NoSuchSaga(SagaError):
    """No saga has this id."""


class NoSuchLetter(SagaError):
    """No dead letter has this number."""


class Conflict(SagaError):
    """The saga's state does not allow this now."""


class NotJson(SagaError):
    """A service's function returned what JSON cannot say; the message names the field."""


class SagaUnreadable(Conflict):
    """This version cannot read the saga's row or its lines, and so does nothing to it."""


class WriteRefused(SagaError):
    """The database refuses what it is asked to write for what it is: too large, or a value that it cannot hold.

    It would refuse it each time, so the write is not tried again: whoever asked for it must ask for something else.
    """


class Refused(SagaError):
    """A participant's business rule says no: nothing happened and nothing will."""


class OutcomeUnknown(SagaError):
    """A COMMIT was not confirmed: whether the transaction took effect is not known."""


class LogUnavailable(SagaError):
    """The database did not answer, or did not accept the write."""


class BrokerUnavailable(SagaError):
    """The broker did not answer, or did not take the event."""


class EngineUnavailable(SagaError):
    """The engine that drives the saga, or its workers, did not answer in time."""


class Overloaded(SagaError):
    """More sagas are in flight than this process takes on."""


class Overtaken(SagaError):
    """Nothing was written: a line of somebody who does not drive the saga has taken the number of the first one."""


class LeaseLost(SagaError):
    """Somebody else owns this saga now (its epoch has moved on): write nothing, call nothing, stop."""


class IllegalEvent(SagaError):
    """An event that the transition table does not have for this state: a bug in this library."""
