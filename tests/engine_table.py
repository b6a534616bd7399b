"""What each engine keeps: `python -m tests.engine_table` runs the contract and writes the table of the docs.

The table is in docs/choosing-an-engine.md; each of its rows is a test of tests/e2e/test_every_engine.py.
"""

from __future__ import annotations

import importlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.engines import ENGINES, STEP_FUNCTIONS
from tests.support.stack import ROOT

PAGE = ROOT / "docs" / "choosing-an-engine.md"
BEGIN, END = "<!-- what each engine keeps: python -m tests.engine_table -->\n", "<!-- end -->"


@dataclass(frozen=True)
class Promise:
    """One row of the table: what is promised, by which test, and why an engine does not have it."""

    test: str
    text: str
    cannot: Mapping[str, str] = field(default_factory=dict)


PROMISES: dict[str, Promise] = {}  # by their test's name


def promise(text: str, cannot: Mapping[str, str] | None = None) -> Callable[[Any], Any]:
    """Marks a test as a row: it runs on every engine but those that cannot, each with its reason."""

    def mark(test: Any) -> Any:
        PROMISES[test.__name__] = Promise(test.__name__, text, cannot or {})
        wanted = [case for case in CASES if case.engine not in (cannot or {})]
        parameters = [pytest.param(case, id=case.id, marks=pytest.mark.xdist_group(case.id)) for case in wanted]
        return pytest.mark.parametrize("engine", parameters, indirect=True)(test)

    return mark


@dataclass(frozen=True)
class Case:
    """An engine on a database."""

    engine: str
    database: str

    @property
    def id(self) -> str:
        """As pytest shows it."""
        return f"{self.engine.replace(' ', '_')}-{self.database}"


CASES = tuple(
    Case(engine, database)
    for engine in ENGINES
    for database in ("sqlite", "mysql")
    if (engine, database) != (STEP_FUNCTIONS, "mysql")  # it keeps no log; the services' databases are tested elsewhere
)


def table(promises: Iterable[Promise], broken: Mapping[str, set[str]]) -> str:
    """In Markdown; `broken`: by test, the engines on which it failed."""
    notes: dict[str, int] = {}
    lines = [f"| | {' | '.join(ENGINES)} |", f"|---|{'---|' * len(ENGINES)}"]
    for row in promises:
        cells = []
        for engine in ENGINES:
            if why := row.cannot.get(engine):
                cells.append(f"no ({notes.setdefault(why, len(notes) + 1)})")
            else:
                cells.append("**broken**" if engine in broken.get(row.test, ()) else "yes")
        lines.append(f"| {row.text} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{number}. {why}" for why, number in notes.items()), ""])


class _Results:
    """A pytest plugin: on which engines each test has failed."""

    def __init__(self) -> None:
        self.broken: dict[str, set[str]] = defaultdict(set)
        self.ran = 0

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.ran += report.when == "call"
        if not report.passed:
            name, _, parameters = report.nodeid.rpartition("::")[2].partition("[")
            self.broken[name].update(case.engine for case in CASES if case.id in parameters)


def main() -> int:
    """Run the contract, write the table."""
    results = _Results()
    code = pytest.main(["tests/e2e/test_every_engine.py", "-p", "no:cacheprovider", *sys.argv[1:]], plugins=[results])
    if not results.ran:
        return int(code) or 1
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table(promises(), results.broken)}\n{END}{after}", encoding="utf-8")
    return int(code)


def promises() -> list[Promise]:
    """The contract's, in its order."""
    importlib.import_module("tests.e2e.test_every_engine")
    return list(importlib.import_module("tests.engine_table").PROMISES.values())  # not __main__'s


def shown() -> str:
    """The table that the page has."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


if __name__ == "__main__":
    sys.exit(main())
