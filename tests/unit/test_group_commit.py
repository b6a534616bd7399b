"""Group commit without a database: who writes for whom, and what each is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from saga.storage.group_commit import BYTES_PER_TRANSACTION, WRITES_PER_TRANSACTION, GroupCommit
from tests.support.stack import eventually

AMPLE = 30  # seconds


class Disk:
    """Keeps the batches; the first one stands still until it may go on."""

    def __init__(self, outcome: Callable[[int], Any] = lambda write: write):
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()
        self._outcome = outcome

    def write(self, writes: Sequence[int]) -> list[Any]:
        self.batches.append(list(writes))
        assert self.go_on.wait(AMPLE)
        return [self._outcome(write) for write in writes]


def company(disk: Disk, group: GroupCommit[int, Any], writes: Sequence[int]) -> list[Future[Any]]:
    """The outcomes of `writes`, all of which but the first come while the first is being written."""
    with ThreadPoolExecutor(len(writes)) as pool:
        futures = [pool.submit(group.submit, writes[0])]
        eventually(lambda: disk.batches)
        for number, write in enumerate(writes[1:], start=1):
            futures.append(pool.submit(group.submit, write))
            eventually(lambda number=number: len(group._entries) == number)
        disk.go_on.set()
    return futures


def test_one_alone_writes_at_once_and_gets_its_outcome() -> None:
    disk = Disk(lambda write: write * 2)
    disk.go_on.set()
    group: GroupCommit[int, int] = GroupCommit(disk.write, gather=AMPLE)
    assert [group.submit(1), group.submit(2)] == [2, 4]
    assert disk.batches == [[1], [2]]


def test_those_who_come_while_one_is_written_are_written_together_in_their_order() -> None:
    disk = Disk(lambda write: f"{write} written")
    group: GroupCommit[int, str] = GroupCommit(disk.write)
    futures = company(disk, group, [1, 2, 3, 4])
    assert [future.result() for future in futures] == [f"{write} written" for write in (1, 2, 3, 4)]
    assert disk.batches == [[1], [2, 3, 4]]


def test_what_goes_wrong_with_one_is_told_to_that_one() -> None:
    disk = Disk(lambda write: ValueError(write) if write == 3 else write)
    futures = company(disk, GroupCommit(disk.write), [1, 2, 3, 4])
    assert isinstance(futures[2].exception(), ValueError)
    assert [futures[index].result() for index in (0, 1, 3)] == [1, 2, 4]


class Died(BaseException):
    """Not an Exception, as a process's end is none."""


def test_what_goes_wrong_with_all_is_told_to_all_and_the_next_are_written() -> None:
    disk = Disk()

    def write(writes: Sequence[int]) -> list[int]:
        if 1 in writes:
            assert disk.write(writes)
            raise Died
        return disk.write(writes)

    group: GroupCommit[int, int] = GroupCommit(write)
    futures = company(disk, group, [1, 2, 3])
    assert isinstance(futures[0].exception(), Died)
    assert [futures[1].result(), futures[2].result()] == [2, 3]
    assert group.submit(4) == 4


@pytest.mark.parametrize(
    ("size", "together"), [(1, WRITES_PER_TRANSACTION), (BYTES_PER_TRANSACTION // 4, 5), (BYTES_PER_TRANSACTION + 1, 1)]
)
def test_a_transaction_holds_so_many_and_so_much_and_at_least_one(size: int, together: int) -> None:
    disk = Disk()
    group: GroupCommit[int, int] = GroupCommit(disk.write, size=lambda write: size)
    writes = list(range(2 * WRITES_PER_TRANSACTION))
    assert sorted(future.result() for future in company(disk, group, writes)) == writes
    assert [write for batch in disk.batches for write in batch] == writes
    assert max(map(len, disk.batches)) == together


def test_a_leader_with_company_waits_for_as_many_as_the_last_time_and_no_longer() -> None:
    disk = Disk()
    group: GroupCommit[int, int] = GroupCommit(disk.write, gather=AMPLE)
    company(disk, group, [1, 2, 3])  # two came together
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(group.submit, 4)
        eventually(lambda: group._entries)
        assert not first.done()
        assert [pool.submit(group.submit, 5).result(), first.result()] == [5, 4]
    assert disk.batches[-1] == [4, 5]


def test_many_threads_lose_nothing_and_mix_nothing_up() -> None:
    written: list[int] = []

    def write(writes: Sequence[int]) -> list[int]:
        written.extend(writes)
        return list(writes)

    group: GroupCommit[int, int] = GroupCommit(write, gather=0.0001)
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(group.submit, range(2000))) == list(range(2000))
    assert sorted(written) == list(range(2000))
