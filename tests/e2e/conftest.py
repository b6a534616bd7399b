"""The browser of the tests in this folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.browser import chromium, opened
from tests.support.stack import Stack


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


@pytest.fixture
def open_page(browser: Browser, stack: Stack) -> Callable[..., AbstractContextManager[Page]]:
    """Opens a page of the module's stack, in a context of its own; its arguments are those of a browser's context."""
    return partial(opened, browser, stack.url)
