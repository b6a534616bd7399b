"""Every crash point inside the log's transaction when two sagas share it: both lose nothing, and neither half of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from saga.storage import log_writes
from tests.support.world import Crash, World

PAIRS = [("", ""), ("", "c:refuse"), ("b:after", "c&b:undo:1"), ("c:late", "b")]
AMPLE = 30  # seconds


class InStep:
    """Takes the place of the group commit: each transaction holds a write of every saga that is still under way."""

    def __init__(self, world: World, sagas: int, point: Callable[[str], None]):
        self._write_all = world.log._write_all
        self._world = world
        self._point = point
        self._running = sagas
        self._waiting: dict[str, Any] = {}
        self._outcomes: dict[str, Any] = {}
        self._changed = threading.Condition()
        self.sizes: list[int] = []

    def submit(self, write: Any) -> Any:
        saga_id = str(write.lines[0][0])
        with self._changed:
            self._waiting[saga_id] = write
            self._write_if_complete()
            assert self._changed.wait_for(lambda: saga_id in self._outcomes, AMPLE)
            outcome = self._outcomes.pop(saga_id)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def leave(self) -> None:
        with self._changed:
            self._running -= 1
            self._write_if_complete()

    def _write_if_complete(self) -> None:
        if not self._waiting or len(self._waiting) < self._running:
            return
        ids = sorted(self._waiting)
        outcomes: Sequence[Any]
        usual, self._world.point = self._world.point, self._point
        try:
            outcomes = self._write_all([self._waiting[saga_id] for saga_id in ids])
            self._world.point("after commit")
        except Crash as crash:
            outcomes = [crash] * len(ids)
        finally:
            self._world.point = usual
        self.sizes.append(len(ids))
        self._outcomes |= zip(ids, outcomes, strict=True)
        self._waiting.clear()
        self._changed.notify_all()


def run(world: World, pair: tuple[str, str], crash: int | None) -> int:
    """Both sagas side by side, a crash at this point of a transaction, recovery, the promises; gives the points."""
    count = 0

    def point(name: str) -> None:
        nonlocal count
        count += 1
        if count - 1 == crash:
            raise Crash(name)

    world.committed.clear()
    usual, world.log._writes = world.log._writes, InStep(world, len(pair), point)  # type: ignore[assignment]
    in_step: Any = world.log._writes

    def drive(flags: str) -> str | None:
        try:
            return world.start(flags)
        finally:
            in_step.leave()

    with ThreadPoolExecutor(len(pair)) as pool:
        saga_ids = list(pool.map(drive, pair))
    world.log._writes = usual
    assert crash is not None or max(in_step.sizes) == 2
    assert (saga_ids[0] is None) == (saga_ids[1] is None), "half of a transaction was kept"
    for saga_id in filter(None, saga_ids):
        world.check(world.finish(saga_id))
        world.send_late(saga_id)
        world.check(world.finish(saga_id))
    return count


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: " beside ".join(flags or "all succeed" for flags in pair))
def test_a_crash_inside_a_batch_loses_nothing(
    world: World, pair: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _watch(world, monkeypatch)
    for number in range(run(world, pair, None)):
        run(world, pair, number)


def _watch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Points before and after each batch of statements, and just before the COMMIT."""
    execute_batch: Callable[..., Any] = log_writes.execute_batch

    def watched(*sent: Any, **options: Any) -> Any:
        world.point("before batch")
        found = execute_batch(*sent, **options)
        world.point("after batch")
        return found

    monkeypatch.setattr(log_writes, "execute_batch", watched)
    event.listen(world.log.database.engine, "commit", lambda connection: world.point("before commit"))


def test_the_points_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two beginnings in one transaction, then seven moves at most in common: each with its points."""
    world = World(tmp_path)
    _watch(world, monkeypatch)
    assert run(world, ("", ""), None) >= 4 * 4
    world.close()
