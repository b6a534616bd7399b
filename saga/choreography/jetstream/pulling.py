"""How one consumer's events are pulled: never more of them than this process can begin to handle at once.

So each delivery that the broker counts is an attempt. An event that has to wait waits at the broker: while its service
dies again and again, it is not delivered and uses up no attempts.
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
LATE = 5.0  # seconds after that until a request of which the broker has not said that it expired counts as lost
REST = 0.25  # seconds before the next request where the broker refused one: it may not have the consumer yet


class Puller:
    """Makes the requests of one consumer. All methods run on the connection's event loop.

    There is one request at a time at the broker. Once it is used up the next one is made, for as many events as there
    are free places then; `places` says how many events can be handled at once.
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
        self._asks = asks  # the subject that the requests are sent to
        self._free = places
        self._handle = handle
        self._spawn = spawn
        self._numbers = itertools.count(1)
        self._inbox = client.new_inbox()
        self._current = ""  # the subject on which the broker says that the present request has ended
        self._owed = 0  # events that the present request may still bring
        self._until = 0.0  # when the present request counts as lost, by the loop's clock
        self._not_before = 0.0  # when the next request may be made, by the loop's clock

    async def open(self) -> None:
        """Subscribe to the answers to all requests; `look` then makes the first request."""
        await self._client.subscribe(f"{self._inbox}.*", cb=self._arrived)

    def forget(self) -> None:
        """Forget the present request, which was lost with the connection."""
        self._owed = 0

    async def look(self) -> None:
        """Make a request whenever there is none and there are free places; runs until it is cancelled."""
        while True:
            self._pull()
            await asyncio.sleep(REST)

    async def _arrived(self, message: Msg) -> None:
        # Only an event has a reply subject, that of its acknowledgement; other messages say that a request has ended.
        if message.reply:
            self._owed = max(0, self._owed - 1)
            self._free -= 1
            self._handle(message).add_done_callback(self._left)
        elif message.subject == self._current:
            self._owed = 0
            # 408: it has expired. Anything else is a refusal.
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
        # Where this fails, `forget` and `look` make another request once there is a connection.
        with suppress(NatsError, OSError):
            await self._client.publish(self._asks, body, reply=reply)
