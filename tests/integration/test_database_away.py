"""A MySQL that cannot be reached, or that hangs: what the stack says meanwhile, and that it needs no restart after."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from sqlalchemy import make_url

from tests.support.stack import Stack, eventually

ANSWER_WITHIN = 10  # seconds, of the contract


class Wire:
    """A TCP connection to MySQL that can be cut, and that can swallow everything."""

    def __init__(self, target: tuple[str, int]):
        self._target = target
        self._listener = self._listen(0)
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._frozen = self._closed = False
        threading.Thread(target=self._run, daemon=True).start()

    def freeze(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self._frozen = True

    def thaw(self) -> None:
        self._frozen = False

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        with self._lock:
            self._drop_all()

    def mend(self) -> None:
        with self._lock:
            self._listener = self._listen(self.port)
            self._selector.register(self._listener, selectors.EVENT_READ, None)

    def close(self) -> None:
        self._closed = True
        self.cut()

    @staticmethod
    def _listen(port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port), backlog=128)
        listener.setblocking(False)
        return listener

    def _run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        while not self._closed:
            if self._frozen:
                time.sleep(0.02)
                continue
            with self._lock:
                for key, _ in self._selector.select(timeout=0.02):
                    try:
                        self._carry(key)
                    except (OSError, KeyError):  # an end is gone, or went as its other end did
                        self._drop(key.fileobj, key.data)

    def _carry(self, key: selectors.SelectorKey) -> None:
        source = key.fileobj
        assert isinstance(source, socket.socket)
        if key.data is None:
            near, _ = source.accept()
            far = socket.create_connection(self._target)
            self._selector.register(near, selectors.EVENT_READ, far)
            self._selector.register(far, selectors.EVENT_READ, near)
            return
        data = source.recv(65536)
        if not data:
            raise ConnectionResetError
        key.data.sendall(data)

    def _drop(self, *ends: object) -> None:
        for end in ends:
            if isinstance(end, socket.socket) and end.fileno() >= 0:
                self._selector.unregister(end)
                end.close()

    def _drop_all(self) -> None:
        self._drop(*[key.fileobj for key in list(self._selector.get_map().values())])


MakeStack = Callable[..., Stack]


@pytest.fixture
def wire(mysql_admin: str) -> Iterator[Wire]:
    url = make_url(mysql_admin)
    made = Wire((url.host or "127.0.0.1", url.port or 3306))
    yield made
    made.close()


def through(wire: Wire, url: str) -> str:
    return make_url(url).set(host="127.0.0.1", port=wire.port).render_as_string(False)


def start_some(stack: Stack, number: int = 24) -> list[tuple[int, float]]:
    """(status code, seconds) of as many starts at once as there might be."""

    def start(_: int) -> tuple[int, float]:
        begun = time.monotonic()
        answer = stack.post_start("wait=0")
        if answer.status_code == 503:
            assert answer.headers["Retry-After"]
        return answer.status_code, time.monotonic() - begun

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(start, range(number)))


@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_without_its_database_the_orchestrator_says_503_within_10_seconds_and_is_well_again_after(
    make_stack: MakeStack, mysql_databases: dict[str, str], wire: Wire, how: str
) -> None:
    stack = make_stack("mysql", SAGA_LOG_URL=through(wire, mysql_databases["orchestrator"]))
    assert stack.post_start().status_code == 200
    getattr(wire, how)()
    answers = start_some(stack)
    assert {code for code, _ in answers} == {503}
    assert max(seconds for _, seconds in answers) < ANSWER_WITHIN
    assert stack.get("/healthz").status_code == 200
    assert stack.get("/readyz").status_code == 503
    {"cut": wire.mend, "freeze": wire.thaw}[how]()
    eventually(lambda: stack.post_start().status_code == 200, within=20)
    started = len(stack.get("/sagas?limit=500").json()["sagas"])
    assert stack.counts() == {"A": started, "B": started, "C": started}


@pytest.mark.parametrize("how", ["cut", "freeze"])
def test_a_service_without_its_database_loses_no_saga(
    make_stack: MakeStack, mysql_databases: dict[str, str], wire: Wire, how: str
) -> None:
    stack = make_stack("mysql", SERVICE_B_DB_URL=through(wire, mysql_databases["service_b"]))
    assert stack.post_start().status_code == 200
    getattr(wire, how)()
    saga = stack.post_start("wait=0").json()
    ready = requests.get(f"{stack.url_of('service_b')}/readyz", timeout=ANSWER_WITHIN)
    assert ready.status_code == 503
    eventually(lambda: stack.saga(saga["saga_id"])["steps"][1]["status"] not in ("PENDING", "RUNNING"), within=40)
    {"cut": wire.mend, "freeze": wire.thaw}[how]()
    assert stack.ended(saga["saga_id"])["status"] == "COMPENSATED"
    assert stack.counts() == {"A": 1, "B": 1, "C": 1}
