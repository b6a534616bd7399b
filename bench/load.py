"""The load: clients on keep-alive connections, as lean as Python allows, in a process of their own.

`python -m bench.load` reads one job after the other, a JSON line each, and answers each with a JSON line: a saga
counts when its last answer is in. What the clients themselves use of the machine is told, too.
"""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parent.parent


class Connection:
    """One keep-alive connection; a request is built once, up to what changes from call to call."""

    def __init__(self, url: str):
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=120)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._host = f"Host: {parts.netloc}\r\nContent-Type: application/json\r\n".encode()

    def post(self, target: str, body: bytes, headers: str = "") -> tuple[int, bytes]:
        """Status and body of the answer."""
        head = b"POST %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n"
        return self.exchange(head % (target.encode(), self._host, headers.encode(), len(body)) + body)

    def get(self, target: str) -> tuple[int, bytes]:
        """Status and body of the answer."""
        return self.exchange(b"GET %b HTTP/1.1\r\n%b\r\n" % (target.encode(), self._host))

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send one request, and return the status and body of its answer, which has a Content-Length."""
        self._socket.sendall(request)
        received = self._receive()
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = received[:end].lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        while len(received) < end + 4 + length:
            received += self._receive()
        return int(head[9:12]), received[end + 4 :]

    def _receive(self) -> bytes:
        received = self._socket.recv(65536)
        if not received:
            raise ConnectionError("the server closed the connection")
        return received


@dataclass(frozen=True)
class Job:
    """What every client does, over and over, for some seconds."""

    kind: str  # "floor", "start", "get" or "invoke"
    urls: Sequence[str]  # floor: those of A, B and C; start: each client takes the next; else one
    seconds: float
    clients: int = 1
    flags: str = ""  # of POST /start, or what the path of a GET is
    fails: bool = False  # the saga ends compensated
    input: dict[str, Any] | None = None


@dataclass(frozen=True)
class Run:
    """The result of a job; times are in seconds."""

    done: int
    seconds: float
    latencies: Sequence[float]
    client_cpu: float  # seconds of processor time

    @property
    def rate(self) -> float:
        """How many a second."""
        return self.done / self.seconds


class Load:
    """A process that puts load on the stack."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, job: Job) -> Run:
        """Do the job; RuntimeError with what went wrong where an answer was not the expected one."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(vars(job)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline() or '{"error": "the load process ended"}')
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return Run(**answer)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


_numbers = itertools.count()
INPUT = {"username": "ada", "address": "1 Main St", "payment": "4111-1111"}


def _floor(job: Job) -> Callable[[], None]:
    """Return what makes a saga's three calls (where C fails, its three tries and two compensations)."""
    a, b, c = (Connection(url) for url in job.urls)
    username, address, payment = INPUT.values()

    def once() -> None:
        saga_id = f"floor-{os.getpid()}-{next(_numbers)}-{time.time_ns():x}"
        user = {"username": username}
        made = _call(a, "/invoke", saga_id, "A", user)
        lives = {"user_id": made["user_id"], "address": address}
        _call(b, "/invoke", saga_id, "B", lives)
        pays = {"user_id": made["user_id"], "payment": payment}
        if not job.fails:
            _call(c, "/invoke", saga_id, "C", pays)
            return
        for _ in range(3):
            _call(c, "/invoke?fail=before", saga_id, "C", pays, expected=500)
        _call(b, "/compensate", saga_id, "B", lives)
        _call(a, "/compensate", saga_id, "A", user)

    return once


def _call(
    to: Connection, target: str, saga_id: str, step: str, fields: dict[str, Any], expected: int = 200
) -> dict[str, Any]:
    headers = f"Saga-Id: {saga_id}\r\nSaga-Step: {step}\r\n"
    return _expect(expected, *to.post(target, json.dumps(fields).encode(), headers))


def _start(job: Job) -> Callable[[], None]:
    connection = Connection(job.urls[next(_numbers) % len(job.urls)])
    body = json.dumps(job.input or INPUT).encode()
    return lambda: _expect(500 if job.fails else 200, *connection.post(f"/start?{job.flags}", body)) and None


def _invoke(job: Job) -> Callable[[], None]:
    """Return what calls one service alone."""
    connection = Connection(job.urls[0])
    body = json.dumps(job.input or {"username": "ada"}).encode()
    return lambda: _expect(200, *connection.post(f"/invoke?{job.flags}", body)) and None


def _get(job: Job) -> Callable[[], None]:
    connection = Connection(job.urls[0])

    def once() -> None:
        status, body = connection.get(job.flags)
        if status != 200:
            raise RuntimeError(f"{status} instead of 200: {body[:300]!r}")

    return once


def _expect(expected: int, status: int, body: bytes) -> dict[str, Any]:
    if status != expected:
        raise RuntimeError(f"{status} instead of {expected}: {body.decode(errors='replace')[:300]}")
    return json.loads(body)


KINDS = {"floor": _floor, "start": _start, "invoke": _invoke, "get": _get}


def perform(job: Job) -> Run:
    """Run the clients side by side; the first error ends all of them."""
    latencies: list[float] = []
    errors: list[BaseException] = []
    ready = threading.Barrier(job.clients + 1)
    stop = threading.Event()

    def client() -> None:
        mine: list[float] = []
        try:
            once = KINDS[job.kind](job)
            once()
            ready.wait()
            while not stop.is_set():
                began = time.perf_counter()
                once()
                mine.append(time.perf_counter() - began)
        except BaseException as error:
            errors.append(error)
            ready.abort()
        latencies.extend(mine)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(job.clients)]
    for thread in threads:
        thread.start()
    try:
        ready.wait(60)
    except threading.BrokenBarrierError:
        raise RuntimeError(f"{job.kind}: {errors[0] if errors else 'not ready within 60 s'}") from None
    cpu, began = time.process_time(), time.perf_counter()
    stop.wait(job.seconds)
    stop.set()
    for thread in threads:
        thread.join(120)
    seconds = time.perf_counter() - began
    if errors:
        raise RuntimeError(f"{job.kind}: {errors[0]}")
    return Run(len(latencies), seconds, latencies, time.process_time() - cpu)


def main() -> None:
    """Do one job for each line of the standard input."""
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = vars(perform(Job(**json.loads(line))))
        except RuntimeError as error:
            answer = {"error": str(error)}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
