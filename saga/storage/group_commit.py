"""Group commit: many threads' writes in few transactions, by whoever of them came first (DeWitt et al., "Implementation
Techniques for Main Memory Database Systems", SIGMOD 1984).

A thread that brings a write and finds nobody writing becomes the leader: it writes for all who have come meanwhile,
tells each what became of its own write, and hands over to the first who came too late for it. A leader who finds
company waits a moment, so that more come along; one alone writes at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

GATHER = 0.003  # seconds that a leader with company waits for more
WRITES_AT_MOST = 64  # in one transaction,
SIZE_AT_MOST = 1 << 20  # of the size of those that join the first

W = TypeVar("W")
R = TypeVar("R")


class GroupCommit(Generic[W, R]):
    """`write_all(writes)` makes all of them durable, and gives for each what it came to, or what it must raise."""

    def __init__(
        self,
        write_all: Callable[[Sequence[W]], Sequence[R | BaseException]],
        size: Callable[[W], int] = lambda write: 1,
        gather: float = GATHER,
    ):
        self._write_all = write_all
        self._size = size
        self._gather = gather
        self._lock = threading.Lock()
        self._entries: list[_Entry[W, R]] = []  # in the order they came; the leader's is the first
        self._led = False
        self._expected = 1  # as many came along the last time
        self._enough = threading.Event()

    def submit(self, write: W) -> R:
        """What `write` came to, once it is durable; raises what it must."""
        entry: _Entry[W, R] = _Entry(write)
        with self._lock:
            self._entries.append(entry)
            leads, self._led = not self._led, True
            if len(self._entries) >= self._expected > 1:
                self._enough.set()
        if not leads:
            entry.turn.acquire()
        if not entry.outcomes:
            self._lead()
        outcome = entry.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _lead(self) -> None:
        if self._expected > 1:
            self._enough.wait(self._gather)
        with self._lock:
            number = self._fitting()
            batch, self._entries = self._entries[:number], self._entries[number:]
            self._expected = len(batch)
            self._enough.clear()
        outcomes: Sequence[R | BaseException]
        try:
            outcomes = self._write_all([entry.write for entry in batch])
        except BaseException as error:
            outcomes = [error] * len(batch)
        with self._lock:
            successor = self._entries[0] if self._entries else None
            self._led = successor is not None
        if successor:
            successor.turn.release()
        for entry, outcome in zip(batch, outcomes, strict=True):
            entry.outcomes.append(outcome)
            entry.turn.release()

    def _fitting(self) -> int:
        """How many of those that wait are written together: at least one."""
        size = 0
        for number, entry in enumerate(self._entries[1:WRITES_AT_MOST], start=1):
            size += self._size(entry.write)
            if size > SIZE_AT_MOST:
                return number
        return min(len(self._entries), WRITES_AT_MOST)


class _Entry(Generic[W, R]):
    def __init__(self, write: W):
        self.write = write
        self.outcomes: list[R | BaseException] = []  # one, in the end
        self.turn = threading.Lock()  # released once there is an outcome, or nobody but it to lead
        self.turn.acquire()
