"""The connection to NATS, with the event loop (asyncio) that its client needs, on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import Any, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError

from saga.choreography.broker import ANSWERS_WITHIN
from saga.choreography.namespace import Namespace
from saga.errors import BrokerUnavailable

logger = logging.getLogger("saga")

T = TypeVar("T")


async def _nothing() -> None:
    return None


class Connection:
    """A connection that is made again for as long as it takes, and that runs coroutines on the client's event loop.

    `on_connect` is awaited after every connect and reconnect, until it raises no error of the broker, and then every
    `look_every` seconds: somebody may delete a stream or a consumer while we are connected. `on_first_connect` is
    awaited once, before; `on_disconnect` is called whenever the connection is lost.
    """

    def __init__(self, url: str, name: str, prefix: str, look_every: float):
        self.names = Namespace(prefix)
        self.client = Client()
        self.stream = self.client.jetstream()
        self.loop = asyncio.new_event_loop()
        self.on_first_connect: Callable[[], Awaitable[None]] = _nothing
        self.on_connect: Callable[[], Awaitable[None]] = _nothing
        self.on_disconnect: Callable[[], None] = lambda: None
        self._servers = url.split(",")
        self._name = name
        self._look_every = look_every
        self._tasks: set[asyncio.Task[Any]] = set()
        self._away = False
        self._closing = False  # then nobody need be told that the connection ends
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)

    def open(self) -> None:
        """Connect, in the background."""
        self._thread.start()

    def close(self) -> None:
        """Disconnect, and end all coroutines; waits up to 4 seconds for it."""
        self._closing = True
        if self._thread.is_alive():
            with suppress(Exception):  # whatever keeps it from ending well, the process ends
                asyncio.run_coroutine_threadsafe(self._end(), self.loop).result(2)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout=2)

    def ask(self, work: Coroutine[Any, Any, T], seconds: float = 2 * ANSWERS_WITHIN) -> T:
        """Run a coroutine on the event loop and return what it returns; called from any other thread.

        Raises BrokerUnavailable where we are not connected, or it takes longer.
        """
        if not self.client.is_connected:
            work.close()
            raise BrokerUnavailable("the broker (NATS_URL) does not answer")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result(seconds)
        except (TimeoutError, NatsError, OSError, FutureTimeout) as error:
            future.cancel()
            raise BrokerUnavailable(f"the broker does not answer: {type(error).__name__}") from error

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a coroutine that ends with the connection; called on the event loop."""
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.spawn(self._stay_connected())
        self.loop.run_forever()

    async def _end(self) -> None:
        with suppress(Exception):  # whatever the client says about its end
            await self.client.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _stay_connected(self) -> None:
        while not self.client.is_connected:
            try:
                await self.client.connect(
                    self._servers,
                    name=self._name,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=1,
                    connect_timeout=2,
                    ping_interval=10,
                    max_outstanding_pings=2,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_connect,
                )
            except (TimeoutError, NatsError, OSError) as error:
                await self._on_error(error)
                await asyncio.sleep(0.5)
        await self.on_first_connect()
        while True:
            if self.client.is_connected:
                await self._on_connect()
            await asyncio.sleep(self._look_every)

    async def _on_error(self, error: Exception) -> None:
        if not self._away and not self._closing and not self.client.is_connected:
            self._away = True
            logger.warning("broker_away: %s; events wait in the outbox", type(error).__name__)

    async def _on_disconnect(self) -> None:
        self.on_disconnect()
        await self._on_error(ConnectionError())

    async def _on_connect(self) -> None:
        self._away = False
        while self.client.is_connected:
            try:
                await self.on_connect()
                return
            except (TimeoutError, NatsError, OSError) as error:
                if not self._closing:
                    logger.warning("broker_not_ready: %s", error)
                await asyncio.sleep(0.5)
