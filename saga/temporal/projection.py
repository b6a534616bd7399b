"""How the saga log of a saga that a workflow drives is written.

The log is a projection of the workflow's history. It may be late, but it is never wrong: what it holds has happened.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from saga.errors import LeaseLost, LogUnavailable, WriteRefused
from saga.machine import Line
from saga.saga_log import SagaLog
from saga.temporal.messages import Projection

logger = logging.getLogger("saga")

MESSAGE_AT_MOST = 500  # characters, where a projection is too large for the log
TRIES = 5  # where another worker writes the same saga at the same time


class Projector:
    """Writes projections. A row's epoch is the number of its last line, so nothing is written twice or backwards."""

    def __init__(self, log: SagaLog, observe: Callable[[str, Line], None]):
        self._log = log
        self._observe = observe  # called with the saga's id and each line, once the line is durable

    def project(self, projection: Projection) -> int:
        """Bring the log up to date, and return the number of the last line that it has then.

        What the log cannot take is left out, since the workflow's history has it. Raises LogUnavailable.
        """
        try:
            return self._project(projection)
        except WriteRefused as error:
            logger.error("event=not_projected saga_id=%s: %s", projection.saga_id, error)
        try:
            return self._project(without_what_is_large(projection))
        except WriteRefused:
            # Trying again would not help, and the workflow must not wait for ever: let it count as written.
            return projection.lines[-1].seq if projection.lines else 0

    def _project(self, projection: Projection) -> int:
        saga_id, new = projection.saga_id, projection.lines
        if not new:
            return 0
        epoch, last = new[0].seq - 1, new[-1].seq
        for _ in range(TRIES):
            try:
                answered = {each.step: each.result for each in projection.results if each.line > epoch}
                self._log.advance(saga_id, epoch, projection.present, new, answered, next_epoch=last)
            except LeaseLost:  # another worker was quicker
                row = self._log.find(saga_id)
                if row is None:  # the saga was pruned
                    return last
                if row.epoch is None:  # its epoch cannot be read, so nothing can be written after it
                    return last
                epoch = row.epoch
                new = [line for line in projection.lines if line.seq > epoch]
                if not new:
                    return epoch
                continue
            for line in new:
                self._observe(saga_id, line)
            return last
        raise LogUnavailable(f"too many write the saga log of {saga_id}")


def without_what_is_large(projection: Projection) -> Projection:
    """Return the projection without results and with short messages; its last line says so. Pure."""
    present = projection.present
    error = present.error and {**present.error, "message": str(present.error.get("message"))[:MESSAGE_AT_MOST]}
    results = [replace(each, result={}) for each in projection.results]
    lines = [_short(line) for line in projection.lines]
    lines[-1] = replace(lines[-1], detail={**lines[-1].facts, "not_stored": "the results are too large"})
    return replace(projection, present=replace(present, error=error), lines=lines, results=results)


def _short(line: Line) -> Line:
    detail = line.detail and {
        name: value[:MESSAGE_AT_MOST] if isinstance(value, str) else value for name, value in line.detail.items()
    }
    return replace(line, detail=detail)
