"""GET /events: the lines of the saga log as they are committed, to any number of subscribers (server-sent events).

One thread reads the log and formats each batch of lines once; a subscriber's thread only sends the batch. A subscriber
that is late, or was away, reads the log itself until it has caught up. Only one of them reads at a time, and those that
are at the same place share what was read, so that they do not keep the log busy, however many they are.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from flask import Response

from orchestrator.shown_lines import show_lines
from saga.errors import LogUnavailable, Overloaded
from saga.payload import readable
from saga.runtime.log_lines import LogLines
from saga.runtime.tail import Tail
from saga.saga_log import SagaLog

logger = logging.getLogger("saga")

SUBSCRIBERS = 512  # at once; each keeps a thread that no request needs
TICK = 0.25  # seconds between two looks at the log
AFTER_A_BUG = 1.0  # seconds
BATCHES_KEPT = 64  # batches
PAGE = 500  # lines that one who catches up reads at a time
PAGES_KEPT = 16  # for others who catch up from the same place
CHANGES_EVERY = 0.75  # seconds, at the least
HEARTBEAT = 15.0  # seconds: finds subscribers that have gone
ANSWER_WITHIN = 5.0


@dataclass(frozen=True)
class _Batch:
    upto: int
    events: Sequence[tuple[str, bytes]]  # (saga id, event)
    whole: bytes  # made once, for however many subscribers

    def of(self, saga_id: str | None) -> bytes:
        """Return the events of one saga, or all of them where it is None."""
        return self.whole if saga_id is None else b"".join(event for owner, event in self.events if owner == saga_id)


class Stream:
    """The one watcher of the log's end, for all subscribers together."""

    def __init__(self, log: SagaLog, lines: LogLines):
        self._log = log
        self._lines = lines
        self._tail = Tail(lines, time.monotonic)
        lock = threading.Lock()
        self._changed = threading.Condition(lock)  # the position, or there are no more: subscribers wait for that
        self._looked = threading.Condition(lock)  # at the log: whoever wants to know where it ends waits for that
        self._catching_up = threading.Lock()
        self._wanted = threading.Event()  # a look at the log, at once
        self._closed = False
        self._looks_begun = self._looks_done = 0
        self._position: int | None = (
            None  # the id of the last line; None before the first look; 0 where the log is empty
        )
        self._subscribers = 0  # all of them
        self._to_lines = 0  # those for whom lines are written out
        self._batches: OrderedDict[int, _Batch] = OrderedDict()  # by the position that each one follows
        self._pages: OrderedDict[int, _Batch] = OrderedDict()  # likewise; read by those who caught up
        self._thread = threading.Thread(target=self._work, name="stream", daemon=True)

    def open(self) -> None:
        """Start the thread that watches the log."""
        self._thread.start()

    def close(self) -> None:
        """End every subscriber's stream."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._looked.notify_all()
        self._wanted.set()

    def now(self) -> int:
        """Return the position after the last line that is committed now. Raises LogUnavailable."""
        with self._looked:
            look = self._looks_begun + 1
            self._wanted.set()
            done = self._looked.wait_for(lambda: self._looks_done >= look or self._closed, ANSWER_WITHIN)
            if not done or self._position is None:
                raise LogUnavailable("the saga log does not answer")
            return self._position

    def start(self, last_seen: int | None) -> int:
        """Return where a subscriber starts: after the line that it saw last, or now. LogUnavailable, Overloaded."""
        if self._subscribers >= SUBSCRIBERS:
            raise Overloaded(f"{SUBSCRIBERS} subscribers are the most that this process serves: try again later")
        now = self.now()
        if last_seen is None or (last_seen > now and last_seen > self._lines.last_id()):  # of another log
            return now
        return last_seen

    def follow(self, position: int, saga_id: str | None = None) -> Iterator[bytes]:
        """Yield the events after `position`, of one saga or of all, until the subscriber leaves."""
        with self._subscribed():
            said = time.monotonic()
            yield _start(position)
            while not self._closed:
                batch = self._next(position)
                position = batch.upto if batch else position
                events = batch.of(saga_id) if batch else b""
                if events or time.monotonic() - said > HEARTBEAT:
                    said = time.monotonic()
                    yield events or _at(position)

    def changes(self, position: int) -> Iterator[bytes]:
        """Yield an event without content when lines have come, at most one every CHANGES_EVERY seconds, for a list."""
        with self._subscribed(to_lines=False):
            yield _start(position)
            while not self._closed:
                seen, position = position, self._after(position)
                yield b"data: lines have come\n\n" if position > seen else _at(position)
                time.sleep(CHANGES_EVERY)

    @contextmanager
    def _subscribed(self, to_lines: bool = True) -> Iterator[None]:
        with self._changed:
            self._subscribers += 1
            self._to_lines += to_lines
        self._wanted.set()
        try:
            yield
        finally:
            with self._changed:
                self._subscribers -= 1
                self._to_lines -= to_lines

    def _next(self, position: int) -> _Batch | None:
        upto = self._after(position)
        if upto <= position or self._closed:
            return None
        batch = self._batches.get(position)
        if batch:
            return batch
        try:
            return self._page(position, upto)
        except LogUnavailable:
            time.sleep(TICK)
            return None

    def _page(self, position: int, upto: int) -> _Batch:
        """Return the lines that a subscriber who is late reads next. Raises LogUnavailable."""
        with self._catching_up:
            page = self._batches.get(position) or self._pages.get(position)
            if page is None:
                page = self._read(position, upto, PAGE)
                _keep(self._pages, position, page, PAGES_KEPT)
            return page

    def _after(self, position: int) -> int:
        """Wait until the log is beyond this position, for HEARTBEAT seconds at most; give where it is then."""
        with self._changed:
            self._changed.wait_for(lambda: self._beyond(position) or self._closed, HEARTBEAT)
            return position if self._position is None else self._position

    def _beyond(self, position: int) -> bool:
        return self._position is not None and self._position > position

    def _work(self) -> None:
        while not self._closed:
            self._wanted.wait(TICK if self._subscribers else None)
            self._wanted.clear()
            self._looks_begun += 1
            try:
                self._look()
            except LogUnavailable:
                logger.warning("event=stream_waits: the saga log does not answer")
                time.sleep(TICK)
            except Exception:
                logger.exception("event=stream_failed")
                time.sleep(AFTER_A_BUG)

    def _look(self) -> None:
        before = self._position
        if not self._subscribers:  # nobody has followed the log's end meanwhile: it may be far from where we were
            self._tail, before = Tail(self._lines, time.monotonic), None
        position = self._tail.advance()
        batch = None
        if self._to_lines and before is not None and position > before:
            batch = self._read(before, position, 1 << 30)
        with self._changed:
            moved, self._position = position != self._position, position
            if batch and before is not None:
                _keep(self._batches, before, batch, BATCHES_KEPT)
            self._looks_done = self._looks_begun
            self._looked.notify_all()
            if moved:  # else every look would wake every subscriber
                self._changed.notify_all()

    def _read(self, after: int, upto: int, most: int) -> _Batch:
        lines = self._lines.between(after, upto, most)
        shown = show_lines([(saga_id, line) for _, saga_id, line in lines], self._log)
        events = [(line["saga_id"], _event(id, line)) for (id, _, _), line in zip(lines, shown, strict=True)]
        return _Batch(lines[-1][0] if len(lines) == most else upto, events, b"".join(event for _, event in events))


def _keep(batches: OrderedDict[int, _Batch], position: int, batch: _Batch, most: int) -> None:
    """Keep a batch for subscribers who come later; the oldest one gives way."""
    batches[position] = batch
    while len(batches) > most:
        batches.popitem(last=False)


def event_stream(events: Iterator[bytes]) -> Response:
    """Return the answer that carries a subscriber's events."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(events, mimetype="text/event-stream", headers=headers)


def _event(id: int, line: dict[str, object]) -> bytes:
    return f"id: {id}\ndata: {readable(line)}\n\n".encode()


def _start(position: int) -> bytes:
    """Tell the subscriber how long to wait before it connects again (milliseconds), and where the stream starts."""
    return b"retry: 1000\n" + _at(position)


def _at(position: int) -> bytes:
    """Tell the subscriber its position, without an event, so that it knows it should it have to connect again."""
    return f"id: {position}\n\n".encode()
