"""HTTP/1.1 POST with keep-alive, whose time-out bounds a whole attempt: from connecting to the last byte.

A socket's own time-out bounds each read only, so that a server which sends a byte now and then would hold its
caller for ever. Here each operation on the socket gets what is left of the attempt's time. The parsing is
llhttp's, which is Node's; proxies that the environment names are not used.
"""

from __future__ import annotations

import math
import select
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache, partial
from typing import Any
from urllib.parse import quote, urlsplit

import httptools

SENT_AT_ONCE = 1 << 14  # bytes: a socket's buffer takes them, so that sending them waits at most once
READ_AT_MOST = 1 << 16  # bytes at a time
HEAD_AT_MOST = 1 << 16  # bytes
BODY_AT_MOST = 1 << 20  # bytes; what is longer is cut, and so is no JSON any more
IDLE_AT_MOST = 256  # connections kept per address


class Failure(StrEnum):
    """Why there is no answer."""

    NOT_CONNECTED = "not connected"  # nothing was sent
    TIMED_OUT = "timed out"
    BROKEN = "broken"  # reset, closed, cut short, or not HTTP, after something may have been sent


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
    head: bytes  # the request line and the headers that every request has


_IN_PATHS = "/%:@!$&'()*+,;=~?"  # RFC 3986: what may stand in a path and a query as it is


@lru_cache(maxsize=1024)
def _target(url: str) -> _Target:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the URL is not an http:// or https:// one")
    host = parts.hostname.encode("idna").decode("ascii")
    default = 443 if parts.scheme == "https" else 80
    port = default if parts.port is None else parts.port
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    authority = (f"[{host}]" if ":" in host else host) + (f":{port}" if port != default else "")
    # Without Accept-Encoding a server may compress (RFC 9110, section 12.5.3).
    head = f"POST {quote(path, safe=_IN_PATHS)} HTTP/1.1\r\nHost: {authority}\r\nAccept-Encoding: identity\r\n"
    return _Target(parts.scheme, host, port, head.encode("ascii"))


class Transport:
    """Connections shared by any number of threads; an idle one is kept per address and used again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._idle: dict[tuple[str, str, int], deque[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None
        self._closed = False

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        """One attempt, given up `timeout` seconds after its beginning; never raises for what the network does."""
        started = self._clock()
        deadline = started + timeout
        try:
            target = _target(url)
            request = _request(target, headers, body)
        except ValueError as error:
            return self._failed(started, Failure.NOT_CONNECTED, f"the request cannot be sent: {error}")
        try:
            connection = self._connection(target, deadline)
        except TimeoutError:
            return self._failed(started, Failure.TIMED_OUT, f"no connection within {timeout:g} s")
        except OSError as error:
            where = f"{target.host}:{target.port}"
            return self._failed(started, Failure.NOT_CONNECTED, f"no connection to {where}: {_reason(error)}")
        try:
            status, answer_headers, content, reusable = connection.exchange(request, deadline)
        except TimeoutError:
            connection.close()
            return self._failed(started, Failure.TIMED_OUT, f"no answer within {timeout:g} s")
        except (OSError, ValueError) as error:
            connection.close()
            return self._failed(started, Failure.BROKEN, f"the connection broke: {_reason(error)}")
        if reusable and not self._closed:
            self._keep(target, connection)
        else:
            connection.close()
        return Answer(self._since(started), status, answer_headers, content)

    def close(self) -> None:
        """Close the idle connections, and from now on every other after its answer."""
        self._closed = True
        for connections in list(self._idle.values()):
            while connections:
                with suppress(IndexError):  # another thread was quicker
                    connections.pop().close()

    def _keep(self, target: _Target, connection: _Connection) -> None:
        idle = self._idle.setdefault((target.scheme, target.host, target.port), deque())
        idle.append(connection)
        if len(idle) > IDLE_AT_MOST:
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
        raw = self._connect(target, deadline)
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.scheme == "https":
                self._tls = self._tls or ssl.create_default_context()
                raw.settimeout(self._left(deadline))
                raw = self._tls.wrap_socket(raw, server_hostname=target.host)
        except BaseException:
            raw.close()
            raise
        return _Connection(raw, self._left)

    def _connect(self, target: _Target, deadline: float) -> socket.socket:
        """The first of the host's addresses that takes us; all of them together have until the deadline."""
        failure = OSError("the host has no address")
        for found in _addresses(target, self._left(deadline)):
            try:
                return _dial(found, self._left(deadline))
            except OSError as error:
                failure = error
        raise failure

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock()
        if left <= 0:
            raise TimeoutError
        return left

    def _failed(self, started: float, failure: Failure, message: str) -> Answer:
        return Answer(self._since(started), failure=failure, message=message)

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

    def exchange(self, request: bytes, deadline: float) -> tuple[int, dict[str, str], bytes, bool]:
        """Send `request` and read the answer to its end: status, headers, body, may the connection be used again."""
        with suppress(BrokenPipeError, ConnectionResetError):  # a server that has seen enough may have answered
            self._send(request, deadline)
        answer = _Reading()
        while not answer.complete and len(answer.body) < BODY_AT_MOST:
            answer.feed(self._receive(deadline))
        return answer.status, answer.headers, bytes(answer.body[:BODY_AT_MOST]), answer.reusable

    def alive(self) -> bool:
        """Whether the other side has kept it open: an idle connection that is readable was closed."""
        return not self._readable.poll(0)

    def close(self) -> None:
        """Close the socket."""
        with suppress(OSError):
            self.raw.close()

    # A plain socket stays in its blocking mode, and the system ends its operations (SO_RCVTIMEO, socket(7)). Python's
    # own time-outs cost a poll() before each, and hand the interpreter's lock to other threads four times more a call.

    def _send(self, request: bytes, deadline: float) -> None:
        if self._plain and len(request) <= SENT_AT_ONCE:
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
            return self.raw.recv(READ_AT_MOST)
        self._end_at(socket.SO_RCVTIMEO, deadline)
        with _timing_out():
            return self.raw.recv(READ_AT_MOST)

    def _end_at(self, option: int, deadline: float) -> None:
        """The next operation ends at the deadline, or up to 10 ms later: so the same time-out holds call after call."""
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


class _Reading:
    """One answer as it comes in; ConnectionError where it is cut off, ValueError where it is not HTTP."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}  # names in lower case
        self.body = bytearray()
        self.complete = False
        self._alone = True  # nothing came that nobody asked for: it must not be taken for the next answer
        self._kept_alive = False
        self._headed = False
        self._head_size = self._unparsed = 0
        self._parser = httptools.HttpResponseParser(self)

    @property
    def reusable(self) -> bool:
        """Whether the connection may be used for another exchange."""
        return self._alone and self._kept_alive and len(self.body) <= BODY_AT_MOST

    def feed(self, received: bytes) -> None:
        """What has come; nothing where the other side has ended."""
        if not received:
            if not self._headed or {"content-length", "transfer-encoding"} & self.headers.keys():
                raise ConnectionResetError("the answer was cut off")
            self.complete, self._alone = True, False  # a body that lasts as long as its connection
            return
        try:
            self._parser.feed_data(received)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:
                raise ValueError(f"the answer is not HTTP/1.1: {error}") from None
            self._alone = False
        self._unparsed += 0 if self._headed else len(received)
        if max(self._head_size, self._unparsed) > HEAD_AT_MOST:
            raise ValueError("the answer's head is too long")

    # What the parser calls

    def on_message_begin(self) -> None:
        """A second one is not asked for."""
        self._alone = self._alone and not self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the head; trailers are not looked at."""
        if self._headed:
            return
        self._head_size += len(name) + len(value) + 4
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text  # RFC 9110, section 5.3

    def on_headers_complete(self) -> None:
        """The status is known."""
        if not self.complete:
            self.status = self._parser.get_status_code()
            self._headed = True

    def on_body(self, part: bytes) -> None:
        """A part of it."""
        if not self.complete:
            self.body += part

    def on_message_complete(self) -> None:
        """The answer is there, unless it was an interim one, of which many may come before it."""
        if self.complete:
            return
        if self.status < 200:
            self.headers.clear()
            self._headed = False
            return
        self.complete, self._kept_alive = True, bool(self._parser.should_keep_alive())


def _addresses(target: _Target, left: float) -> list[Any]:
    """The host's addresses as socket.getaddrinfo() gives them, TimeoutError after `left` seconds.

    The resolver knows no deadline: a name, other than an address, is looked up in a thread that is left behind.
    """
    look_up = partial(socket.getaddrinfo, target.host, target.port, type=socket.SOCK_STREAM)
    with suppress(socket.gaierror):
        return look_up(flags=socket.AI_NUMERICHOST)
    found: Future[list[Any]] = Future()

    def resolve() -> None:
        try:
            found.set_result(look_up())
        except (OSError, ValueError) as error:
            found.set_exception(error if isinstance(error, OSError) else OSError(str(error)))

    threading.Thread(target=resolve, name=f"look up {target.host}", daemon=True).start()
    return found.result(left)


def _dial(found: tuple[Any, ...], left: float) -> socket.socket:
    family, kind, protocol, _, address = found
    raw = socket.socket(family, kind, protocol)
    try:
        raw.settimeout(left)
        raw.connect(address)
    except BaseException:
        raw.close()
        raise
    return raw


def _request(target: _Target, headers: Mapping[str, str], body: bytes) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError("a header holds a line break")
    return b"%bContent-Length: %d\r\n%b\r\n%b" % (target.head, len(body), lines.encode("latin-1"), body)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
