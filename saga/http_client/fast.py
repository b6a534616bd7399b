"""`FastTransport` is our own transport: HTTP/1.1 with keep-alive, with a time-out that bounds a whole attempt.

A socket's own time-out bounds each read only, so that a server which sends a byte now and then would hold its caller
for ever. Here each operation on the socket gets what is left of the attempt's time. The answer is parsed by llhttp, the
parser of Node.js.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote, urlsplit

from saga.http_client.answer_parser import AnswerParser
from saga.http_client.dial import Resolver, connect
from saga.http_client.transport import ANSWER_BYTES_AT_MOST, Failure, HttpAnswer
from saga.urls import credentials

BUFFERED_BYTES = 1 << 14  # bytes: a socket's buffer takes them, so that sending them waits at most once
BYTES_PER_READ = 1 << 16  # bytes at a time
IDLE_CONNECTIONS_PER_ADDRESS = 256  # connections kept per address


@dataclass(frozen=True)
class _Target:
    scheme: str
    host: str
    port: int
    head: bytes  # the request line and the headers that every request has
    authorized: bool  # one of these headers is Authorization, from the URL itself

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


_IN_PATHS = "/%:@!$&'()*+,;=~?"  # RFC 3986: what may stand in a path and a query as it is


@lru_cache(maxsize=1024)
def _target(method: str, url: str) -> _Target:
    try:
        parts = urlsplit(url)
        known, number = parts.scheme in ("http", "https") and bool(parts.hostname), parts.port
        authorization = credentials(url)
    except ValueError:  # whose message may quote a password
        known, number, authorization = False, None, None
    if not known:
        raise ValueError("the URL is not an http:// or https:// one")
    host = str(parts.hostname).encode("idna").decode("ascii")
    default = 443 if parts.scheme == "https" else 80
    port = default if number is None else number
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if port != default else "")
    # Without Accept-Encoding a server may compress (RFC 9110, section 12.5.3).
    head = f"{method} {quote(path, safe=_IN_PATHS)} HTTP/1.1\r\nHost: {authority}\r\nAccept-Encoding: identity\r\n"
    if authorization:
        head += f"Authorization: {authorization}\r\n"
    return _Target(parts.scheme, host, port, head.encode("ascii"), authorization is not None)


class FastTransport:
    """A `Transport` whose idle connections are kept, up to a number per address, and used again by any thread.

    `resolve`: what looks names up, by default socket.getaddrinfo().
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, resolve: Callable[..., list[Any]] | None = None):
        self._clock = clock
        self._resolver = Resolver(resolve)
        self._idle: dict[tuple[str, str, int], deque[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
        """Make one attempt, given up `timeout` seconds after its beginning; never raises for what the network does."""
        return self._attempt("POST", url, headers, body, timeout)

    def get(self, url: str, headers: Mapping[str, str], timeout: float) -> HttpAnswer:
        """Ask in the same way, without a body."""
        return self._attempt("GET", url, headers, None, timeout)

    def _attempt(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, timeout: float
    ) -> HttpAnswer:
        started = self._clock()
        deadline = started + timeout
        try:
            target = _target(method, url)
            request = _request(target, headers, body)
        except ValueError as error:
            return self._failed(started, Failure.NOT_CONNECTED, f"the request cannot be sent: {error}")
        try:
            connection = self._connection(target, deadline)
        except TimeoutError:
            return self._failed(started, Failure.NOT_CONNECTED, f"no connection to {target} within {timeout:g} s")
        except (OSError, ValueError) as error:
            return self._failed(started, Failure.NOT_CONNECTED, f"no connection to {target}: {_reason(error)}")
        try:
            answer = connection.send_and_receive(request, deadline)
        except TimeoutError:
            connection.close()
            return self._failed(started, Failure.TIMED_OUT, f"no answer within {timeout:g} s")
        except (OSError, ValueError) as error:
            connection.close()
            return self._failed(started, Failure.BROKEN, f"the connection broke: {_reason(error)}")
        if answer.reusable and not self._closed:
            self._keep(target, connection)
        else:
            connection.close()
        if answer.too_large:
            message = f"HTTP {answer.status} with an answer that is too large: over {ANSWER_BYTES_AT_MOST} bytes"
            return HttpAnswer(self._since(started), answer.status, answer.headers, b"", Failure.TOO_LARGE, message)
        return HttpAnswer(self._since(started), answer.status, answer.headers, bytes(answer.body))

    def close(self) -> None:
        """Close the idle connections; from now on, close every other one after its answer."""
        self._closed = True
        for connections in list(self._idle.values()):
            while connections:
                with suppress(IndexError):  # another thread was quicker
                    connections.pop().close()

    def _keep(self, target: _Target, connection: _Connection) -> None:
        idle = self._idle.setdefault((target.scheme, target.host, target.port), deque())
        idle.append(connection)
        if len(idle) > IDLE_CONNECTIONS_PER_ADDRESS:
            with suppress(IndexError):
                idle.popleft().close()

    def _connection(self, target: _Target, deadline: float) -> _Connection:
        idle = self._idle.get((target.scheme, target.host, target.port))
        while idle:
            with suppress(IndexError):
                connection = idle.pop()  # the one used last: the others may grow old
                if connection.alive():
                    return connection
                connection.close()
        left = partial(self._left, deadline)
        raw = connect(self._resolver.addresses(target.host, target.port, left()), left)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.scheme == "https":
                self._tls = self._tls or ssl.create_default_context()
                raw.settimeout(left())
                raw = self._tls.wrap_socket(raw, server_hostname=target.host)
            left()  # what comes after this may have been sent
        except BaseException:
            raw.close()
            raise
        return _Connection(raw, self._left)

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        return left

    def _failed(self, started: float, failure: Failure, message: str) -> HttpAnswer:
        return HttpAnswer(self._since(started), failure=failure, message=message)

    def _since(self, started: float) -> float:
        return round((self._clock() - started) * 1000, 3)


class _Connection:
    """A connected socket whose every operation ends at the deadline of the attempt under way."""

    def __init__(self, raw: socket.socket, left: Callable[[float], float]):
        self.raw = raw
        self._left = left
        self._plain = not isinstance(raw, ssl.SSLSocket)
        self._ends: dict[int, int] = {}  # the time-outs that the system has been told
        self._readable = select.poll()
        self._readable.register(raw, select.POLLIN)
        if self._plain:
            raw.settimeout(None)

    def send_and_receive(self, request: bytes, deadline: float) -> AnswerParser:
        """Send `request` and read the answer to its end, or until it is too large."""
        with suppress(BrokenPipeError, ConnectionResetError):  # a server that has seen enough may have answered
            self._send(request, deadline)
        answer = AnswerParser()
        while not answer.complete and not answer.too_large:
            answer.feed(self._receive(deadline))
        return answer

    def alive(self) -> bool:
        """Return whether the other side keeps this idle connection open: there is something to read only at its end."""
        return not self._readable.poll(0)

    def close(self) -> None:
        """Close the socket."""
        with suppress(OSError):
            self.raw.close()

    # A plain socket stays in its blocking mode, and the system ends its operations (SO_RCVTIMEO, socket(7)). Python's
    # own time-outs cost a poll() before each, and hand the interpreter's lock to other threads four times more a call.

    def _send(self, request: bytes, deadline: float) -> None:
        if self._plain and len(request) <= BUFFERED_BYTES:
            self._end_at(socket.SO_SNDTIMEO, deadline)
            with _timing_out():
                self.raw.sendall(request)
            return
        self.raw.settimeout(self._left(deadline))  # bounds all of it, however slowly it is taken
        self.raw.sendall(request)
        if self._plain:
            self.raw.settimeout(None)

    def _receive(self, deadline: float) -> bytes:
        if not self._plain:
            self.raw.settimeout(self._left(deadline))
            return self.raw.recv(BYTES_PER_READ)
        self._end_at(socket.SO_RCVTIMEO, deadline)
        with _timing_out():
            return self.raw.recv(BYTES_PER_READ)

    def _end_at(self, option: int, deadline: float) -> None:
        """Make the next operation end at the deadline. Rounded up to 10 ms, one time-out serves call after call."""
        hundredths = math.ceil(self._left(deadline) * 100)
        if self._ends.get(option) != hundredths:
            seconds, rest = divmod(hundredths, 100)
            self.raw.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", seconds, rest * 10_000))
            self._ends[option] = hundredths


@contextmanager
def _timing_out() -> Iterator[None]:
    try:
        yield
    except BlockingIOError:
        raise TimeoutError from None


def _request(target: _Target, headers: Mapping[str, str], body: bytes | None) -> bytes:
    if target.authorized:
        headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a header holds a line break")
    if body is None:
        return b"%b%b\r\n" % (target.head, lines.encode("latin-1"))
    return b"%bContent-Length: %d\r\n%b\r\n%b" % (target.head, len(body), lines.encode("latin-1"), body)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
