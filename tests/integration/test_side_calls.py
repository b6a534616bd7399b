"""Questions are calls: the records, the audit and the lights, over real sockets, with one client and one rule."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.health import PROBE_TIMEOUT, HealthMonitor
from saga.definition import SagaDefinition, Step
from saga.http_client import new_transport
from saga.http_client.transport import ANSWER_BYTES_AT_MOST, Transport
from saga.machine import State
from saga.views.audit import audit
from saga.views.records import ask, ask_all
from tests.support.stack import ROOT

NONE_OF_IT = b'{"records": [], "barrier": []}'
Answerer = Callable[[BaseHTTPRequestHandler], None]


class Service:
    """A participant that answers a GET as it is told, and keeps the headers that it was sent."""

    def __init__(self, answer: Answerer):
        self.asked: list[tuple[str, dict[str, str]]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                sent = {name.lower(): value for name, value in self.headers.items()}
                service.asked.append((self.path, sent))
                answer(self)

            def log_message(self, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.at = f"127.0.0.1:{self.server.server_port}"
        self.url = f"http://{self.at}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


def says(status: int, body: bytes, **headers: str) -> Answerer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def drips(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, each within any time-out, and all together never."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    deadline = time.monotonic() + 20
    with suppress(ConnectionError):  # its caller has given up
        while time.monotonic() < deadline:
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)


Serve = Callable[[Answerer], Service]


@pytest.fixture
def serve() -> Iterator[Serve]:
    made: list[Service] = []

    def start(answer: Answerer) -> Service:
        made.append(Service(answer))
        return made[-1]

    yield start
    for service in made:
        service.server.shutdown()
        service.server.server_close()


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = new_transport()
    yield made
    made.close()


def definition(url: str) -> SagaDefinition:
    return SagaDefinition("s", (Step("A", f"{url}/invoke", f"{url}/compensate"),))


def ended(url: str) -> Any:
    class SagaRow:
        id, state, ended = "s-1", State.COMPENSATED, True

    SagaRow.definition = definition(url)  # type: ignore[attr-defined]
    return SagaRow


def test_a_participant_is_asked_beside_its_action_with_the_token(serve: Serve, transport: Transport) -> None:
    service = serve(says(200, NONE_OF_IT))
    assert ask_all(definition(service.url), "s-1", transport, "t", 5.0) == {"A": {"records": [], "barrier": []}}
    ((path, sent),) = service.asked
    assert (path, sent["authorization"], sent["accept-encoding"]) == ("/records/s-1", "Bearer t", "identity")


def test_a_redirect_is_not_followed_and_no_answer(serve: Serve, transport: Transport) -> None:
    inside = serve(says(200, NONE_OF_IT))
    service = serve(says(302, b"", Location=f"{inside.url}/records/s-1"))
    assert ask(f"{service.url}/records/s-1", transport, "t", 5.0) is None
    assert inside.asked == []


@pytest.mark.parametrize(
    "answer",
    [
        says(200, b" " * ANSWER_BYTES_AT_MOST + NONE_OF_IT),
        says(200, b'{"records": 7}'),
        says(200, b"[]"),
        says(200, b'{"records": [' * 100_000),
        says(404, NONE_OF_IT),
        drips,
    ],
    ids=["too large", "no list", "no object", "nested", "404", "dripping"],
)
def test_what_is_no_answer_is_none(serve: Serve, transport: Transport, answer: Answerer) -> None:
    assert ask(f"{serve(answer).url}/records/s-1", transport, None, 0.5) is None


def test_a_users_password_is_sent_as_basic_and_never_shown(serve: Serve, transport: Transport) -> None:
    service = serve(says(500, b"{}"))
    found = audit([ended(f"http://u:secret@{service.at}")], transport, "t")
    ((_, sent),) = service.asked
    assert sent["authorization"] == "Basic dTpzZWNyZXQ="
    url = f"http://***@{service.at}/records/s-1"
    assert found == {"checked": 0, "violations": [], "unreachable": [{"saga_id": "s-1", "step": "A", "url": url}]}


def test_proxies_and_netrc_are_not_used(
    serve: Serve, transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login u password p\n")
    for name, value in {"NETRC": str(tmp_path / "netrc"), "HTTP_PROXY": "http://127.0.0.1:1"}.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.lower(), value)
    service = serve(says(200, NONE_OF_IT))
    assert audit([ended(service.url)], transport, None)["checked"] == 1
    assert "authorization" not in service.asked[0][1]


class Log:
    def find_many(self, ids: Any, bare: bool) -> dict[str, Any]:
        return {}


class Search:
    def find(self, query: Any) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (says(200, b"{}"), None),
        (says(404, b""), None),
        (says(302, b"", Location="http://127.0.0.1:1/"), None),
        (says(503, b"{}"), "not ready"),
        (drips, f"no answer within {PROBE_TIMEOUT:g} s"),
    ],
    ids=["ready", "without a /readyz", "a redirect", "not ready", "dripping"],
)
def test_a_light_shows_what_the_service_says(
    serve: Serve, transport: Transport, answer: Answerer, problem: str | None
) -> None:
    service = serve(answer)
    monitor = HealthMonitor(Log(), Search(), [definition(f"http://u:secret@{service.at}")], transport, "t", time.time)  # type: ignore[arg-type]
    (light,) = monitor._find_out().services
    assert (light.name, light.url, light.problem) == ("A", service.url, problem)
    ((path, sent),) = service.asked
    assert (path, sent["authorization"]) == ("/readyz", "Basic dTpzZWNyZXQ=")


def test_nothing_that_calls_out_uses_another_client() -> None:
    """requests follows redirects, uses proxies and `.netrc`, and reads answers without an end.

    The command uses it, and the plain transport, which is chosen by a setting and switches all of that off.
    """
    found = [
        str(path.relative_to(ROOT))
        for folder in ("saga", "orchestrator", "service_a", "service_b", "service_c")
        for path in (ROOT / folder).rglob("*.py")
        if "import requests" in path.read_text() or "from requests" in path.read_text()
    ]
    assert sorted(found) == ["saga/cli/api.py", "saga/http_client/plain.py"]
