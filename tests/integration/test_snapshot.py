"""A saga under way is its own snapshot."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saga.definition import SagaDefinition
from saga.machine import State
from saga.views.representation import represent
from tests.support.runtime import Runtime
from tests.support.world import Points, World, signup


def test_a_saga_under_way_keeps_the_definition_it_was_started_with(tmp_path: Path) -> None:
    """Pitfall 27: the process dies in the middle, the file is edited, the process is started again."""
    world = World(tmp_path)
    world.point = Points(8)
    saga_id = world.start("c")
    assert saga_id
    world.point = lambda name: None
    world.definition = signup(steps=signup().steps[:1], name="edited")
    row = world.finish(saga_id)
    assert [step.name for step in row.definition.steps] == ["A", "B", "C"]
    assert row.state == "compensated"
    world.definition = signup()
    world.check(row)


def without_a_word(step: str) -> SagaDefinition:
    """The saga as an older version's snapshot has it, whose file did not say how a step is undone."""
    steps = signup().steps
    return signup(
        steps=tuple(replace(each, compensation=None, unsaid=True) if each.name == step else each for each in steps)
    )


@pytest.mark.parametrize(
    ("flags", "effect", "rows"),
    [("b:lost", "its outcome is unknown", 1), ("c:refuse", "it took effect", 1), ("b:refuse", None, 0)],
)
def test_a_saga_whose_snapshot_does_not_say_how_a_step_is_undone_stalls_where_that_matters(
    tmp_path: Path, flags: str, effect: str | None, rows: int
) -> None:
    """Rolled back around, it would be COMPENSATED with B's row still there."""
    world = World(tmp_path, without_a_word("B"))
    saga_id = world.start(flags)
    row = world.log.find(saga_id or "")
    assert row
    assert world.rows("B", row.id) == rows
    if effect is None:
        assert row.state == State.COMPENSATED
        world.close()
        return
    reason = f"nobody can undo B: {effect} and its definition has no compensation"
    rests = []
    for _ in range(4):  # it looks again by itself, less and less often, and calls nobody
        row = world.log.find(row.id)
        assert row
        shown = represent(row)
        assert (shown["status"], shown["steps"][1]["error"]) == ("STALLED", reason)
        calls = len(world.calls)
        rests.append((row.due_at or 0) - world.now)
        world.recover(row.id)
        assert len(world.calls) == calls
    assert rests == sorted(rests)
    assert world.rows("A", row.id) == 1  # the order stays
    deps = world.deps(lambda: 0, owner="desk")
    runtime = Runtime(deps)
    runtime.pool.accept = world.drive  # type: ignore[method-assign]
    runtime.operator.resolve(row.id, "removed B's row by hand")
    ended = world.log.find(row.id)
    assert ended
    assert (ended.state, world.rows("A", ended.id)) == (State.COMPENSATED, 0)
    assert represent(ended)["steps"][1]["status"] == "COMPENSATED"
    world.close()


def test_a_step_that_says_that_there_is_nothing_to_undo_is_passed_over(tmp_path: Path) -> None:
    steps = signup().steps
    world = World(tmp_path, signup(steps=(steps[0], replace(steps[1], compensation=None), steps[2])))
    saga_id = world.start("c:refuse")
    row = world.log.find(saga_id or "")
    assert row
    shown = represent(row)
    assert [step["status"] for step in shown["steps"]] == ["COMPENSATED", "SKIPPED", "REFUSED"]
    world.close()
