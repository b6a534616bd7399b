"""Which choreographed sagas an operator has abandoned, as the broker's stream has it; and why that is safe.

A saga that nobody hears is ended by an event, `saga.<name>.abandoned`. Whoever would act first, on `started`, asks for
these events after `started` was delivered to it and before it acts. The orchestrator publishes `abandoned`, and once it
is durable asks the broker whether `started` was delivered to anybody. Each of the two first writes and then reads, both
at the broker, so at least one of them sees the other (as in Dekker's mutual exclusion):

- `started` was delivered to nobody when the orchestrator looked: whoever it is delivered to later finds `abandoned`,
  seals its step, and never acts. The saga has ended.
- It was delivered: perhaps it was acted upon. The orchestrator refuses (409), and the service's barrier decides. If
  it asks after `abandoned` was there, it seals its step and says that it refused; else it acts, and the saga goes on.

No process has to be up for it, a service that starts at this very moment is on one side or the other, and a crash
leaves either an operator without an answer, who asks again, or a saga that its first service will seal. The event may
be published more than once, and so may `started`, however late: `abandoned` is kept as long as that is. Nothing is
taken out of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from saga.choreography.event_body import saga_id_of


class Abandoned:
    """The abandoned sagas that were read so far; what is new is read at each question. On one event loop."""

    def __init__(self, next_after: Callable[[int], Awaitable[tuple[int, bytes] | None]]):
        self._next_after = next_after
        self._saga_ids: set[str] = set()
        self._read = 0  # the number in the stream of the last one that was read
        self._lock = asyncio.Lock()
        self._asked = self._answered = 0

    def start_again(self) -> None:
        """The stream is another one, numbered from 1."""
        self._read = 0

    async def has(self, payload: bytes) -> bool:
        """Whether the saga of this event was abandoned before now. Raises what reading raises.

        Of those who ask at the same time one reads for all who asked before it began to.
        """
        self._asked += 1
        question = self._asked
        async with self._lock:
            if self._answered < question:
                asked = self._asked
                await self._read_on()
                self._answered = asked
        return bool(self._saga_ids) and saga_id_of(payload) in self._saga_ids

    async def _read_on(self) -> None:
        while found := await self._next_after(self._read):
            self._read, payload = found
            if saga_id := saga_id_of(payload):
                self._saga_ids.add(saga_id)
