"""What a driver keeps of its attempts: under the numbers of their own lines, also where others have written between."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from saga.driver import Driver
from saga.http_client.transport import HttpAnswer
from saga.machine import ATTEMPT, CANCEL_REQUESTED, Line, State
from saga.runtime.kept_exchanges import KeptExchanges
from saga.storage import body_sql
from saga.storage.database import create_tables
from tests.support.builders import a_started_saga
from tests.support.world import INPUT, LEASE, World

ID = "0190aaaa-bbbb-7ccc-8ddd-eeeeeeeeeeee"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    create_tables(made.log.database.engine, body_sql.metadata)
    yield made
    made.close()


def test_each_attempt_that_was_not_done_is_kept_under_the_number_of_its_line(world: World) -> None:
    """An operator's wish is logged while the pivot is called, so the pivot's lines get other numbers than they had."""
    kept = KeptExchanges(world.log.database, "errors")

    class Network:
        def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
            answer = world.post(url, headers, body, timeout, 1)
            if headers["Saga-Step"] != "C" or url.endswith("compensate"):
                return answer
            if headers["Saga-Attempt"] == "1":
                wish = Line(0, world.now, CANCEL_REQUESTED, "C", detail={"by": "operator"})
                assert world.log.add_line(ID, {State.DECIDING}, wish)
            return HttpAnswer(1.0, 500, {}, f'{{"error": "{headers["Saga-Attempt"]} for 4111-1111"}}'.encode())

    input = {**INPUT, "payment": "4111-1111"}
    row, line = a_started_saga(world.definition, input, world.now, id=ID, owner="one", due_at=world.now + LEASE)
    world.log.begin(row, [line])
    world.drive(Driver(row, replace(world.deps(lambda: 1), transport=Network(), keep=kept.statements)))

    lines = world.log.lines(ID)
    assert [line.event for line in lines].count(CANCEL_REQUESTED) == 1
    attempts = {line.seq: line for line in lines if line.event == ATTEMPT}
    found = kept.find(ID, attempts)
    assert sorted(found) == [seq for seq, line in attempts.items() if line.status_code != 200]
    assert len(found) >= 3
    for seq, (request, response) in found.items():
        said = request["headers"]["Saga-Step"], request["headers"]["Saga-Attempt"], response["status"]
        assert said == (attempts[seq].step, str(attempts[seq].attempt), attempts[seq].status_code)
        assert "4111" not in str((request, response))
