"""HTTP/1.1 POST with keep-alive, whose time-out bounds a whole attempt: from connecting to the last byte.

A socket's own time-out bounds each read only, so that a server which sends a byte now and then would hold its
caller for ever. Here each operation on the socket gets what is left of the attempt's time. (Looking a name up
is the one thing that cannot be bounded so.) The parsing is http.client's.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any
from urllib.parse import quote, urlsplit

BODY_AT_MOST = 1 << 20  # bytes; what is longer is cut, and so is no JSON any more


class Failure(StrEnum):
    """Why there is no answer."""

    NOT_CONNECTED = "not connected"  # nothing was sent
    TIMED_OUT = "timed out"
    BROKEN = "broken"  # reset, closed, or not HTTP, after something was sent


@dataclass(frozen=True)
class Answer:
    """What came of one attempt: a status with its headers (names in lower case) and body, or a failure."""

    duration_ms: float
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    failure: Failure | None = None
    message: str = ""


@dataclass(frozen=True)
class _Target:
    scheme: str
    host: str
    port: int
    head: bytes  # the request line and the Host header


_IN_PATHS = "/%:@!$&'()*+,;=~?"  # RFC 3986: what may stand in a path and a query as it is


@lru_cache(maxsize=1024)
def _target(url: str) -> _Target:
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    named = f"[{host}]" if ":" in host else host
    head = f"POST {quote(path, safe=_IN_PATHS)} HTTP/1.1\r\nHost: {named}:{port}\r\n"
    return _Target(parts.scheme, host, port, head.encode("ascii"))


class Transport:
    """Connections shared by any number of threads; an idle one is kept per address and used again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._idle: dict[tuple[str, str, int], deque[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        """One attempt, given up `timeout` seconds after its beginning; never raises for what the network does."""
        started = self._clock()
        deadline = started + timeout
        target = _target(url)
        try:
            connection = self._connection(target, deadline)
        except TimeoutError:
            return self._failed(started, Failure.TIMED_OUT, f"no connection within {timeout:g} s")
        except OSError as error:
            where = f"{target.host}:{target.port}"
            return self._failed(started, Failure.NOT_CONNECTED, f"no connection to {where}: {_reason(error)}")
        try:
            answer, reusable = connection.exchange(_request(target, headers, body), deadline)
        except TimeoutError:
            connection.close()
            return self._failed(started, Failure.TIMED_OUT, f"no answer within {timeout:g} s")
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            return self._failed(started, Failure.BROKEN, f"the connection broke: {_reason(error)}")
        if reusable:
            self._idle.setdefault((target.scheme, target.host, target.port), deque(maxlen=256)).append(connection)
        else:
            connection.close()
        status, answer_headers, content = answer
        return Answer(self._since(started), status, answer_headers, content)

    def close(self) -> None:
        """Close the idle connections."""
        for connections in self._idle.values():
            while connections:
                connections.pop().close()

    def _connection(self, target: _Target, deadline: float) -> _Connection:
        idle = self._idle.get((target.scheme, target.host, target.port))
        while idle:
            with suppress(IndexError):  # another thread was quicker
                connection = idle.pop()
                if connection.alive():
                    return connection
                connection.close()
        raw = socket.create_connection((target.host, target.port), max(0.001, deadline - self._clock()))
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.scheme == "https":
                self._tls = self._tls or ssl.create_default_context()
                raw.settimeout(max(0.001, deadline - self._clock()))
                raw = self._tls.wrap_socket(raw, server_hostname=target.host)
        except BaseException:
            raw.close()
            raise
        return _Connection(raw, self._clock)

    def _failed(self, started: float, failure: Failure, message: str) -> Answer:
        return Answer(self._since(started), failure=failure, message=message)

    def _since(self, started: float) -> float:
        return round((self._clock() - started) * 1000, 3)


class _Connection:
    """A connected socket whose every operation ends at the deadline of the attempt under way."""

    def __init__(self, raw: socket.socket, clock: Callable[[], float]):
        self.raw = raw
        self._clock = clock
        self._deadline = 0.0

    def exchange(self, request: bytes, deadline: float) -> tuple[tuple[int, dict[str, str], bytes], bool]:
        """Send `request`, read the answer to its end; gives it, and whether the connection can be used again."""
        self._deadline = deadline
        self.set_timeout()
        self.raw.sendall(request)  # its time-out is for all of it
        response = http.client.HTTPResponse(self, method="POST")  # type: ignore[arg-type]  # only makefile() is used
        try:
            response.begin()
            body = response.read(BODY_AT_MOST)
            whole = response.isclosed() or not response.read(1)
            headers = {name.lower(): value for name, value in response.getheaders()}
            return (response.status, headers, body), whole and not response.will_close
        finally:
            response.close()

    def alive(self) -> bool:
        """Whether the other side has kept it open: an idle connection that is readable was closed."""
        readable = select.poll()
        readable.register(self.raw, select.POLLIN)
        return not readable.poll(0)

    def close(self) -> None:
        """Close the socket."""
        with suppress(OSError):
            self.raw.close()

    def set_timeout(self) -> None:
        """Give the next operation what is left; TimeoutError where that is nothing."""
        left = self._deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        self.raw.settimeout(left)

    def makefile(self, mode: str) -> io.BufferedReader:
        """What http.client reads from."""
        return io.BufferedReader(_Reader(self))


class _Reader(io.RawIOBase):
    def __init__(self, connection: _Connection):
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.set_timeout()
        return self._connection.raw.recv_into(buffer)


def _request(target: _Target, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"%bContent-Length: %d\r\n%b\r\n%b" % (target.head, len(body), lines.encode("latin-1"), body)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
