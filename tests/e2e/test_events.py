"""GET /events: the log's lines, live, to many subscribers."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
import requests
from sqlalchemy import create_engine, text

from orchestrator.stream import SUBSCRIBERS
from tests.conftest import on_one_worker
from tests.support.stack import Stack, eventually


@pytest.fixture(scope="module", params=on_one_worker("events", "sqlite", "mysql"))
def stack(request: pytest.FixtureRequest, make_shared_stack: Callable[..., Stack]) -> Stack:
    return make_shared_stack(request.param, ["orchestrator_2"])


class Subscriber:
    """One who reads the stream of a process."""

    def __init__(self, url: str, last_seen: int | None = None, saga_id: str | None = None):
        headers = {} if last_seen is None else {"Last-Event-ID": str(last_seen)}
        params = {"saga_id": saga_id} if saga_id else {}
        self._answer = requests.get(f"{url}/events", headers=headers, params=params, stream=True, timeout=20)
        assert self._answer.status_code == 200
        assert self._answer.headers["Content-Type"].startswith("text/event-stream")
        self._lines = self._answer.iter_lines(chunk_size=1, decode_unicode=True)
        self.events()  # how long to wait before a reconnection, and where the stream starts

    def events(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """(id, data), as they come."""
        event: dict[str, str] = {}
        for line in self._lines:
            if line:
                name, _, value = line.partition(": ")
                event[name] = value
            elif "data" in event:
                yield int(event["id"]), json.loads(event["data"])
                event = {}

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()


def test_a_subscriber_sees_every_line_as_the_log_has_it(stack: Stack) -> None:
    """Nothing from before it came; from then on all of it, secrets masked."""
    stack.post_start()
    with Subscriber(stack.url) as subscriber:
        saga = stack.post_start("fail=b:after").json()
        lines = stack.lines(saga["saga_id"])
        events = [next(stream) for stream in [subscriber.events()] for _ in lines]
    assert [data for _, data in events] == [{"saga_id": saga["saga_id"], **line} for line in lines]
    assert "4111" not in json.dumps(events)


def test_who_comes_back_with_the_last_id_misses_nothing(stack: Stack) -> None:
    with Subscriber(stack.url) as subscriber:
        first = stack.post_start().json()["saga_id"]
        count = len(stack.lines(first))
        events = [next(stream) for stream in [subscriber.events()] for _ in range(count)]
    missed = [stack.post_start().json()["saga_id"] for _ in range(3)]
    with Subscriber(stack.url, last_seen=events[2][0]) as subscriber:
        rest = [
            data for stream in [subscriber.events()] for data in (next(stream) for _ in range(count - 3 + 3 * count))
        ]
    assert rest[: count - 3] == events[3:]
    assert {data["saga_id"] for _, data in rest[count - 3 :]} == set(missed)


def test_the_streams_of_two_orchestrators_are_the_same_and_in_order(stack: Stack) -> None:
    """Sagas start at both at once; neither stream leaves a line out, or gives one before its place."""
    urls = [stack.url, stack.url_of("orchestrator_2")]
    with ExitStack() as open_, ThreadPoolExecutor(8) as pool:
        subscribers = [open_.enter_context(Subscriber(url)) for url in urls]
        started = [pool.submit(requests.post, f"{urls[n % 2]}/start", json={"username": "x"}) for n in range(40)]
        ids = {future.result().json()["saga_id"] for future in started}
        expected = sum(len(stack.lines(saga_id)) for saga_id in ids)
        heard = [[next(stream) for stream in [one.events()] for _ in range(expected)] for one in subscribers]
    assert heard[0] == heard[1]
    assert [id_ for id_, _ in heard[0]] == sorted({id_ for id_, _ in heard[0]})
    assert {data["saga_id"] for _, data in heard[0]} == ids


def test_one_saga_can_be_subscribed_to(stack: Stack) -> None:
    saga = stack.post_start("wait=0&delay=a:700").json()["saga_id"]
    with Subscriber(stack.url, saga_id=saga) as subscriber:
        stack.post_start()
        first = next(subscriber.events())
    assert first[1]["saga_id"] == saga


def test_a_list_is_told_that_it_has_changed_and_no_more(stack: Stack) -> None:
    """What a dashboard subscribes to: little, however much happens."""
    with requests.get(f"{stack.url}/ui/news", stream=True, timeout=20) as answer:
        lines = answer.iter_lines(chunk_size=1, decode_unicode=True)
        assert next(lines) == "retry: 1000"
        stack.post_start()
        assert next(line for line in lines if line.startswith("data")) == "data: lines have come"


@pytest.mark.parametrize(("headers", "query"), [({"Last-Event-ID": "x"}, ""), ({}, "?topic=all")])
def test_what_is_wrong_is_said(stack: Stack, headers: dict[str, str], query: str) -> None:
    answer = requests.get(f"{stack.url}/events{query}", headers=headers, timeout=10)
    assert answer.status_code == 400
    assert ("Last-Event-ID" if headers else "topic") in answer.json()["error"]


def test_an_id_of_another_log_starts_now(stack: Stack) -> None:
    with Subscriber(stack.url, last_seen=10**15) as subscriber:
        saga = stack.post_start().json()["saga_id"]
        assert next(subscriber.events())[1]["saga_id"] == saga


@pytest.mark.parametrize("kind", ["sqlite", "mysql"])
def test_as_many_subscribers_as_there_may_be_keep_nobody_from_starting_sagas(
    make_stack: Callable[..., Stack], kind: str
) -> None:
    """On an empty log, whose first line wakes them all. Who is one too many is told so."""
    stack = make_stack(kind)
    with ExitStack() as open_:
        subscribers = [open_.enter_context(_raw_subscriber(stack)) for _ in range(SUBSCRIBERS)]
        for subscriber in subscribers:
            _read_until(subscriber, b"id: 0\n\n")
        assert requests.get(f"{stack.url}/events", timeout=10).status_code == 503
        with ThreadPoolExecutor(16) as pool:  # nobody reads what the subscribers are sent meanwhile
            answers = list(pool.map(lambda _: stack.post_start().status_code, range(48)))
        assert answers == [200] * 48
        first = {_read_until(subscriber, b'"event": "started"').splitlines()[-2] for subscriber in subscribers}
        assert first == {b"id: %d" % _lowest_id(stack)}


def _lowest_id(stack: Stack) -> int:
    engine = create_engine(stack.urls["orchestrator"])
    with engine.connect() as connection:
        found = connection.execute(text("SELECT MIN(id) FROM saga_log")).scalar_one()
    engine.dispose()
    return int(found)


def _raw_subscriber(stack: Stack) -> socket.socket:
    connected = socket.create_connection(("127.0.0.1", stack.ports["orchestrator"]), timeout=20)
    connected.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return connected


def _read_until(subscriber: socket.socket, wanted: bytes) -> bytes:
    """What comes, up to and with what is wanted."""
    read = b""
    while wanted not in read:
        sent = subscriber.recv(4096)
        assert sent, f"the stream ended after {read!r}"
        read += sent
    return read[: read.index(wanted) + len(wanted)]


def test_a_stream_ends_when_the_process_is_told_to_stop(make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite")
    with Subscriber(stack.url) as subscriber:
        assert stack.stop("orchestrator", within=10) == 0
        assert list(subscriber.events()) == []
    stack.start("orchestrator")
    eventually(lambda: stack.get("/readyz").status_code == 200)
