"""Explains the field's words on the pages: each with the first sentence that docs/glossary.md has for it.

The pages do not need that file: the sentences are kept in `glossary_terms.py`, which `python -m
orchestrator.dashboard.glossary` makes from it. A test holds the two equal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from markupsafe import Markup, escape

from orchestrator.dashboard.glossary_terms import TERMS

PAGE = Path(__file__).parents[2] / "docs" / "glossary.md"
COPY = Path(__file__).with_name("glossary_terms.py")

# The words that are explained where they first occur in a sentence of a page; each with its entry in the glossary.
IN_PROSE = {
    "pivot": "pivot",
    "lease": "lease",
    "sealed": "sealed",
    "barrier row": "barrier",
    "stalled": "stalled",
    "parked": "dead letter",
    "deadline": "deadline",
    "rounds": "round",
    "round": "round",
}
_WORD_OR_TAG = re.compile(rf"<[^>]*>|\b({'|'.join(IN_PROSE)})\b", re.IGNORECASE)


def term(word: str, text: str | None = None) -> Markup:
    """Return `text`, by default the word itself, with what the glossary says of the word: on hover, focus and touch."""
    return Markup('<dfn class="term" tabindex="0" data-definition="{}" aria-description="{}">{}</dfn>').format(
        TERMS[word], TERMS[word], text or word
    )


def explained(sentence: str) -> Markup:
    """Return a sentence, escaped unless it is HTML already, in which each word of the field is explained once."""
    told: set[str] = set()

    def explain(found: re.Match[str]) -> str:
        word = found[1]
        entry = word and IN_PROSE[word.lower()]
        if not entry or entry in told:
            return found[0]
        told.add(entry)
        return str(term(entry, word))

    return Markup(_WORD_OR_TAG.sub(explain, str(escape(sentence))))  # noqa: S704  # escaped before


def definitions(page: str) -> Iterator[tuple[str, str]]:
    """The words of the glossary's page, each with its first sentence."""
    for word, text in re.findall(r"^### (.+)\n((?:.+\n)+)", page, re.MULTILINE):
        sentence = re.split(r"(?<=[.])\s", " ".join(text.split()), maxsplit=1)[0]
        yield word, sentence.replace("`", "")


def copy_of(page: str) -> str:
    """The module that holds what the page says."""
    entries = "".join(f"    {_quoted(word)}: (\n        {_quoted(text)}\n    ),\n" for word, text in definitions(page))
    return (
        '"""What docs/glossary.md says of each word; made by `python -m orchestrator.dashboard.glossary`."""\n\n'
        f"# ruff: noqa: E501\n# fmt: off\nTERMS = {{\n{entries}}}\n"
    )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


if __name__ == "__main__":
    COPY.write_text(copy_of(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
