"""This module connects to a host: it looks up the addresses, and takes the first that accepts (RFC 8305)."""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import chain, zip_longest
from typing import Any

NEXT_ADDRESS_AFTER_SECONDS = (
    0.25  # seconds that an address has to itself before the next one is tried as well (RFC 8305, section 5)
)

Address = tuple[Any, ...]  # as socket.getaddrinfo() gives it


class Resolver:
    """Looks up the addresses of names; callers that ask for the same name at the same time share one look-up."""

    def __init__(self, resolve: Callable[..., list[Any]] | None = None):
        self._resolve = resolve
        self._under_way: dict[tuple[str, int], Future[list[Address]]] = {}
        self._lock = threading.Lock()

    def addresses(self, host: str, port: int, left: float) -> list[Address]:
        """Return the host's addresses, one of each family in turn.

        Raises TimeoutError after `left` seconds, and OSError where the host has no address.

        The system's resolver knows no deadline: a name, other than an address, is looked up in a thread that is left
        behind. A resolver that hangs holds one thread for each name, however often the name is asked for.
        """
        resolve = self._resolve or socket.getaddrinfo
        look_up = partial(resolve, host, port, type=socket.SOCK_STREAM)
        with suppress(socket.gaierror):
            return look_up(flags=socket.AI_NUMERICHOST)
        with self._lock:
            found = self._under_way.get((host, port))
            if found is None:
                found = self._under_way[host, port] = Future()
                arguments = (look_up, (host, port), found)
                threading.Thread(target=self._look_up, args=arguments, name=f"look up {host}", daemon=True).start()
        return interleaved(found.result(left))

    def _look_up(self, look_up: Callable[[], list[Address]], name: tuple[str, int], found: Future[Any]) -> None:
        try:
            addresses = look_up()
        except (OSError, ValueError) as error:
            self._under_way.pop(name)
            found.set_exception(error if isinstance(error, OSError) else OSError(str(error)))
        else:
            self._under_way.pop(name)
            found.set_result(addresses)


def interleaved(found: Sequence[Address]) -> list[Address]:
    """Return the addresses, one of each family in turn, beginning with that of the first (RFC 8305, section 4)."""
    families: dict[Any, list[Address]] = {}
    for address in found:
        families.setdefault(address[0], []).append(address)
    return [address for address in chain.from_iterable(zip_longest(*families.values())) if address is not None]


def connect(found: Sequence[Address], left: Callable[[], float]) -> socket.socket:
    """Return a socket that is connected to the first of the addresses that accepts; the other sockets are closed.

    `left()` gives the seconds that remain, and raises TimeoutError where none do. Raises OSError where none accepts.
    """
    if len(found) == 1:
        return _dial(found[0], left())
    race = _Race(left)
    try:
        return race.run(deque(found))
    finally:
        race.close()


def _dial(found: Address, left: float) -> socket.socket:
    family, kind, protocol, _, address = found
    raw = socket.socket(family, kind, protocol)
    try:
        raw.settimeout(left)
        raw.connect(address)
    except BaseException:
        raw.close()
        raise
    return raw


class _Race:
    """Connects to several addresses at the same time, without threads."""

    def __init__(self, left: Callable[[], float]):
        self._left = left
        self._running: dict[int, socket.socket] = {}
        self._writable = select.poll()
        self._failure: OSError = OSError("the host has no address")

    def run(self, waiting: deque[Address]) -> socket.socket:
        """Return the socket that was connected first, in blocking mode. Raises OSError where none was."""
        while waiting or self._running:
            if waiting and (won := self._start(waiting.popleft())):
                return won
            failed = False
            while self._running and not failed:
                within = min(self._left(), NEXT_ADDRESS_AFTER_SECONDS) if waiting else self._left()
                ready = self._writable.poll(math.ceil(within * 1000))
                for number, _ in ready:
                    if won := self._finish(number):
                        return won
                failed = bool(ready)
                if not ready and waiting:
                    break
        raise self._failure

    def _start(self, found: Address) -> socket.socket | None:
        family, kind, protocol, _, address = found
        try:
            raw = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that this machine does not have
            self._failure = error
            return None
        self._running[raw.fileno()] = raw
        raw.setblocking(False)
        try:
            code = raw.connect_ex(address)
        except OSError as error:  # an address that is none
            code = error.errno or errno.EADDRNOTAVAIL
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._writable.register(raw, select.POLLOUT)
            return None
        return self._settled(raw.fileno(), code)

    def _finish(self, number: int) -> socket.socket | None:
        self._writable.unregister(number)
        return self._settled(number, self._running[number].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _settled(self, number: int, code: int) -> socket.socket | None:
        raw = self._running.pop(number)
        if code:
            raw.close()
            self._failure = OSError(code, os.strerror(code))
            return None
        raw.setblocking(True)
        return raw

    def close(self) -> None:
        """Close the sockets that were not connected first."""
        for raw in self._running.values():
            raw.close()
