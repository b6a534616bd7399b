"""Pulls the events of one consumer from the broker: never more of them than there are free places here.

What the broker delivers is begun at once, so that its count of deliveries is a count of attempts: an event that waits
while its service dies again and again has not been delivered, and has used up none.
https://docs.nats.io/nats-concepts/jetstream/consumers
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

EXPIRES = 30.0  # seconds that one request waits at the broker
LATE = 5.0  # seconds after that in which the broker must have said so, else it has forgotten the request
REST = 0.25  # seconds before the next request where the broker has refused one: it may not have the consumer yet


class Puller:
    """One consumer's requests. All of it runs on the connection's event loop.

    There is one request at a time at the broker; the next one is made once that is used up, for as many events as
    there are free places then.
    """

    def __init__(
        self,
        client: Client,
        asks: str,
        places: int,
        handle: Callable[[Msg], asyncio.Task[Any]],
        spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]],
    ):
        self._client = client
        self._asks = asks  # the subject that requests are sent to
        self._free = places
        self._handle = handle
        self._spawn = spawn
        self._numbers = itertools.count(1)
        self._inbox = client.new_inbox()
        self._current = ""  # where the answers to the present request go
        self._owed = 0  # events that the present request may still bring
        self._until = 0.0  # by the loop's clock
        self._not_before = 0.0

    async def open(self) -> None:
        """Listen for what the broker sends; `look` then makes the first request."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._arrived)

    def forget(self) -> None:
        """The connection was lost, and with it the request."""
        self._owed = 0

    async def look(self) -> None:
        """See to it that there is a request while there are free places; to be called now and then."""
        while True:
            self._pull()
            await asyncio.sleep(REST)

    async def _arrived(self, message: Msg) -> None:
        if message.reply:  # an event: it carries where its acknowledgement goes
            self._owed = max(0, self._owed - 1)
            self._free -= 1
            self._handle(message).add_done_callback(self._left)
        elif message.subject == self._current:  # the request is over: expired, or refused
            self._owed = 0
            if (message.headers or {}).get("Status") != "408":
                self._not_before = asyncio.get_running_loop().time() + REST
        if not self._owed:
            self._pull()

    def _left(self, task: asyncio.Task[Any]) -> None:
        self._free += 1
        if not self._owed:
            self._pull()

    def _pull(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._free < 1 or (self._owed and now < self._until) or now < self._not_before:
            return
        if not self._client.is_connected:
            return
        self._current = f"{self._inbox}.{next(self._numbers)}"
        self._owed, self._until = self._free, now + EXPIRES + LATE
        body = json.dumps({"batch": self._free, "expires": int(EXPIRES * 1e9)}).encode()
        self._spawn(self._request(body, self._current))

    async def _request(self, body: bytes, reply: str) -> None:
        with suppress(NatsError, OSError):  # else it is made again once we are connected
            await self._client.publish(self._asks, body, reply=reply)
