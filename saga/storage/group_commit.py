"""Group commit: the writes of many threads in few transactions (DeWitt et al., "Implementation Techniques for Main
Memory Database Systems", SIGMOD 1984).

A thread that brings a write and finds nobody writing becomes the leader. It writes for all who have come meanwhile,
gives each of them the outcome of its own write, and passes the lead to the first who came too late. A leader who had
company the last time waits a moment for more; a thread alone writes at once. `Singly` is the plain version.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

GATHER_SECONDS = 0.003  # how long a leader with company waits for more writes
WRITES_PER_TRANSACTION = 64  # at most
BYTES_PER_TRANSACTION = 1 << 20  # at most, of those that join the leader's own

W = TypeVar("W")
R = TypeVar("R")
WriteAll = Callable[[Sequence[W]], Sequence[R | BaseException]]


class Singly(Generic[W, R]):
    """Makes each write durable in a transaction of its own."""

    def __init__(self, write_all: WriteAll[W, R]):
        self._write_all = write_all

    def submit(self, write: W) -> R:
        """Return the outcome of `write`, once it is durable. Raises the outcome where it is an exception."""
        return _given(self._write_all([write])[0])


class GroupCommit(Generic[W, R]):
    """Makes writes durable together: `write_all(writes)` gives the outcome of each of them, or what it must raise."""

    def __init__(
        self,
        write_all: WriteAll[W, R],
        size: Callable[[W], int] = lambda write: 1,
        gather: float = GATHER_SECONDS,
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
        """Return the outcome of `write`, once it is durable. Raises the outcome where it is an exception."""
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
        return _given(entry.outcomes[0])

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
        """Return how many of the writes that wait go into the next transaction; at least one."""
        size = 0
        for number, entry in enumerate(self._entries[1:WRITES_PER_TRANSACTION], start=1):
            size += self._size(entry.write)
            if size > BYTES_PER_TRANSACTION:
                return number
        return min(len(self._entries), WRITES_PER_TRANSACTION)


def _given(outcome: R | BaseException) -> R:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


class _Entry(Generic[W, R]):
    def __init__(self, write: W):
        self.write = write
        self.outcomes: list[R | BaseException] = []  # one, in the end
        self.turn = threading.Lock()  # released once there is an outcome, or nobody but it to lead
        self.turn.acquire()
