"""A real browser for tests (Chromium, by Playwright); `python -m tests.support.browser` finds or installs it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SIZES = {"wide": {"width": 1280, "height": 900}, "narrow": {"width": 390, "height": 844}}
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]


def chromium() -> str | None:
    """Return the path of Chromium: what CHROMIUM says, or the one on the PATH; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def opened(browser: Browser, url: str, **context: Any) -> Iterator[Page]:
    """Open a page of its own; at its end it fails on any error in its console and any request to another host.

    `page.expected` takes parts of messages that are meant to be there: a connection that a test has cut, for example.
    """
    with browser.new_context(**{"viewport": SIZES["wide"], "base_url": url, **context}) as made:
        page = made.new_page()
        page.set_default_timeout(15_000)
        wrong: list[str] = []
        page.expected = []  # type: ignore[attr-defined]
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: _check_host(request.url, url, wrong))
        yield page
        unexpected = [text for text in wrong if not any(part in text for part in page.expected)]  # type: ignore[attr-defined]
        assert not unexpected, unexpected


def _check_host(asked: str, url: str, wrong: list[str]) -> None:
    if urlsplit(asked).netloc != urlsplit(url).netloc:
        wrong.append(f"asked another host: {asked}")


def check_accessibility(page: Page) -> None:
    """WCAG 2.1, levels A and AA, as axe-core sees it."""
    found = Axe().run(page, options={"runOnly": {"type": "tag", "values": WCAG}}).response["violations"]
    told = [f"{each['id']}: {each['help']}: {[node['html'][:200] for node in each['nodes'][:3]]}" for each in found]
    assert not told, "\n".join(told)


def main() -> None:
    """Install it where that can be done, once; say so where it cannot."""
    if chromium():
        return
    if shutil.which("apt-get") and os.geteuid() == 0:
        sys.stderr.write("Installing Chromium for the browser tests (once) ...\n")
        subprocess.run("apt-get update -qq && apt-get install -y -qq chromium", shell=True, check=False)
    if not chromium():
        sys.stderr.write("No Chromium: the browser tests are left out. Install one, or set CHROMIUM to its path.\n")


if __name__ == "__main__":
    main()
