"""The words of the glossary on the pages."""

from __future__ import annotations

import pytest
from markupsafe import Markup, escape

from orchestrator.dashboard.glossary import COPY, IN_PROSE, PAGE, copy_of, explained, term
from orchestrator.dashboard.glossary_terms import TERMS


def test_the_copy_is_what_the_page_says() -> None:
    """Made by `python -m orchestrator.dashboard.glossary`: neither the image nor a wheel holds docs/."""
    assert COPY.read_text(encoding="utf-8") == copy_of(PAGE.read_text(encoding="utf-8"))
    assert TERMS["pivot"].startswith("The step that cannot be undone once it has committed")


@pytest.mark.parametrize("word", ["pivot", "barrier", "sealed", "round", "stalled", "lease", "effect", "deadline"])
def test_a_word_of_the_pages_has_its_entry(word: str) -> None:
    shown = term(word)
    assert 'tabindex="0"' in shown
    assert str(escape(TERMS[word])) in shown


def test_every_word_that_is_explained_in_a_sentence_is_in_the_glossary() -> None:
    assert set(IN_PROSE.values()) <= set(TERMS)


def test_in_a_sentence_a_word_is_explained_once_and_nothing_else_is_touched() -> None:
    told = explained("The lease of a <b>pivot</b>; a lease")
    assert told.count("<dfn") == 2
    assert "&lt;b&gt;" in told
    assert explained(Markup('<time datetime="round">a round</time>')).count("<dfn") == 1
