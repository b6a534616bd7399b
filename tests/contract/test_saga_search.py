"""How sagas are found in the log, on SQLite and on MySQL."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import text

from saga.definition import CHOREOGRAPHY, TEMPORAL
from saga.machine import Line, State
from saga.saga_log import SagaLog
from saga.views import saga_search
from saga.views.calls import lines_now
from saga.views.saga_filter import LONGEST, OLDEST, SagaQuery, id_at
from saga.views.saga_search import SagaSearch
from saga.views.stuck import StuckSagas
from tests.support.builders import a_saga_row, signup

T = 1_800_000_000.0


def begun(log: SagaLog, number: int, tail: str = "0", **changes: Any) -> str:
    """A saga that started at the second `number`, whose id ends with `tail`; gives its id."""
    at = T + number
    saga_id = f"{id_at(at)}-7000-8000-{number:06x}{tail.rjust(6, '0')}"
    row = a_saga_row(id=saga_id, started_at=at, **changes)
    assert log.begin(row, [Line(1, at, "started")]) is None
    return saga_id


def error(step: str = "B", kind: str = "failed") -> dict[str, Any]:
    return {"step": step, "kind": kind, "status_code": 500, "message": "no"}


def found(log: SagaLog, **conditions: Any) -> list[str]:
    return [saga.id for saga in SagaSearch(log).search(SagaQuery(**conditions)).sagas]


def test_mode_engine_step_and_kind_are_told_exactly(log: SagaLog) -> None:
    choreographed = begun(log, 1, definition=signup(mode=CHOREOGRAPHY))
    temporal = begun(log, 2, definition=signup(engine=TEMPORAL), error=error("A", "refused"))
    plain = begun(log, 3, error=error("B", "timeout"))
    odd = begun(log, 4, error={**error(), "message": 'says "timeout" and "A"'}, definition=signup(name="orders"))
    assert found(log, mode=CHOREOGRAPHY) == [choreographed]
    assert found(log, mode="orchestration") == [odd, plain, temporal]
    assert found(log, engine=TEMPORAL) == [temporal]
    assert found(log, step="A") == [temporal]
    assert found(log, kind="timeout") == [plain]
    assert found(log, kind="failed", step="B", name="orders") == [odd]
    assert found(log, kind="failed", name="signup") == []
    assert found(log, mode="orchestration", most=1) == [odd]
    assert found(log, mode="orchestration", before=odd, most=1) == [plain]
    assert found(log, mode="orchestration", sort=OLDEST, before=temporal) == [plain, odd]


def test_the_time_of_the_start_is_told_by_ranges_of_the_ids(log: SagaLog) -> None:
    ids = [begun(log, number) for number in (0, 1000, 2000)]
    assert found(log, since=T + 1000) == [ids[2], ids[1]]
    assert found(log, since=T + 1000.5) == [ids[2]]
    assert found(log, until=T + 1000) == [ids[1], ids[0]]
    assert found(log, since=T + 1, until=T + 1999, sort=OLDEST) == [ids[1]]


def test_q_finds_the_end_of_an_id_a_key_and_what_an_input_holds(log: SagaLog) -> None:
    ada = begun(log, 1, "a1b2c3", input={"username": "Ada Lovelace", "payment": "secret-7"}, idempotency_key="order 7")
    begun(log, 2, "ffffff", input={"username": "grace", "deep": [{"city": 'Zürich "Nord" 100%'}]})
    other = begun(log, 3, "eeeeee", input={"username": "under_score"})
    assert (
        found(log, q="a1b2c3") == found(log, q="A1B2C3") == found(log, q="order 7") == found(log, q=ada[:20]) == [ada]
    )
    assert found(log, q="ada love") == [ada]
    assert len(found(log, q='Zürich "Nord"')) == len(found(log, q="100%")) == 1
    assert found(log, q="under_") == [other]
    assert found(log, q="r_s") == [other]
    for secret in ("secret-7", "payment", "username"):
        assert found(log, q=secret) == []


def test_an_input_of_which_nobody_knows_what_is_secret_is_not_searched(log: SagaLog) -> None:
    saga = begun(log, 1, "abcdef", input={"username": "ada"})
    with log.database.engine.begin() as connection:
        connection.execute(text("UPDATE sagas SET context = 'no json'"))
    assert found(log, q="ada") == []
    assert found(log, q="abcdef") == [saga]


def test_the_longest_come_first(log: SagaLog) -> None:
    quick = begun(log, 1, state=State.COMPLETED, ended_at=T + 2)
    slow = begun(log, 2, state=State.COMPLETED, ended_at=T + 90, cursor=3)
    open_yet = begun(log, 3)  # for years, by the clock of this machine
    ids = found(log, sort=LONGEST)
    assert ids.index(slow) < ids.index(quick)
    assert open_yet in ids
    assert found(log, sort=LONGEST, states=[State.COMPLETED], most=1) == [slow]


def test_a_search_looks_at_so_many_and_says_so(log: SagaLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saga_search, "WINDOW", 2)
    monkeypatch.setattr(saga_search, "LOOKED_AT", 4)
    first = begun(log, 0, input={"username": "needle"})
    ids = [begun(log, number) for number in range(1, 6)]
    search = SagaSearch(log)
    query = SagaQuery(q="needle")
    partly = search.search(query)
    assert (partly.sagas, partly.looked_at, partly.looked_to) == ([], 4, ids[1])
    rest = search.search(replace(query, before=str(partly.looked_to)))
    assert ([saga.id for saga in rest.sagas], rest.looked_at) == ([first], None)


def test_stuck_sagas_are_grouped_by_their_call_and_its_answer(log: SagaLog) -> None:
    def stuck(number: int, code: int | None, cursor: int = 0) -> str:
        context = replace(a_saga_row().context, lines=3, at=T, reached_at=T)
        saga_id = begun(
            log, number, state=State.STALLED_COMPENSATING, cursor=cursor, rounds=3, due_at=T + 60, context=context
        )
        step = "AB"[cursor]
        lines = [
            Line(2, T + number, "attempt", step, 1, code, 5.0, {"call": "compensation", "verdict": "unknown"}),
            Line(3, T + number + 1, "compensation_unknown", step, detail={"state": "stalled_compensating"}),
        ]
        row = log.find(saga_id)
        log.advance(saga_id, 1, row.present, lines)  # type: ignore[union-attr]
        return saga_id

    two = [stuck(1, 500), stuck(2, 500)]
    one, other = stuck(3, 503), stuck(4, 500, cursor=1)
    groups = StuckSagas(log, SagaSearch(log)).groups()
    assert [(group.what, group.ids) for group in groups] == [
        ("undo A: HTTP 500", two),
        ("undo A: HTTP 503", [one]),
        ("undo B: HTTP 500", [other]),
    ]
    assert groups[0].since == T + 2
    sagas = SagaSearch(log).find(SagaQuery(q=two[0]))
    assert lines_now(log, sagas, T) == {two[0]: "undo A: HTTP 500 · 3 rounds · next in 1:00 · no answer"}


def test_ids_tell_the_time_of_their_start() -> None:
    assert str(uuid.UUID("01890a5d-ac96-774b-bcce-b302099a8057")).startswith(id_at(0x01890A5DAC96 / 1000))
