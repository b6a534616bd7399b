"""GET /events: the lines of the saga log as they are committed, to any number of listeners (server-sent events).

One thread reads the log and writes each batch of lines out once; a listener's thread does nothing but pass it on. A
listener that is late, or was away, reads the log itself until it has caught up.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from saga.errors import LogUnavailable
from saga.log import SagaLog
from saga.representation import represent_line
from saga.tail import Tail

logger = logging.getLogger("saga")

LISTENERS = 512  # at once; each keeps a thread that no request needs
TICK = 0.25  # seconds between two looks at the log
IDLE_TICK = 1.0  # the same while nobody listens
KEPT = 64  # batches
PAGE = 500  # lines that one who catches up reads at a time
HEARTBEAT = 15.0  # seconds: finds listeners that have gone
ANSWER_WITHIN = 5.0


@dataclass(frozen=True)
class _Batch:
    upto: int
    texts: Sequence[tuple[str, str]]  # (saga id, event)
    whole: str

    def of(self, saga_id: str | None) -> str:
        """The events of one saga, or all."""
        return self.whole if saga_id is None else "".join(text for owner, text in self.texts if owner == saga_id)


class Stream:
    """The log's end, watched for all listeners at once."""

    def __init__(self, log: SagaLog):
        self._log = log
        self._tail = Tail(log, time.monotonic)
        self._changed = threading.Condition()
        self._wanted = threading.Event()  # a look at the log, at once
        self._closed = False
        self._looks_begun = self._looks_done = 0
        self._position = 0
        self._listeners = 0
        self._batches: OrderedDict[int, _Batch] = OrderedDict()  # by the position that each one follows
        self._thread = threading.Thread(target=self._work, name="stream", daemon=True)

    def open(self) -> None:
        """Start watching."""
        self._thread.start()

    def close(self) -> None:
        """End every listener's stream."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._wanted.set()

    @property
    def full(self) -> bool:
        """Whether there are as many listeners as there may be."""
        return self._listeners >= LISTENERS

    def now(self) -> int:
        """The position after the last line that is committed now. LogUnavailable where that cannot be read."""
        with self._changed:
            look = self._looks_begun + 1
            self._wanted.set()
            if not self._changed.wait_for(lambda: self._looks_done >= look or self._closed, ANSWER_WITHIN):
                raise LogUnavailable("the saga log does not answer")
            return self._position

    def start(self, last_seen: int | None) -> int:
        """Where a listener starts: after the line that it saw last, or now. LogUnavailable."""
        now = self.now()
        if last_seen is None or last_seen > max(now, self._log.last_line_id()):  # of another log than this one
            return now
        return last_seen

    def follow(self, position: int, saga_id: str | None = None) -> Iterator[str]:
        """The events after `position`, of one saga or of all, until the listener leaves."""
        with self._changed:
            self._listeners += 1
        said = time.monotonic()
        try:
            yield f"retry: 1000\nid: {position}\n\n"
            while not self._closed:
                batch = self._next(position)
                position = batch.upto if batch else position
                text = batch.of(saga_id) if batch else ""
                if text or time.monotonic() - said > HEARTBEAT:
                    said = time.monotonic()
                    yield text or f"id: {position}\n\n"  # nothing to see; but it knows where it is
        finally:
            with self._changed:
                self._listeners -= 1

    def _next(self, position: int) -> _Batch | None:
        with self._changed:
            self._changed.wait_for(lambda: self._position > position or self._closed, HEARTBEAT)
            upto = self._position
            if upto <= position or self._closed:
                return None
            if position in self._batches:
                return self._batches[position]
        try:
            return self._read(position, upto, PAGE)
        except LogUnavailable:
            time.sleep(TICK)
            return None

    def _work(self) -> None:
        while not self._closed:
            self._wanted.wait(TICK if self._listeners else IDLE_TICK)
            self._wanted.clear()
            self._looks_begun += 1
            try:
                self._look()
            except LogUnavailable:
                logger.warning("event=stream_waits: the saga log does not answer")
                time.sleep(TICK)
            except Exception:
                logger.exception("event=stream_failed")
                time.sleep(IDLE_TICK)

    def _look(self) -> None:
        before = self._position
        position = self._tail.advance()
        batch = self._read(before, position, 1 << 30) if self._listeners and position > before > 0 else None
        with self._changed:
            self._position = position
            if batch:
                self._batches[before] = batch
                while len(self._batches) > KEPT:
                    self._batches.popitem(last=False)
            self._looks_done = self._looks_begun
            self._changed.notify_all()

    def _read(self, after: int, upto: int, most: int) -> _Batch:
        lines = self._log.lines_between(after, upto, most)
        records = self._log.find_many({saga_id for _, saga_id, _ in lines})
        texts = [
            (saga_id, _event(line_id, saga_id, represent_line(line, records.get(saga_id))))
            for line_id, saga_id, line in lines
        ]
        return _Batch(lines[-1][0] if len(lines) == most else upto, texts, "".join(text for _, text in texts))


def _event(line_id: int, saga_id: str, line: dict[str, object]) -> str:
    return f"id: {line_id}\ndata: {json.dumps({'saga_id': saga_id, **line}, ensure_ascii=False)}\n\n"
