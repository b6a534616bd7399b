"""What an error is answered with over HTTP, by the API and by the pages."""

from __future__ import annotations

from saga.errors import (
    BadInput,
    BrokerUnavailable,
    Conflict,
    EngineUnavailable,
    Forbidden,
    KeyReused,
    LogUnavailable,
    NoSuchLetter,
    NoSuchSaga,
    Overloaded,
    SagaError,
    WriteRefused,
)

STATUS_CODES: dict[type[SagaError], int] = {
    BadInput: 400,
    Forbidden: 403,
    NoSuchSaga: 404,
    NoSuchLetter: 404,
    Conflict: 409,
    WriteRefused: 400,
    KeyReused: 422,
    LogUnavailable: 503,
    BrokerUnavailable: 503,
    EngineUnavailable: 503,
    Overloaded: 503,
}


def status_code_of(error: SagaError) -> int:
    """The status code; 500 is our own bug."""
    return next((STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES), 500)
