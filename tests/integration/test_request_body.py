"""Bodies over raw sockets, to the real server: too large, in chunks, cut short; at the orchestrator and the kit."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress

import pytest

from tests.support.stack import Stack

MEBIBYTE = 1 << 20
BODY = b'{"username": "ada", "address": "1 Main St", "payment": "4111"}'
CHUNKED = "Transfer-Encoding: chunked"
PATHS = {"orchestrator": "/start", "service_a": "/invoke"}


pytestmark = pytest.mark.xdist_group("request body")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack]) -> Stack:
    return make_shared_stack("sqlite")


@pytest.fixture(params=PATHS)
def process(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + end


def send(stack: Stack, process: str, header: str, body: bytes, path: str = "", cut: bool = False) -> tuple[int, str]:
    """The answer to a request, (status code, body); `cut`: its sender says that nothing more will come."""
    said = b""
    header = f"Content-Type: application/json\r\nConnection: close\r\n{header}"
    with socket.create_connection(("127.0.0.1", stack.ports[process]), timeout=20) as connection:
        head = f"POST {path or PATHS[process]} HTTP/1.1\r\nHost: localhost\r\n{header}"
        with suppress(ConnectionError):  # it has seen enough, and has answered
            connection.sendall(f"{head}\r\n\r\n".encode() + body)
            if cut:
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionError):
            while part := connection.recv(65536):
                said += part
    head_, _, content = said.partition(b"\r\n\r\n")
    return int(head_.split()[1]), content.decode()


def test_a_body_in_chunks_is_taken(stack: Stack, process: str) -> None:
    assert send(stack, process, CHUNKED, chunks(BODY[:10], BODY[10:]))[0] == 200


@pytest.mark.parametrize("spaces", [MEBIBYTE - len(BODY), 0])
def test_a_body_of_one_mebibyte_is_taken(stack: Stack, process: str, spaces: int) -> None:
    body = BODY + b" " * spaces
    assert send(stack, process, CHUNKED, chunks(body))[0] == 200
    assert send(stack, process, f"Content-Length: {len(body)}", body)[0] == 200


@pytest.mark.parametrize("more", [b" ", b" " * 2 * MEBIBYTE, b" " * 2 * MEBIBYTE + b"GARBAGE"])
def test_a_larger_body_in_chunks_is_413_and_does_nothing(stack: Stack, process: str, more: bytes) -> None:
    """What is behind the limit counts, also where all that is before it would be a good request."""
    before = stack.counts()
    body = BODY + b" " * (MEBIBYTE - len(BODY)) + more
    parts = [body[at : at + 50_000] for at in range(0, len(body), 50_000)]
    assert send(stack, process, CHUNKED, chunks(*parts))[0] == 413
    assert stack.counts() == before


def test_a_longer_content_length_is_413(stack: Stack, process: str) -> None:
    body = BODY + b" " * MEBIBYTE
    assert send(stack, process, f"Content-Length: {len(body)}", body)[0] == 413


@pytest.mark.parametrize("header", [CHUNKED, "Content-Length: 1500000"])
def test_a_body_that_no_route_looks_at_may_not_be_larger_either(stack: Stack, header: str) -> None:
    body = b" " * 1_500_000
    sent = chunks(body) if header == CHUNKED else body
    for path in ("/sagas/none/cancel", "/ui/sagas/none/cancel"):
        assert send(stack, "orchestrator", header, sent, path)[0] == 413


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (f"Content-Length: {len(BODY) + 10}", BODY),
        (f"Content-Length: {len(BODY)}", BODY[:-1]),
        (CHUNKED, b"100\r\n" + BODY[:20]),
        (CHUNKED, chunks(BODY[:-1], end=b"")),
        (CHUNKED, b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"),
    ],
    ids=["less than its length, yet whole JSON", "less than its length", "in a chunk", "between chunks", "no chunk"],
)
def test_a_body_whose_end_is_missing_is_400_and_does_nothing(
    stack: Stack, process: str, header: str, body: bytes
) -> None:
    before = stack.counts()
    code, said = send(stack, process, header, body, cut=True)
    assert (code, "error" in json.loads(said)) == (400, True)
    assert stack.counts() == before


def test_a_compensation_without_a_body_is_still_taken(stack: Stack) -> None:
    for header, body in (("Content-Length: 0", b""), ("Saga-Id: none", b""), (CHUNKED, chunks())):
        assert send(stack, "service_a", header, body, "/compensate")[0] == 200
