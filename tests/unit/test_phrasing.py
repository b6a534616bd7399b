"""The table of the dashboard's words: every phrase is used, and says the same facts in both modes' texts."""

from __future__ import annotations

import re
import string

import pytest

from saga.definition import CHOREOGRAPHY, ORCHESTRATION
from saga.views.phrasing import PHRASES, Modes, Phrases
from tests.support.stack import ROOT

SOURCES = "".join(
    path.read_text()
    for folder in ("orchestrator/dashboard", "ui/templates", "saga/views", "saga/cli")
    for path in sorted((ROOT / folder).iterdir())
    if path.suffix in (".py", ".html") and path.name != "phrasing.py"
)
# Phrases whose names are put together from what a line says.
FAMILIES = (
    *("attempt ", "answer", "note: ", "cannot be undone, ", "on ", "call ", "step ", "effect "),
    *("stalled ", "parked ", "overdue ", "mend "),
)


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("name", PHRASES)
def test_every_phrase_is_said_somewhere(name: str) -> None:
    said = re.search(f"[\"']{re.escape(name)}[\"']", SOURCES)
    assert said or name.startswith(FAMILIES)


@pytest.mark.parametrize("mode", [ORCHESTRATION, CHOREOGRAPHY])
@pytest.mark.parametrize("name", PHRASES)
def test_every_phrase_is_a_plain_text_in_either_mode(name: str, mode: str) -> None:
    text = PHRASES[name]
    texts = text if isinstance(text, Modes) else (text,)
    facts = {field: "fact" for each in texts for field in fields(each)}
    said = Phrases(mode)(name, **facts)
    assert "{" not in said
    assert "  " not in said
    assert not said.endswith(".")  # whoever says it ends the sentence
