"""The set of choreographed sagas that an operator has abandoned, as the broker's stream tells it; and why that is safe.

A saga that no service has heard of is ended by an event, `saga.<name>.abandoned`. The first service reads these events
after `started` was delivered to it and before it acts. The orchestrator publishes `abandoned`, and once that is durable
asks the broker whether `started` was delivered to anybody. Each of the two first writes and then reads, both at the
broker, so at least one of them sees the other (as in Dekker's mutual exclusion):

- `started` was delivered to nobody when the orchestrator asked. A service that it is delivered to later finds
  `abandoned`, seals its step, and never acts. The saga has ended.
- `started` was delivered, and the service may have acted. The orchestrator refuses to abandon the saga (409), and the
  service decides: if it reads after `abandoned` was published, it seals its step and publishes `refused`; else it acts,
  and the saga goes on.

No process has to be up for this. A service that starts at the same moment is in one of the two cases. A crash leaves
an operator without an answer, who asks again, or a saga whose first service will seal its step. Both events may be
published more than once, however late: `abandoned` is kept as long as `started`. Nothing is deleted from the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from saga.choreography.event_body import saga_id_of


class AbandonedSagas:
    """The ids of the abandoned sagas. Each question first reads the events that are new. For use on one event loop.

    `next_after` gives the number and the payload of the next such event after a number of the stream; None where there
    is none.
    """

    def __init__(self, next_after: Callable[[int], Awaitable[tuple[int, bytes] | None]]):
        self._next_after = next_after
        self._saga_ids: set[str] = set()
        self._read = 0  # the number in the stream of the last event that was read
        self._lock = asyncio.Lock()
        # How many questions were asked, and up to which of them the events have been read.
        self._asked = self._answered = 0

    def start_again(self) -> None:
        """Read the stream from its beginning: it is a new one, whose events are numbered from 1."""
        self._read = 0

    async def has(self, payload: bytes) -> bool:
        """Return whether the saga of this event has been abandoned. Raises what `next_after` raises.

        Where several ask at the same time, one of them reads, for all who asked before it began to read.
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
