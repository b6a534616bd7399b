from __future__ import annotations

from tests.engine_table import promises, shown, table


def test_the_table_of_engines_has_every_row_of_the_contract() -> None:
    """Pitfall 18: `python -m tests.engine_table` wrote it from a run, and no test was added or taken away since."""
    assert shown() == table(promises(), {}).strip()
