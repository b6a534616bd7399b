"""A saga under way is its own snapshot."""

from __future__ import annotations

from pathlib import Path

from tests.world import Points, World, signup


def test_a_saga_under_way_keeps_the_definition_it_was_started_with(tmp_path: Path) -> None:
    """Pitfall 27: the process dies in the middle, the file is edited, the process is started again."""
    world = World(tmp_path)
    world.point = Points(8)
    saga_id = world.start("c")
    assert saga_id
    world.point = lambda name: None
    world.definition = signup(steps=signup().steps[:1], name="edited")
    record = world.finish(saga_id)
    assert [step.name for step in record.definition.steps] == ["A", "B", "C"]
    assert record.state == "compensated"
    world.definition = signup()
    world.check(record)
