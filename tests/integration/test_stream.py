"""Many subscribers to /events: how often they read the saga log, on SQLite and on MySQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator import stream as stream_module
from orchestrator.stream import Stream
from saga.machine import Line
from saga.runtime.log_lines import LogLines
from saga.saga_log import SagaLog
from saga.storage import log_tables
from saga.storage.database import connect, create_tables
from tests.conftest import Database
from tests.contract.test_saga_log import begun
from tests.support.stack import eventually

SUBSCRIBERS = 120


class CountedLines(LogLines):
    """Counts the reads of lines, and how many are made at the same time; a shut gate holds them back."""

    reads = at_once = most_at_once = 0
    gate: threading.Event
    lock: threading.Lock

    def between(self, after: int, upto: int, most: int) -> list[tuple[int, str, Line]]:
        with self.lock:
            self.reads += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            assert self.gate.wait(30)
            return super().between(after, upto, most)
        finally:
            with self.lock:
                self.at_once -= 1


@pytest.fixture
def log(database: Database) -> Iterator[SagaLog]:
    engine = connect(database("orchestrator"))
    create_tables(engine, log_tables.metadata)
    yield SagaLog(engine)
    engine.dispose()


@pytest.fixture
def lines(log: SagaLog) -> CountedLines:
    made = CountedLines(log)
    made.gate, made.lock = threading.Event(), threading.Lock()
    made.gate.set()
    return made


@pytest.fixture
def stream(log: SagaLog, lines: CountedLines) -> Iterator[Stream]:
    made = Stream(log, lines)
    made.open()
    yield made
    made.close()


def subscribe(stream: Stream, starts: Sequence[int | None], lines: int) -> list[list[str]]:
    """What each subscriber is sent, until it has `lines` events."""

    def read(last_seen: int | None) -> list[str]:
        events: list[str] = []
        for sent in stream.follow(stream.start(last_seen)):
            if last_seen is None and not events:
                subscribing.release()
            events += [event for event in sent.decode().split("\n\n") if "data: " in event]
            if len(events) >= lines:
                return events
        raise AssertionError("the stream has ended")

    subscribing = threading.Semaphore(0)
    with ThreadPoolExecutor(len(starts)) as pool:
        running = [pool.submit(read, last_seen) for last_seen in starts]
        for _ in [start for start in starts if start is None]:
            assert subscribing.acquire(timeout=30)
        begun(stream._log, 1)
        return [future.result(60) for future in running]


def test_the_first_line_of_an_empty_log_is_read_once_for_all_subscribers(
    log: SagaLog, lines: CountedLines, stream: Stream
) -> None:
    """Else they all ask the log for it at once, and every start waits behind them."""
    heard = subscribe(stream, [None] * SUBSCRIBERS, 1)
    assert heard == [heard[0]] * SUBSCRIBERS
    assert lines.reads == 1


def test_those_who_come_back_to_the_same_place_read_it_once(
    log: SagaLog, lines: CountedLines, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that starts again has all its subscribers back within a second."""
    monkeypatch.setattr(stream_module, "PAGE", 5)
    for number in range(2, 22):
        begun(log, number)
    heard = subscribe(stream, [3] * SUBSCRIBERS, 17)
    assert heard == [heard[0]] * SUBSCRIBERS
    assert lines.reads <= 5 + 3  # four pages and what was added meanwhile, however many subscribers there are


def test_who_is_late_waits_until_the_one_before_has_read(log: SagaLog, lines: CountedLines, stream: Stream) -> None:
    """Whoever starts a saga meanwhile finds the log with two readers at the most: this, and who looks for all."""
    for number in range(2, SUBSCRIBERS):
        begun(log, number)
    lines.gate.clear()
    with ThreadPoolExecutor(SUBSCRIBERS) as pool:
        running = [pool.submit(next, _lines_of(stream, start)) for start in range(SUBSCRIBERS - 2)]
        eventually(lambda: lines.at_once >= 1)
        begun(log, SUBSCRIBERS)  # a start needs none of them
        lines.gate.set()
        heard = [future.result(60) for future in running]
    assert len(heard) == SUBSCRIBERS - 2
    assert lines.most_at_once <= 2


def _lines_of(stream: Stream, last_seen: int) -> Iterator[bytes]:
    return (sent for sent in stream.follow(stream.start(last_seen)) if b"data: " in sent)
