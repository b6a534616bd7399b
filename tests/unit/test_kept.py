from __future__ import annotations

from tests.kept import promises, shown, table


def test_the_table_of_engines_has_every_row_of_the_contract() -> None:
    """Pitfall 18. Written from a run (`python -m tests.kept`); here, that no test was added, or taken away, since."""
    assert shown() == table(promises(), {}).strip()
