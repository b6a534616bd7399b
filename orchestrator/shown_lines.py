"""The lines of many sagas as the API shows them, with the secrets of each saga masked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from saga.machine import Line
from saga.saga_log import SagaLog
from saga.views.representation import represent_lines

SAGAS_AT_ONCE = 25  # sagas whose inputs and results are in memory at a time: each may be a megabyte and more


def show_lines(lines: Sequence[tuple[str, Line]], log: SagaLog) -> list[dict[str, Any]]:
    """Return the lines, each given with its saga's id, in their order. Raises LogUnavailable.

    A line may echo a secret value, so masking it takes its saga's input and results: they are read for a few sagas at
    a time and not kept, and the memory this takes does not grow with the number of lines.
    """
    by_saga: defaultdict[str, list[int]] = defaultdict(list)
    for place, (saga_id, _) in enumerate(lines):
        by_saga[saga_id].append(place)
    ids, shown = list(by_saga), {}
    for first in range(0, len(ids), SAGAS_AT_ONCE):
        some = ids[first : first + SAGAS_AT_ONCE]
        sagas = log.find_many(some)
        for saga_id in some:
            own = represent_lines([lines[place][1] for place in by_saga[saga_id]], sagas.get(saga_id))
            for place, line in zip(by_saga[saga_id], own, strict=True):
                shown[place] = {"saga_id": saga_id, **line}
    return [shown[place] for place in range(len(lines))]
