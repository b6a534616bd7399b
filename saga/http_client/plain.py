"""`PlainTransport` is the transport on `requests`, which `SAGA_PLAIN=1` uses in place of our own client.

It makes the same calls and gives the same answers, as well as `requests` can:

- Each read has the time-out, not the attempt: a server that sends its head byte by byte holds its caller, and so does a
  look-up of a name that never ends.
- A TLS handshake that fails, or takes too long, is an attempt that may have been sent.
- An interim answer other than 100 is taken for the answer, and a head that is cut off for a whole one.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.exceptions import InvalidHeader, InvalidURL
from urllib3.exceptions import ConnectTimeoutError, LocationValueError, NewConnectionError
from urllib3.util import SKIP_HEADER

from saga.http_client.transport import ANSWER_BYTES_AT_MOST, Failure, HttpAnswer
from saga.urls import credentials

BYTES_PER_READ = 1 << 16  # bytes at a time
IDLE_CONNECTIONS_PER_ADDRESS = 256  # connections kept per address
_NOTHING_SENT = (NewConnectionError, ConnectTimeoutError, ssl.SSLCertVerificationError)


class PlainTransport:
    """A `Transport` on an adapter of `requests`, without its sessions: those follow redirects and keep cookies."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._adapter = _Adapter(pool_maxsize=IDLE_CONNECTIONS_PER_ADDRESS)

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
        """Make one attempt, given up about `timeout` seconds after its beginning; see above."""
        return self._attempt("POST", url, headers, body, timeout)

    def get(self, url: str, headers: Mapping[str, str], timeout: float) -> HttpAnswer:
        """Ask in the same way, without a body."""
        return self._attempt("GET", url, headers, None, timeout)

    def close(self) -> None:
        """Close the idle connections; a call that is made later still works."""
        self._adapter.close()

    def _attempt(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout: float
    ) -> HttpAnswer:
        started = self._clock()
        try:
            request = requests.Request(method, url, _headers(url, headers), data=body, auth=_no_other).prepare()
        except ValueError as error:
            return self._failed(started, Failure.NOT_CONNECTED, f"the request cannot be sent: {_unquoted(error)}")
        try:
            limit: Any = urllib3.Timeout(total=timeout)
            response = self._adapter.send(request, stream=True, timeout=limit, proxies={})
        except (OSError, LocationValueError) as error:
            return self._failed(started, *_failure(error, url, timeout))
        known = {name.lower(): value for name, value in response.headers.items()}
        try:
            answer = self._body(response.raw, started + timeout)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            return self._failed(started, *_failure(error, url, timeout))
        finally:
            if response.status_code < 200 or not response.raw.isclosed():
                response.close()  # what is left of it must not be taken for the next answer
        if len(answer) > ANSWER_BYTES_AT_MOST:
            message = f"HTTP {response.status_code} with an answer that is too large: over {ANSWER_BYTES_AT_MOST} bytes"
            duration = self._since(started)
            return HttpAnswer(duration, response.status_code, known, b"", Failure.TOO_LARGE, message)
        return HttpAnswer(self._since(started), response.status_code, known, answer)

    def _body(self, raw: urllib3.HTTPResponse, deadline: float) -> bytes:
        """Return the body to its end, or until it is too large.

        Raises TimeoutError where it is not here by the deadline.
        """
        body = bytearray()
        while len(body) <= ANSWER_BYTES_AT_MOST and (part := raw.read1(BYTES_PER_READ, decode_content=False)):
            body += part
            if self._clock() > deadline:
                raise TimeoutError
        return bytes(body)

    def _failed(self, started: float, failure: Failure, message: str) -> HttpAnswer:
        return HttpAnswer(self._since(started), failure=failure, message=message)

    def _since(self, started: float) -> float:
        return round((self._clock() - started) * 1000, 3)


class _Adapter(HTTPAdapter):
    """Trusts whom the system trusts, as our own client does, besides the certificates that `requests` brings."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Make the pool of connections."""
        super().init_poolmanager(*args, **kwargs, ssl_context=ssl.create_default_context())


def _headers(url: str, headers: Mapping[str, str]) -> dict[str, str | bytes]:
    """Return the headers to send: those given, with a URL's own user and password as Basic Authorization."""
    sent: dict[str, str | bytes] = {"Accept-Encoding": "identity", "User-Agent": SKIP_HEADER}
    sent |= {name: value.encode("latin-1") for name, value in headers.items()}
    if basic := credentials(url):
        sent = {name: value for name, value in sent.items() if name.lower() != "authorization"}
        sent["Authorization"] = basic
    return sent


def _no_other(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Return the request as it is, in place of requests' own reading of a URL's user and password."""
    return request


def _failure(error: BaseException, url: str, timeout: float) -> tuple[Failure, str]:
    """Return the failure that an attempt which raised comes to, and the message that tells of it."""
    causes = list(_causes(error))
    if any(isinstance(cause, InvalidURL | LocationValueError) for cause in causes):
        return Failure.NOT_CONNECTED, f"the request cannot be sent: {_unquoted(error)}"
    certain = next((cause for cause in causes if isinstance(cause, _NOTHING_SENT)), None)
    if certain and type(certain) is ConnectTimeoutError:
        return Failure.NOT_CONNECTED, f"no connection to {_address(url)} within {timeout:g} s"
    if certain:
        return Failure.NOT_CONNECTED, f"no connection to {_address(url)}: {_reason(causes)}"
    if any(isinstance(cause, TimeoutError | urllib3.exceptions.TimeoutError) for cause in causes):
        return Failure.TIMED_OUT, f"no answer within {timeout:g} s"
    return Failure.BROKEN, f"the connection broke: {_reason(causes)}"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its causes, the innermost last: requests wraps urllib3's errors, which wrap the system's."""
    yield error
    for cause in (error.__cause__, getattr(error, "reason", None), *error.args):
        if isinstance(cause, BaseException):
            yield from _causes(cause)
            return


def _reason(causes: list[BaseException]) -> str:
    innermost = causes[-1]
    return getattr(innermost, "strerror", None) or str(innermost) or type(innermost).__name__


def _unquoted(error: BaseException) -> str:
    """Return why a request cannot be sent. An error about a URL is not quoted, since the URL may hold a password."""
    return (
        "a header cannot be sent"
        if isinstance(error, InvalidHeader | UnicodeError)
        else "the URL is not an http:// or https:// one"
    )


def _address(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{f'[{host}]' if ':' in host else host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
