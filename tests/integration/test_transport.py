"""The transport against real sockets: servers that drip, hang, reset, cut short, say too much, or are not there."""

from __future__ import annotations

import gc
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from saga.http_client import dial
from saga.http_client.fast import FastTransport
from saga.http_client.plain import PlainTransport
from saga.http_client.transport import ANSWER_BYTES_AT_MOST, Failure, HttpAnswer, Transport
from tests.support.stack import eventually

SHORT = 0.3  # seconds of an attempt that is meant to run out
AMPLE = 20.0  # seconds of one that is not
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\nSaga-Id: s\r\n\r\n{"ok":true}'

Play = Callable[[socket.socket, int], None]  # plays one connection, given its number from 0


class Server:
    """Accepts on a port of its own; `play` does what it likes with each connection, in a thread of that connection."""

    def __init__(self, play: Play, tls: ssl.SSLContext | None = None):
        self.play = play
        self.tls = tls
        self.connections: list[socket.socket] = []
        self.over = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://localhost:{self.port}/invoke"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._serve, args=(connection, len(self.connections) - 1), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        try:
            with self.tls.wrap_socket(connection, server_side=True) if self.tls else connection as wrapped:
                self.play(wrapped, number)
        except OSError:
            pass  # the client went away, or the test is over

    def close(self) -> None:
        self.over.set()
        with suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)  # close() alone would not end a waiting accept()
        self.listener.close()
        for connection in self.connections:
            connection.close()


def read_request(connection: socket.socket) -> bytes:
    """The next whole request, b"" where the client has closed."""
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := connection.recv(65536)):
            return b""
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    length = next((int(line[15:]) for line in lines if line.lower().startswith(b"content-length:")), 0)
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


def always(answer: bytes, *, then_close: bool = False) -> Play:
    def play(connection: socket.socket, number: int) -> None:
        while read_request(connection):
            connection.sendall(answer)
            if then_close:
                return

    return play


@pytest.fixture(params=[FastTransport, PlainTransport])
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    """Our own client and the plain one: what a test of both finds, both promise."""
    made: Transport = request.param()
    yield made
    made.close()


@pytest.fixture
def fast() -> Iterator[FastTransport]:
    """Our own client, for what the plain one does not promise."""
    made = FastTransport()
    yield made
    made.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(play: Play, tls: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(play, tls))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


Serve = Callable[..., Server]


def post(transport: Transport, server: Server, timeout: float = AMPLE, body: bytes = b"{}") -> HttpAnswer:
    return transport.post(server.url, {"Content-Type": "application/json"}, body, timeout)


def closed_by_peer(server: Server) -> None:
    """Wait until every connection to the server has seen that it closed its end."""
    me = psutil.Process()

    def kept() -> list[object]:
        ours = [one for one in me.net_connections("tcp") if one.raddr and one.raddr[1] == server.port]
        return [one for one in ours if one.status == psutil.CONN_ESTABLISHED]

    eventually(lambda: not kept(), every=0.001)


# An answer, and the connection after it


def test_an_answer_has_its_status_headers_in_lower_case_and_body(transport: Transport, serve: Serve) -> None:
    answer = post(transport, serve(always(OK)))
    assert (answer.status, answer.headers["saga-id"], answer.body, answer.failure) == (200, "s", b'{"ok":true}', None)
    assert answer.duration_ms > 0


def test_a_request_is_sent_as_it_was_given(fast: FastTransport, serve: Serve) -> None:
    seen: list[bytes] = []

    def play(connection: socket.socket, number: int) -> None:
        seen.append(read_request(connection))
        connection.sendall(OK)

    server = serve(play)
    fast.post(f"{server.url}?fail=after:1&note=a b", {"Saga-Id": "s", "Saga-Step": "B"}, b'{"a": "\xc3\xa9"}', AMPLE)
    assert seen == [
        b"POST /invoke?fail=after:1&note=a%%20b HTTP/1.1\r\n"
        b"Host: localhost:%d\r\n"
        b"Accept-Encoding: identity\r\n"
        b"Content-Length: 11\r\n"
        b'Saga-Id: s\r\nSaga-Step: B\r\n\r\n{"a": "\xc3\xa9"}' % server.port
    ]


def test_a_header_that_comes_twice_is_one_list(transport: Transport, serve: Serve) -> None:
    twice = b"HTTP/1.1 500 E\r\nContent-Length: 0\r\nSaga-Effect: none\r\nSaga-Effect: some\r\n\r\n"
    assert post(transport, serve(always(twice))).headers["saga-effect"] == "none, some"


def test_calls_one_after_the_other_share_a_connection(transport: Transport, serve: Serve) -> None:
    server = serve(always(OK))
    for _ in range(5):
        assert post(transport, server).status == 200
    assert len(server.connections) == 1


CHUNKED = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"ok\r\n7\r\n":true}\r\n0\r\n\r\n'


def test_a_chunked_answer_is_whole_and_its_connection_is_used_again(transport: Transport, serve: Serve) -> None:
    server = serve(always(CHUNKED))
    assert [post(transport, server).body for _ in range(3)] == [b'{"ok":true}'] * 3
    assert len(server.connections) == 1


def test_a_continue_before_the_answer_is_skipped(transport: Transport, serve: Serve) -> None:
    server = serve(always(b"HTTP/1.1 100 Continue\r\n\r\n" + OK))
    assert [post(transport, server).status for _ in range(2)] == [200, 200]
    assert len(server.connections) == 1


@pytest.mark.parametrize(
    "answer",
    [
        OK.replace(b"Saga-Id: s", b"Connection: close"),
        OK.replace(b"HTTP/1.1", b"HTTP/1.0"),
        b'HTTP/1.1 200 OK\r\n\r\n{"ok":true}',
    ],
    ids=["Connection: close", "HTTP/1.0", "no length"],
)
def test_a_connection_that_the_server_ends_is_not_used_again(transport: Transport, serve: Serve, answer: bytes) -> None:
    server = serve(always(answer, then_close=True))
    assert [post(transport, server).body for _ in range(2)] == [b'{"ok":true}'] * 2
    assert len(server.connections) == 2


def test_a_connection_that_was_closed_while_idle_is_replaced(transport: Transport, serve: Serve) -> None:
    """Keep-alive ends some time; a call that comes after is not lost, nor does it look as if it may have been."""
    server = serve(always(OK, then_close=True))
    for _ in range(3):
        assert post(transport, server).status == 200
        closed_by_peer(server)
    assert len(server.connections) == 3


def test_a_server_killed_since_the_last_call_is_a_refused_connection(transport: Transport, serve: Serve) -> None:
    server = serve(always(OK, then_close=True))
    assert post(transport, server).status == 200
    server.close()
    closed_by_peer(server)
    assert post(transport, server).failure is Failure.NOT_CONNECTED


SURPLUS = b"HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("pause", [False, True], ids=["at once", "later"])
def test_what_follows_an_answer_unasked_is_not_taken_for_the_next_answer(
    fast: FastTransport, serve: Serve, pause: bool
) -> None:
    def play(connection: socket.socket, number: int) -> None:
        while read_request(connection):
            connection.sendall(OK if pause else OK + SURPLUS)
            if pause:
                connection.sendall(SURPLUS)
                sent.set()

    sent = threading.Event()
    server = serve(play)
    assert post(fast, server).status == 200
    assert not pause or sent.wait(AMPLE)
    if pause:
        idle = [connection for connections in fast._idle.values() for connection in connections]
        eventually(lambda: not any(connection.alive() for connection in idle))  # readable, which is all that is asked
    assert post(fast, server).status == 200
    assert len(server.connections) == 2


def test_an_early_hint_is_not_taken_for_the_answer(fast: FastTransport, serve: Serve) -> None:
    def play(connection: socket.socket, number: int) -> None:
        while read_request(connection):
            connection.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
            connection.sendall(SURPLUS)

    server = serve(play)
    answers = [post(fast, server) for _ in range(2)]
    assert [(answer.status, "link" in answer.headers) for answer in answers] == [(409, False)] * 2
    assert len(server.connections) == 1


def sized(length: int) -> bytes:
    return b"HTTP/1.1 409 Conflict\r\nContent-Length: %d\r\n\r\n" % length + b"x" * length


def in_chunks(length: int) -> bytes:
    return b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (length, b"x" * length)


@pytest.mark.parametrize("framed", [sized, in_chunks])
def test_a_body_of_one_mebibyte_is_whole(transport: Transport, serve: Serve, framed: Callable[[int], bytes]) -> None:
    server = serve(always(framed(ANSWER_BYTES_AT_MOST)))
    answers = [post(transport, server) for _ in range(2)]
    assert [(answer.status, len(answer.body), answer.failure) for answer in answers] == [
        (409, ANSWER_BYTES_AT_MOST, None)
    ] * 2
    assert len(server.connections) == 1


@pytest.mark.parametrize("length", [ANSWER_BYTES_AT_MOST + 1, 3 * ANSWER_BYTES_AT_MOST])
@pytest.mark.parametrize("framed", [sized, in_chunks])
def test_a_larger_one_is_too_large(
    transport: Transport, serve: Serve, framed: Callable[[int], bytes], length: int
) -> None:
    server = serve(always(framed(length)))
    answers = [post(transport, server) for _ in range(2)]
    message = "HTTP 409 with an answer that is too large: over 1048576 bytes"
    assert [(answer.status, answer.body, answer.failure, answer.message) for answer in answers] == [
        (409, b"", Failure.TOO_LARGE, message)
    ] * 2


def test_a_connection_with_an_answer_that_is_too_large_is_given_up(fast: FastTransport, serve: Serve) -> None:
    server = serve(always(sized(ANSWER_BYTES_AT_MOST + 1)))
    assert [post(fast, server).failure for _ in range(2)] == [Failure.TOO_LARGE] * 2
    assert len(server.connections) == 2


def test_a_204_has_no_body_and_keeps_its_connection(transport: Transport, serve: Serve) -> None:
    server = serve(always(b"HTTP/1.1 204 No Content\r\n\r\n"))
    assert [(answer.status, answer.body) for answer in [post(transport, server) for _ in range(2)]] == [(204, b"")] * 2
    assert len(server.connections) == 1


def test_a_redirect_is_an_answer_and_is_not_followed(transport: Transport, serve: Serve) -> None:
    other = serve(always(OK))
    server = serve(always(b"HTTP/1.1 307 T\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % other.url.encode()))
    answers = [post(transport, server), transport.get(server.url, {}, AMPLE)]
    assert [(answer.status, answer.headers["location"]) for answer in answers] == [(307, other.url)] * 2
    assert not other.connections


def test_a_redirect_to_nowhere_is_an_answer_too(transport: Transport, serve: Serve) -> None:
    server = serve(
        always(b"HTTP/1.1 302 F\r\nLocation: http://[::1:x/\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")
    )
    assert [post(transport, server).status for _ in range(2)] == [302, 302]


def asked_for(transport: Transport, serve: Serve, url: str, headers: dict[str, str]) -> tuple[bytes, list[bytes]]:
    """What a GET sends: its request line and its headers."""
    seen: list[bytes] = []

    def play(connection: socket.socket, number: int) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(OK)

    server = serve(play)
    assert transport.get(url.replace("HERE", f"localhost:{server.port}"), headers, AMPLE).status == 200
    line, *rest = seen[0].rstrip(b"\r\n").split(b"\r\n")
    return line, sorted(header for header in rest if not header.startswith(b"Host:"))


def test_a_question_has_no_body_and_asks_for_no_encoding(transport: Transport, serve: Serve) -> None:
    line, headers = asked_for(transport, serve, "http://HERE/records/a%2Fb", {"Authorization": "Bearer t"})
    assert line == b"GET /records/a%2Fb HTTP/1.1"
    assert headers == [b"Accept-Encoding: identity", b"Authorization: Bearer t"]


def test_a_urls_user_and_password_are_sent_as_basic_in_place_of_a_token(transport: Transport, serve: Serve) -> None:
    line, headers = asked_for(transport, serve, "http://u%40x:p%2Fq@HERE/x", {"authorization": "Bearer t", "A": "b"})
    assert line == b"GET /x HTTP/1.1"
    assert headers == [b"A: b", b"Accept-Encoding: identity", b"Authorization: Basic dUB4OnAvcQ=="]


@pytest.mark.parametrize("url", ["http://u:secret/x@localhost/", "http://u:secret@[b/", "http://u:secret@b:99999/"])
def test_a_url_that_is_none_is_not_quoted(transport: Transport, url: str) -> None:
    answer = transport.post(url, {}, b"{}", AMPLE)
    assert answer.failure is Failure.NOT_CONNECTED
    assert "secret" not in answer.message


def test_a_netrc_is_not_read(
    transport: Transport, serve: Serve, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine localhost login u password p\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert asked_for(transport, serve, "http://HERE/", {})[1] == [b"Accept-Encoding: identity"]


def test_a_server_that_answers_before_it_has_read_everything_is_heard(transport: Transport, serve: Serve) -> None:
    def play(connection: socket.socket, number: int) -> None:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        # Closing with a request half read resets the connection under the client's hands.

    server = serve(play)
    assert [post(transport, server, body=b"x" * (8 << 20)).status for _ in range(20)] == [413] * 20


# The time-out bounds the whole attempt (Pitfall 14)


LONG = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000


def slowly(connection: socket.socket, data: bytes, over: threading.Event) -> None:
    for position in range(len(data)):
        if over.wait(SHORT / 10):  # each wait is far within the time-out, all together are far beyond it
            return
        connection.sendall(data[position : position + 1])


HUGE = b"x" * (32 << 20)  # more than all buffers on its way hold; to copy it takes a while where much is going on


class SlowReader:
    """Takes a quarter of a MiB now and then, each within the time-out, until nothing more comes."""

    def __init__(self) -> None:
        self.taken = 0
        self.ended = threading.Event()

    def __call__(self, connection: socket.socket, number: int) -> None:
        try:
            while part := connection.recv(65536):
                self.taken += len(part)
                if self.taken % (1 << 18) < len(part):
                    time.sleep(SHORT / 10)
        finally:
            self.ended.set()

    def got_all(self) -> bool:
        assert self.ended.wait(AMPLE)
        return self.taken >= len(HUGE)


@pytest.mark.parametrize("fast", [0, 20, LONG.index(b"x")], ids=["status line", "headers", "body"])
def test_an_answer_that_drips_does_not_outlive_the_time_out(transport: Transport, serve: Serve, fast: int) -> None:
    """Pitfall 14: a server that keeps sending a byte now and then cannot hold its caller."""

    def play(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(LONG[:fast])
        slowly(connection, LONG[fast:], server.over)

    server = serve(play)
    answer = post(transport, server, SHORT)
    assert (answer.status, answer.failure, answer.message) == (None, Failure.TIMED_OUT, "no answer within 0.3 s")


def test_a_server_that_never_answers_is_a_time_out(transport: Transport, serve: Serve) -> None:
    """Pitfall 14: a hung service does not hang the saga."""

    def play(connection: socket.socket, number: int) -> None:
        read_request(connection)
        server.over.wait()

    server = serve(play)
    assert post(transport, server, SHORT).failure is Failure.TIMED_OUT


def test_a_server_that_never_reads_is_a_time_out(transport: Transport, serve: Serve) -> None:
    server = serve(lambda connection, number: server.over.wait())
    assert post(transport, server, 4 * SHORT, body=HUGE).failure is Failure.TIMED_OUT


def test_a_server_that_reads_slowly_is_a_time_out(transport: Transport, serve: Serve) -> None:
    reader = SlowReader()
    assert post(transport, serve(reader), 4 * SHORT, HUGE).failure is Failure.TIMED_OUT
    assert not reader.got_all()


def test_a_late_answer_is_not_taken_for_the_next_one(transport: Transport, serve: Serve) -> None:
    def play(connection: socket.socket, number: int) -> None:
        read_request(connection)
        if number == 0:
            given_up.wait(AMPLE)
            connection.sendall(SURPLUS)
        connection.sendall(OK)

    given_up = threading.Event()
    server = serve(play)
    assert post(transport, server, SHORT).failure is Failure.TIMED_OUT
    given_up.set()
    assert post(transport, server).status == 200


# Connecting: nothing of the request was sent, and so whatever goes wrong is "not connected", a time-out too


class Full:
    """A port whose queue is full: the kernel drops who comes after, so that to connect to it never ends."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(0)
        self.address = self.socket.getsockname()
        self.waiting = [socket.socket() for _ in range(4)]
        for one in self.waiting:
            one.setblocking(False)
            one.connect_ex(self.address)

    def close(self) -> None:
        for one in (*self.waiting, self.socket):
            one.close()


@pytest.fixture
def full() -> Iterator[Full]:
    made = Full()
    yield made
    made.close()


def at(*addresses: tuple[str, int]) -> Callable[..., list[object]]:
    """A resolver that gives these addresses for every name."""

    def resolve(host: str, port: int, type: int = 0, flags: int = 0) -> list[object]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        return [(socket.AF_INET, socket.SOCK_STREAM, 0, "", address) for address in addresses]

    return resolve


def refusing() -> tuple[str, int]:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address: tuple[str, int] = gone.getsockname()
        return address


def test_a_server_that_accepts_nobody_is_not_connected_to(transport: Transport, full: Full) -> None:
    port = full.address[1]
    answer = transport.post(f"http://127.0.0.1:{port}/", {}, b"", SHORT)
    assert (answer.failure, answer.message) == (
        Failure.NOT_CONNECTED,
        f"no connection to 127.0.0.1:{port} within 0.3 s",
    )


def test_all_addresses_of_a_host_share_one_time_out(full: Full) -> None:
    transport = FastTransport(resolve=at(full.address, full.address, full.address))
    answer = transport.post("http://b.example/", {}, b"", SHORT)
    assert (answer.failure, answer.message) == (Failure.NOT_CONNECTED, "no connection to b.example:80 within 0.3 s")
    assert answer.duration_ms >= SHORT * 1000


@pytest.mark.parametrize("before", [1, 3])
def test_the_next_address_is_tried_where_one_refuses(serve: Serve, before: int) -> None:
    server = serve(always(OK))
    transport = FastTransport(resolve=at(*[refusing() for _ in range(before)], ("127.0.0.1", server.port)))
    assert transport.post("http://b.example/", {}, b"", AMPLE).status == 200


def test_the_next_address_is_tried_before_one_that_hangs_has_used_up_the_time(serve: Serve, full: Full) -> None:
    """The first of two addresses leads nowhere, as where a machine has IPv6 and its provider has not."""
    server = serve(always(OK))
    transport = FastTransport(resolve=at(full.address, ("127.0.0.1", server.port)))
    before = open_files()
    assert transport.post("http://b.example/", {}, b"", AMPLE).status == 200
    assert len(server.connections) == 1
    assert open_files() == before + 2  # the winner's two ends: nothing else is left behind


def test_the_addresses_are_tried_a_quarter_of_a_second_apart(monkeypatch: pytest.MonkeyPatch, full: Full) -> None:
    waits: list[int] = []
    real = select.poll

    class Poll:
        def __init__(self) -> None:
            self.poll_set = real()
            self.register, self.unregister = self.poll_set.register, self.poll_set.unregister

        def poll(self, milliseconds: int) -> list[tuple[int, int]]:
            waits.append(milliseconds)
            return self.poll_set.poll(0)

    monkeypatch.setattr("saga.http_client.dial.select.poll", Poll)
    seconds = iter([10.0, 10.0, 7.0, 0.0])

    def left() -> float:
        if not (left := next(seconds)):
            raise TimeoutError
        return left

    found = at(full.address, full.address, full.address)("b", 80)
    with pytest.raises(TimeoutError):
        dial.connect(found, left)  # type: ignore[arg-type]
    assert waits == [250, 250, 7000]


def test_where_all_addresses_refuse_the_last_ones_reason_is_told() -> None:
    transport = FastTransport(resolve=at(refusing(), refusing()))
    before = open_files()
    answer = transport.post("http://b.example/", {}, b"", AMPLE)
    assert answer.failure is Failure.NOT_CONNECTED
    assert answer.message == "no connection to b.example:80: Connection refused"
    assert open_files() == before


def test_a_family_that_this_machine_does_not_have_is_passed_over(serve: Serve) -> None:
    server = serve(always(OK))

    def resolve(*where: object, flags: int = 0, **more: object) -> list[object]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        strange = (255, socket.SOCK_STREAM, 0, "", ("::1", 1))
        return [strange, (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", server.port))]

    assert FastTransport(resolve=resolve).post("http://b.example/", {}, b"", AMPLE).status == 200


def test_a_host_without_an_address_is_not_connected_to() -> None:
    answer = FastTransport(resolve=at()).post("http://b.example/", {}, b"", AMPLE)
    assert (answer.failure, answer.message) == (
        Failure.NOT_CONNECTED,
        "no connection to b.example:80: the host has no address",
    )


def test_the_families_take_turns_beginning_with_the_first() -> None:
    six, four = [(10, number) for number in range(3)], [(2, number) for number in range(2)]
    assert dial.interleaved([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]
    assert dial.interleaved([*four, *six]) == [four[0], six[0], four[1], six[1], six[2]]


def test_a_name_server_that_never_answers_holds_one_thread_however_often_it_is_asked() -> None:
    """Pitfall 14: looking a name up, which knows no time-out of its own, has one too."""

    def resolve(*where: object, flags: int = 0, **more: object) -> list[object]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror
        over.wait(AMPLE)
        return []

    over = threading.Event()
    transport = FastTransport(resolve=resolve)
    for _ in range(3):
        answer = transport.post("http://b.example/", {}, b"", SHORT / 3)
        assert (answer.failure, answer.message) == (Failure.NOT_CONNECTED, "no connection to b.example:80 within 0.1 s")
    assert sum(thread.name == "look up b.example" for thread in threading.enumerate()) == 1
    over.set()


def open_files() -> int:
    gc.collect()  # a connection of an earlier test may still wait to be closed
    return psutil.Process().num_fds()


# No answer: not connected (nothing was sent) or broken (something may have been)


def test_a_refused_connection_sent_nothing(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    answer = transport.post(f"http://127.0.0.1:{port}/", {}, b"{}", AMPLE)
    assert answer.failure is Failure.NOT_CONNECTED
    assert answer.message == f"no connection to 127.0.0.1:{port}: Connection refused"


@pytest.mark.parametrize(
    "url",
    [
        "http://no-such-host.invalid/",
        "http://" + "a" * 64 + ".example/",
        "http://a..example/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:five/",
        "http://[::1/",
        "ftp://127.0.0.1/",
        "http:///invoke",
        "nonsense",
        "",
    ],
)
def test_a_url_that_leads_nowhere_is_an_answer_and_no_exception(transport: Transport, url: str) -> None:
    answer = transport.post(url, {}, b"{}", AMPLE)
    assert answer.failure is Failure.NOT_CONNECTED
    assert answer.message


@pytest.mark.parametrize("value", ["x\r\nSaga-Id: other", "x\nSaga-Id: other", "x\r", "…"])
def test_a_header_that_cannot_be_sent_is_not_sent(transport: Transport, serve: Serve, value: str) -> None:
    server = serve(always(OK))
    assert transport.post(server.url, {"Authorization": value}, b"{}", AMPLE).failure is Failure.NOT_CONNECTED
    assert not server.connections


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close() sends a RST
    connection.close()


@pytest.mark.parametrize(
    "said",
    [
        b"",
        OK[:-1],
        OK[:-11],
        b"HTTP/1.1 409 Conflict\r\nContent-Length: 5\r\n\r\n{}",
        CHUNKED[:-12],
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 huh OK\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 20_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n",
    ],
    ids=[
        "nothing", "all but a byte", "no body", "half a refusal", "half the chunks",
        "not HTTP", "no status", "another HTTP", "too many headers", "too long a header",
    ],
)  # fmt: skip
def test_an_answer_that_is_cut_short_or_no_http_is_broken(transport: Transport, serve: Serve, said: bytes) -> None:
    server = serve(always(said, then_close=True))
    answer = post(transport, server)
    assert (answer.status, answer.failure) == (None, Failure.BROKEN)
    assert answer.message.startswith("the connection broke: ")


def test_a_head_that_is_cut_short_is_broken(fast: FastTransport, serve: Serve) -> None:
    answer = post(fast, serve(always(b"HTTP/1.1 200 OK\r\nContent-Le", then_close=True)))
    assert (answer.status, answer.failure) == (None, Failure.BROKEN)
    assert answer.message.startswith("the connection broke: ")


@pytest.mark.parametrize("said", [b"", OK[:-5]], ids=["before the answer", "in the middle of it"])
def test_a_reset_after_the_request_is_broken(transport: Transport, serve: Serve, said: bytes) -> None:
    def play(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(said)
        reset(connection)

    assert post(transport, serve(play)).failure is Failure.BROKEN


def test_a_reset_while_the_request_is_sent_is_broken(transport: Transport, serve: Serve) -> None:
    def play(connection: socket.socket, number: int) -> None:
        connection.recv(1000)
        reset(connection)

    assert post(transport, serve(play), body=b"x" * (8 << 20)).failure is Failure.BROKEN


def test_a_broken_connection_is_not_used_again(transport: Transport, serve: Serve) -> None:
    def play(connection: socket.socket, number: int) -> None:
        read_request(connection)
        connection.sendall(OK[:-1] if number == 0 else OK)

    server = serve(play)
    assert [post(transport, server).status for _ in range(2)] == [None, 200]


# Many threads


def test_a_hundred_threads_share_a_transport_and_each_gets_its_own_answer(transport: Transport, serve: Serve) -> None:
    def echo(connection: socket.socket, number: int) -> None:
        for served in range(1, 1000):
            if not (request := read_request(connection)):
                return
            body = request.partition(b"\r\n\r\n")[2]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            if served % 7 == 0:
                return  # some connections end while they are idle

    def calls(thread: int) -> list[str]:
        wrong = []
        for number in range(20):
            body = b'{"%d": %d}' % (thread, number)
            answer = post(transport, server, body=body)
            # A connection may end between the look at it and the request: that is an unknown outcome, never another's.
            if answer.body != body and answer.failure is not Failure.BROKEN:
                wrong.append(f"{body!r} got {answer}")
        return wrong

    server = serve(echo)
    with ThreadPoolExecutor(100) as pool:
        assert [wrong for made in pool.map(calls, range(100)) for wrong in made] == []


def test_there_are_never_more_connections_than_threads(transport: Transport, serve: Serve) -> None:
    server = serve(always(OK))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda number: post(transport, server), range(500)))
    assert [answer for answer in answers if answer.status != 200] == []
    assert len(server.connections) <= 16


def test_a_closed_transport_still_answers(transport: Transport, serve: Serve) -> None:
    server = serve(always(OK))
    assert post(transport, server).status == 200
    transport.close()
    assert [post(transport, server).status for _ in range(2)] == [200, 200]
    assert len(server.connections) >= 2


def test_a_closed_transport_keeps_no_connection(fast: FastTransport, serve: Serve) -> None:
    server = serve(always(OK))
    assert post(fast, server).status == 200
    fast.close()
    assert [post(fast, server).status for _ in range(2)] == [200, 200]
    assert len(server.connections) == 3


def test_the_environments_proxies_are_not_used(
    transport: Transport, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert post(transport, serve(always(OK))).status == 200


# TLS


def post_once_connected(transport: Transport, server: Server, timeout: float, body: bytes = b"{}") -> HttpAnswer:
    """The first attempt whose handshake did not use up the time by itself, as it may on a crowded machine."""
    deadline = time.monotonic() + AMPLE
    while True:
        answer = post(transport, server, timeout, body)
        if answer.failure is not Failure.NOT_CONNECTED or time.monotonic() > deadline:
            return answer


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, signed by itself, and its key, in one file."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    file = tmp_path_factory.mktemp("tls") / "localhost.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", file, "-out", f"{file}.crt"], check=True, capture_output=True)
    file.write_text(file.read_text() + Path(f"{file}.crt").read_text())
    return file


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # read by OpenSSL, when the transport first needs it


@pytest.mark.usefixtures("trusted")
def test_https_keeps_its_connection_too(transport: Transport, serve: Serve, tls: ssl.SSLContext) -> None:
    server = serve(always(OK), tls)
    assert [post(transport, server).status for _ in range(3)] == [200] * 3
    assert len(server.connections) == 1


def test_a_certificate_that_nobody_vouches_for_is_not_connected_to(
    transport: Transport, serve: Serve, tls: ssl.SSLContext
) -> None:
    answer = post(transport, serve(always(OK), tls))
    assert answer.failure is Failure.NOT_CONNECTED
    assert "certificate verify failed" in answer.message


@pytest.mark.usefixtures("trusted")
def test_a_handshake_that_never_ends_is_not_connected(fast: FastTransport, serve: Serve) -> None:
    server = serve(lambda connection, number: server.over.wait())
    url = server.url.replace("http:", "https:")
    answer = fast.post(url, {}, b"{}", SHORT)
    assert answer.failure is Failure.NOT_CONNECTED
    assert answer.message == f"no connection to localhost:{server.port} within 0.3 s"


@pytest.mark.usefixtures("trusted")
@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"], ids=["nothing", "no TLS"])
def test_a_handshake_that_fails_is_not_connected(fast: FastTransport, serve: Serve, said: bytes) -> None:
    def play(connection: socket.socket, number: int) -> None:
        connection.recv(65536)
        connection.sendall(said)

    server = serve(play)
    answer = fast.post(server.url.replace("http:", "https:"), {}, b"{}", AMPLE)
    assert answer.failure is Failure.NOT_CONNECTED
    assert answer.message.startswith(f"no connection to localhost:{server.port}: ")


@pytest.mark.usefixtures("trusted")
def test_an_answer_that_never_comes_over_https_is_a_time_out(
    transport: Transport, serve: Serve, tls: ssl.SSLContext
) -> None:
    def play(connection: socket.socket, number: int) -> None:
        read_request(connection)
        server.over.wait()

    server = serve(play, tls)
    assert post_once_connected(transport, server, SHORT).failure is Failure.TIMED_OUT


@pytest.mark.usefixtures("trusted")
def test_an_answer_that_drips_over_https_does_not_outlive_the_time_out(
    transport: Transport, serve: Serve, tls: ssl.SSLContext
) -> None:
    def play(connection: socket.socket, number: int) -> None:
        read_request(connection)
        slowly(connection, LONG, server.over)

    server = serve(play, tls)
    assert post_once_connected(transport, server, SHORT).failure is Failure.TIMED_OUT


@pytest.mark.usefixtures("trusted")
def test_a_request_that_is_read_slowly_over_https_does_not_outlive_the_time_out(
    transport: Transport, serve: Serve, tls: ssl.SSLContext
) -> None:
    """Pitfall 14: over TLS, too, the whole request has one time-out, and not each record of it."""
    reader = SlowReader()
    assert post_once_connected(transport, serve(reader, tls), SHORT, HUGE).failure is Failure.TIMED_OUT
    assert not reader.got_all()
