"""A `Transport` is what the rest of the stack knows of HTTP: `post()` and `get()`, which return an `HttpAnswer`.

A redirect is an answer like any other; the proxies that the environment names and `.netrc` are not used; a URL's
`user:password@` is sent as Basic Authorization.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

ANSWER_BYTES_AT_MOST = 1 << 20  # bytes; what is longer is not read to its end


class Failure(StrEnum):
    """Why there is no answer."""

    NOT_CONNECTED = "not connected"  # nothing was sent: no address, no connection, no TLS, also where time ran out
    TIMED_OUT = "timed out"  # after something may have been sent
    BROKEN = "broken"  # reset, closed, cut short, or not HTTP, after something may have been sent
    TOO_LARGE = "too large"  # there is an answer, with a status, but its body is over the limit


@dataclass(frozen=True)
class HttpAnswer:
    """What came of one attempt: a status with its headers (names in lower case) and body, or a failure.

    Where a body is too large, the status and the headers are there beside the failure.
    """

    duration_ms: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    failure: Failure | None = None
    message: str = ""


class Transport(Protocol):
    """Makes HTTP calls for any number of threads."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
        """Make one attempt, given up `timeout` seconds after its beginning; never raises for what the network does."""

    def get(self, url: str, headers: Mapping[str, str], timeout: float) -> HttpAnswer:
        """Ask in the same way, without a body."""

    def close(self) -> None:
        """Close the idle connections; a call that is made later still works, on a connection of its own."""
