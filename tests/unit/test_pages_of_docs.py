"""The documents hold together: links, named tests, the diagram, the settings."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from orchestrator.dashboard.lessons import LESSONS, Lesson
from orchestrator.dashboard.scenarios import SCENARIOS
from saga.process.settings import GROUPS, SERVICE_DB_URLS, SERVICE_PORTS, SERVICE_URLS, load_settings
from saga.process.settings_page import settings_page
from tests.diagram import PAGES as DIAGRAMS
from tests.diagram import with_diagrams
from tests.support.stack import ROOT

SERVICE_SETTINGS = [*SERVICE_PORTS.values(), *SERVICE_URLS.values(), *SERVICE_DB_URLS.values()]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page) -> None:  # type: ignore[no-untyped-def]
    """Pitfall 18."""
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_heading_finds_it(page: Path) -> None:
    for link, heading in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text()):
        assert heading in anchors((page.parent / link) if link else page), f"{link}#{heading}"


def anchors(page: Path) -> set[str]:
    """The headings of a page, as links name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_the_glossary_has_one_sentence_a_word() -> None:
    entries = re.findall(r"^### (.+)\n([^#]+)", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    assert len({word for word, _ in entries}) == len(entries) >= 50
    for word, text in entries:
        assert text.strip().endswith("."), word
        assert not re.search(r"\. [A-Z]", text), f"{word}: more than one sentence"


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


def test_the_page_of_settings_is_made_from_the_settings_that_are_read() -> None:
    """Every variable is read where it is declared, and what is declared is on the page."""
    assert (ROOT / "docs" / "settings.md").read_text() == settings_page()
    source = (ROOT / "saga" / "process" / "settings.py").read_text()
    declared = {each.name for group in GROUPS.values() for each in group}
    assert set(re.findall(r"\b([A-Z_]+)\.read\(", source)) | {each.name for each in SERVICE_SETTINGS} == declared
    assert load_settings({}).fault_hold_seconds == 20


ALL_PAGES = [page for page in ROOT.rglob("*.md") if not {".venv", "node_modules", "var"} & set(page.parts)]
QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_address_with_a_query_in_a_command_is_quoted(page: Path) -> None:
    """For zsh an unquoted question mark is a pattern, and it says `no matches found`."""
    assert unquoted(page.read_text()) == []


def unquoted(text: str) -> list[str]:
    """The commands with a question mark outside quotation marks."""
    commands = re.findall(r"(?:^\s*|[`$|;&(]\s*)((?:\w+=\S* )*curl [^`\n]*)", text, re.MULTILINE)
    return [command for command in commands if "?" in re.sub(r"\$\?", "", QUOTED.sub("", command))]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("curl localhost/logs?limit=1", True),
        ("see `curl -X POST localhost/start?a=b`", True),
        ("    KEY=1 curl localhost/x?y", True),
        ("curl 'localhost/logs?limit=1' -d '{}'", False),
        ('curl "localhost/logs?limit=1"', False),
        ("curl localhost/logs, is it there?", True),
        ("Does it curl? Perhaps.", False),
    ],
)
def test_an_unquoted_one_is_found(text: str, wrong: bool) -> None:
    assert bool(unquoted(text)) == wrong


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: str(lesson.number))
def test_each_lesson_has_its_page_with_a_claim_for_each_of_its_cards(lesson: Lesson) -> None:
    text = (ROOT / lesson.file).read_text()
    assert text.startswith(f"# Lesson {lesson.number}: {lesson.title}\n")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings == ["Read", "Predict", "Run", "Explain", "What you find"]
    claimed = {frozenset(flags.split("&")) for flags in re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)}
    flags = {card.slug: frozenset(f"{name}={value}" for name, value in card.flags) for card in SCENARIOS}
    for card in lesson.cards:
        assert (flags[card] or frozenset(["(no flag)"])) in claimed


def test_each_card_is_in_a_lesson() -> None:
    assert {card for lesson in LESSONS for card in lesson.cards} == {card.slug for card in SCENARIOS}
