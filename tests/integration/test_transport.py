"""The transport against real sockets that misbehave: each attempt ends in its time, and says what happened."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from saga.transport import BODY_AT_MOST, Failure, Transport
from tests.mysql_server import free_port

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Talk = Callable[[socket.socket], None]


class Server:
    """A socket server that deals with each connection as it is told."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/x"
        self.connections = 0
        self.talk: Talk = lambda peer: None
        self.ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._deal, args=(peer,), daemon=True).start()

    def _deal(self, peer: socket.socket) -> None:
        with peer, suppress(OSError):
            self.talk(peer)

    def request(self, peer: socket.socket) -> bytes:
        """One whole request; b"" at the connection's end."""
        data = b""
        while b"\r\n\r\n" not in data:
            part = peer.recv(65536)
            if not part:
                return b""
            data += part
        head, _, body = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        while len(body) < length:
            body += peer.recv(65536)
        return head + b"\r\n\r\n" + body

    def drip(self, peer: socket.socket, answer: bytes) -> None:
        """A byte now and then: never silent for long, never done."""
        for byte in answer:
            if self.ended.wait(0.05):
                return
            peer.sendall(bytes([byte]))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.ended.set()
    made.socket.close()


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.close()


def test_an_answer_has_its_status_headers_and_body(server: Server, transport: Transport) -> None:
    seen = []

    def talk(peer: socket.socket) -> None:
        seen.append(server.request(peer))
        peer.sendall(b"HTTP/1.1 409 Conflict\r\nSaga-Effect: none\r\nContent-Length: 4\r\n\r\nnope")

    server.talk = talk
    answer = transport.post(server.url + "?fail=after:1", {"Saga-Id": "s"}, b"{}", 5)
    assert (answer.status, answer.body, answer.headers["saga-effect"]) == (409, b"nope", "none")
    assert seen[0].startswith(b"POST /x?fail=after:1 HTTP/1.1\r\nHost: 127.0.0.1:")
    assert b"\r\nSaga-Id: s\r\n" in seen[0]


def test_a_connection_is_used_again(server: Server, transport: Transport) -> None:
    def talk(peer: socket.socket) -> None:
        while server.request(peer):
            peer.sendall(OK)

    server.talk = talk
    assert [transport.post(server.url, {}, b"{}", 5).status for _ in range(5)] == [200] * 5
    assert server.connections == 1


def test_an_idle_connection_that_was_closed_is_not_used_again(server: Server, transport: Transport) -> None:
    closed = threading.Event()

    def talk(peer: socket.socket) -> None:
        server.request(peer)
        peer.sendall(OK)
        peer.close()
        closed.set()

    server.talk = talk
    for _ in range(3):
        closed.clear()
        assert transport.post(server.url, {}, b"{}", 5).failure is None
        assert closed.wait(5)
    assert server.connections == 3


@pytest.mark.parametrize("answer", [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1000, OK[:-2] + b"{"])
def test_a_server_that_drips_is_given_up_when_the_whole_time_is_over(
    server: Server, transport: Transport, answer: bytes
) -> None:
    """Pitfall 14: a time-out of each read would never strike."""

    def talk(peer: socket.socket) -> None:
        server.request(peer)
        server.drip(peer, answer)
        server.ended.wait(5)

    server.talk = talk
    assert transport.post(server.url, {}, b"{}", 0.3).failure is Failure.TIMED_OUT


def test_a_server_that_never_answers_is_given_up(server: Server, transport: Transport) -> None:
    server.talk = lambda peer: server.ended.wait(5) and None
    answer = transport.post(server.url, {}, b"{}", 0.2)
    assert (answer.failure, answer.message) == (Failure.TIMED_OUT, "no answer within 0.2 s")


def test_a_server_that_reads_nothing_is_given_up(server: Server, transport: Transport) -> None:
    server.talk = lambda peer: server.ended.wait(5) and None
    assert transport.post(server.url, {}, b"x" * 50_000_000, 0.3).failure is Failure.TIMED_OUT


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200", b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"]
)
def test_a_connection_that_breaks_off_is_told_apart_from_none(
    server: Server, transport: Transport, said: bytes
) -> None:
    def talk(peer: socket.socket) -> None:
        server.request(peer)
        peer.sendall(said)

    server.talk = talk
    assert transport.post(server.url, {}, b"{}", 5).failure is Failure.BROKEN


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/", "http://no-such-host.invalid/"])
def test_a_refused_connection_says_that_nothing_was_sent(transport: Transport, url: str) -> None:
    assert transport.post(url.format(port=free_port()), {}, b"{}", 5).failure is Failure.NOT_CONNECTED


def test_a_body_without_end_is_cut(server: Server, transport: Transport) -> None:
    def talk(peer: socket.socket) -> None:
        server.request(peer)
        peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n")
        with suppress(OSError):
            while not server.ended.is_set():
                peer.sendall(b"x" * 65536)

    server.talk = talk
    answer = transport.post(server.url, {}, b"{}", 10)
    assert len(answer.body) == BODY_AT_MOST


def test_threads_share_one_transport(server: Server, transport: Transport) -> None:
    def talk(peer: socket.socket) -> None:
        while request := server.request(peer):
            body = request.partition(b"\r\n\r\n")[2]
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    server.talk = talk
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(50):
            body = b"%d-%d" % (number, turn)
            answer = transport.post(server.url, {}, body, 10)
            if answer.body != body:
                wrong.append(answer)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert server.connections <= 16
