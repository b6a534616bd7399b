"""This program makes docs/settings.md from the settings: `python -m saga.process.settings_page > docs/settings.md`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from saga.process.setting import Setting
from saga.process.settings import GROUPS

_HEAD = """# Settings

Every setting is a variable of the environment, with a default that works. A process says at its start which of them is
unusable, and why. This page is made from `saga/process/settings.py`: `python -m saga.process.settings_page`.

Each process can be started alone: `.venv/bin/python -m orchestrator`, `-m service_a`, `-m service_b`, `-m service_c`.
"""
_FOOT = """
A service of your own, named `NAME` in its step, has `SERVICE_<NAME>_PORT`, which must be set, and
`SERVICE_<NAME>_DB_URL`, by default a SQLite file in `var/`. A `-` in the name is a `_` in the variable. A `${VAR}` in a
saga's YAML is looked up in the environment as well.
"""


def settings_page() -> str:
    """Return the page, in Markdown."""
    return "\n".join(_lines()) + _FOOT


def _lines() -> Iterator[str]:
    yield _HEAD
    for title, settings in GROUPS.items():
        yield f"## {title}\n"
        yield "| variable | default | |"
        yield "|---|---|---|"
        yield from map(_row, settings)
        yield ""


def _row(setting: Setting[object]) -> str:
    default = setting.default_in({})
    return f"| `{setting.name}` | {f'`{default}`' if default else 'none'} | {setting.sentence} |"


if __name__ == "__main__":
    sys.stdout.write(settings_page())
