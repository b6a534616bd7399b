"""The status codes of our answers: for each error of saga/errors.py, and for each end of a saga that was started."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from saga.errors import (
    BadInput,
    BrokerUnavailable,
    Conflict,
    EngineUnavailable,
    Forbidden,
    KeyReused,
    LogUnavailable,
    NoSuchLetter,
    NoSuchLine,
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
    NoSuchLine: 404,
    Conflict: 409,
    WriteRefused: 400,
    KeyReused: 422,
    LogUnavailable: 503,
    BrokerUnavailable: 503,
    EngineUnavailable: 503,
    Overloaded: 503,
}

# How POST /start answers for a compensated saga, by the kind of its error.
COMPENSATED_CODES = {"refused": 409, "cancelled": 409, "failed": 500, "timeout": 504, "deadline": 504}


def status_code_of(error: SagaError) -> int:
    """Return the status code of an error; 500 says that it is our own bug."""
    return next((STATUS_CODES[kind] for kind in type(error).__mro__ if kind in STATUS_CODES), 500)


def status_code_of_saga(saga: Mapping[str, Any]) -> int:
    """Return the status code that tells how a saga, as the API represents it, has ended; 202 where it has not."""
    if saga["status"] == "COMPLETED":
        return 200
    if saga["status"] == "COMPENSATED":
        return COMPENSATED_CODES.get(str((saga["error"] or {}).get("kind")), 500)
    return 202
