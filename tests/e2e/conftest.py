"""The browser of the tests in this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.support.browser import chromium


@pytest.fixture(scope="module")  # it leaves an event loop running in this thread, which no other test must find
def browser() -> Iterator[Browser]:
    """Chromium; without one a test is skipped."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium: install one, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield made
        made.close()
