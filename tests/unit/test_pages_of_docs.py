"""The documents hold together: links, named tests, the diagram, the settings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from saga.settings import load_settings
from tests.diagram import PAGES as DIAGRAMS
from tests.diagram import with_diagrams
from tests.stack import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page) -> None:  # type: ignore[no-untyped-def]
    """Pitfall 18."""
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def names_of_tests() -> set[str]:
    return {
        f"{path.name}::{node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    }


@pytest.mark.parametrize("page", ["guarantees.md", "pitfalls.md"])
def test_every_test_that_is_named_exists(page: str) -> None:
    named = set(re.findall(r"`(test_\w+\.py::\w+)`", (ROOT / "docs" / page).read_text()))
    assert named
    assert not named - names_of_tests()


def test_there_are_thirty_pitfalls_each_with_a_test() -> None:
    lines = re.findall(r"^(\d+)\. .*`test_\w+\.py::\w+`$", (ROOT / "docs" / "pitfalls.md").read_text(), re.MULTILINE)
    assert [int(number) for number in lines] == list(range(1, 31))


@pytest.mark.parametrize("page", DIAGRAMS, ids=lambda page: page.name)
def test_a_diagram_shows_what_is_there(page: Path) -> None:
    assert page.read_text().count("```mermaid") == len(DIAGRAMS[page])
    assert with_diagrams(page) == page.read_text()


def test_the_settings_of_the_readme_are_those_that_are_read() -> None:
    source = (ROOT / "saga" / "settings.py").read_text()
    read = set(re.findall(r"\"([A-Z][A-Z_]+)\"", source)) | {
        f"SERVICE_{name}_{what}" for name in "ABC" for what in ("PORT", "URL", "DB_URL")
    }
    table = (ROOT / "README.md").read_text().partition("## Settings")[2].partition("## More")[0]
    named = set(re.findall(r"`([A-Z][A-Z_]+)`", table.replace(".venv", "")))
    assert named == read
    assert load_settings({}).fault_hold_seconds == 20
