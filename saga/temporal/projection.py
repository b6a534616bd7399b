"""The saga log of a saga that a workflow drives: a projection, never wrong, at most late."""

from __future__ import annotations

from collections.abc import Callable

from saga.errors import LeaseLost, LogUnavailable
from saga.log import SagaLog
from saga.machine import Line
from saga.temporal.messages import Projection

TRIES = 5  # at a saga that another worker writes, too


class Projector:
    """The row's epoch is the number of its last line, so that nothing is written twice, or backwards."""

    def __init__(self, log: SagaLog, observe: Callable[[str, Line], None]):
        self._log = log
        self._observe = observe  # told of every line and its saga's id, once it is durable

    def project(self, projection: Projection) -> int:
        """Bring the log up to date; gives the number of the last line that it has. LogUnavailable."""
        saga_id, new = projection.saga_id, projection.lines
        if not new:
            return 0
        epoch, last = new[0].seq - 1, new[-1].seq
        for _ in range(TRIES):
            try:
                answered = {each.step: each.result for each in projection.results if each.line > epoch}
                self._log.advance(saga_id, epoch, projection.present, new, answered, next_epoch=last)
            except LeaseLost:  # another was quicker
                record = self._log.find(saga_id)
                if record is None:  # forgotten
                    return last
                epoch = record.epoch
                new = [line for line in projection.lines if line.seq > epoch]
                if not new:
                    return epoch
                continue
            for line in new:
                self._observe(saga_id, line)
            return last
        raise LogUnavailable(f"too many write the saga log of {saga_id}")
