"""Writes of several sagas in one transaction, on SQLite and MySQL: each is fenced, and told, for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from saga.errors import LeaseLost, LogUnavailable
from saga.machine import Line
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from tests.contract.test_saga_log import NOW, begun, present, row
from tests.contract.test_saga_log import log as log  # the fixture

AMPLE = 30  # seconds


def together(log: SagaLog, *calls: Callable[[], Any]) -> list[Any]:
    """What these calls give or raise, whose writes are one batch, in this order."""
    writes: dict[int, Any] = {}
    fates: list[Any] = []

    def write_all() -> None:
        fates.extend(log._write_all([writes[index] for index in sorted(writes)]))

    everybody = threading.Barrier(len(calls), action=write_all)

    class Gathering:
        def submit(self, write: Any) -> Any:
            writes[index := local.index] = write
            everybody.wait(AMPLE)
            if isinstance(fates[index], BaseException):
                raise fates[index]
            return fates[index]

    local = threading.local()

    def run(index: int) -> Any:
        local.index = index
        try:
            return calls[index]()
        except Exception as error:
            return error

    usual, log._writes = log._writes, Gathering()  # type: ignore[assignment]
    try:
        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(run, range(len(calls))))
    finally:
        log._writes = usual


def line(seq: int = 2, **changes: Any) -> Line:
    return replace(Line(seq, NOW, "attempt", "A", 1, 200, 1.5, {"call": "action"}), **changes)


def begin(log: SagaLog, made: SagaRow) -> Callable[[], Any]:
    return lambda: log.begin(made, [Line(1, NOW, "started")])


def advance(
    log: SagaLog, of: SagaRow, lines: list[Line], epoch: int = 1, results: Any = None, **changes: Any
) -> Callable[[], Any]:
    return lambda: log.advance(of.id, epoch, present(of, **changes), lines, results or {})


def test_sagas_begin_and_move_on_in_one_transaction(log: SagaLog) -> None:
    first, second = begun(log, 1), begun(log, 2)
    third = row(3, idempotency_key="k")
    answers = {"A": {"user_id": 7}}
    moved = advance(log, first, [line(2), line(3)], results=answers, cursor=1)
    assert together(log, moved, begin(log, third), advance(log, second, [], cursor=2)) == [None, None, None]
    assert log.find(first.id) == replace(first, cursor=1, results=answers)
    assert log.find(second.id) == replace(second, cursor=2)
    assert log.find(third.id) == third
    assert [[made.seq for made in log.lines(of.id)] for of in (first, second, third)] == [[1, 2, 3], [1], [1]]


def test_only_the_write_whose_epoch_has_passed_is_refused(log: SagaLog) -> None:
    first, second, third = (begun(log, number) for number in (1, 2, 3))
    told = together(
        log,
        advance(log, first, [line()], cursor=1),
        advance(log, second, [line()], epoch=7, cursor=1),
        advance(log, third, [line()], cursor=1),
    )
    assert [type(outcome) for outcome in told] == [type(None), LeaseLost, type(None)]
    assert [log.find(of.id).cursor for of in (first, second, third)] == [1, 0, 1]  # type: ignore[union-attr]
    assert [len(log.lines(of.id)) for of in (first, second, third)] == [2, 1, 2]


def test_all_of_them_may_have_lost_their_leases(log: SagaLog) -> None:
    made = begun(log)
    told = together(log, advance(log, made, [line()], epoch=3), advance(log, made, [line()], epoch=4))
    assert [type(outcome) for outcome in told] == [LeaseLost, LeaseLost]
    assert len(log.lines(made.id)) == 1


def test_two_with_one_key_are_one_saga_and_the_others_are_written(log: SagaLog) -> None:
    known, other, moving = row(2, idempotency_key="k"), row(3, idempotency_key="k"), begun(log, 1)
    told = together(log, begin(log, known), advance(log, moving, [line()], cursor=1), begin(log, other))
    assert told == [None, None, known]
    assert log.find(other.id) is None
    assert log.lines(other.id) == []
    assert [len(log.lines(known.id)), len(log.lines(moving.id))] == [1, 2]


def test_a_write_that_is_sent_again_harms_nobody(log: SagaLog) -> None:
    """Its COMMIT's answer was lost: it is there already, and so is that of its neighbour."""
    first, second = begun(log, 1), begun(log, 2)
    for _ in range(2):
        told = together(log, advance(log, first, [line()], cursor=1), advance(log, second, [line()], cursor=1))
        assert told == [None, None]
    assert [len(log.lines(of.id)) for of in (first, second)] == [2, 2]


def test_what_the_database_refuses_fails_only_its_own_write(log: SagaLog) -> None:
    first, second, third = (begun(log, number) for number in (1, 2, 3))
    told = together(
        log,
        advance(log, first, [line()], cursor=1),
        advance(log, second, [line(event=None)], cursor=1),  # NOT NULL
        advance(log, third, [line()], cursor=1),
    )
    assert [told[0], told[2]] == [None, None]
    assert isinstance(told[1], Exception)
    assert not isinstance(told[1], LogUnavailable)
    assert [log.find(of.id).cursor for of in (first, second, third)] == [1, 0, 1]  # type: ignore[union-attr]
    assert log.lines(second.id) == [Line(1, NOW, "started")]


@pytest.mark.parametrize("size", [10, 100_000])
def test_a_large_batch_is_written(log: SagaLog, size: int) -> None:
    made = [begun(log, number) for number in range(1, 31)]
    results = {"A": {"text": "x" * size}, "B": {}}
    moves = [advance(log, of, [line(2, detail={"message": "%s; ü"}), line(3)], results=results) for of in made]
    assert together(log, *moves) == [None] * 30
    assert log.find(made[-1].id) == replace(made[-1], results=results)
    assert [len(log.lines(of.id)) for of in made] == [3] * 30
