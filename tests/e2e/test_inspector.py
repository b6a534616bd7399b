"""The inspector and the log of a saga's page in a real browser: opened, read and closed by the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.support.browser import SIZES, check_accessibility
from tests.support.stack import INPUT, Stack, eventually

SECRET = str(INPUT["payment"])
Open = Callable[..., AbstractContextManager[Page]]

pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack]) -> Stack:
    return make_shared_stack("sqlite", STALL_BASE_SECONDS="0.2", STALL_MAX_SECONDS="0.2", KEEP_BODIES="errors")


@pytest.fixture(scope="module")
def failed(stack: Stack) -> str:
    """A saga whose pivot failed: its request holds the secret."""
    return str(stack.post_start("fail=c").json()["saga_id"])


@pytest.fixture(scope="module")
def stuck(stack: Stack) -> str:
    """A saga that has stalled in more rounds than a page of its log holds lines, and was resolved then."""
    saga = stack.post_start("fail=b&fail=a:undo&wait=0").json()["saga_id"]
    eventually(lambda: len(stack.get(f"/sagas/{saga}/log").json()["lines"]) > 210, within=120)

    def resolved() -> bool:
        answer = requests.post(f"{stack.url}/sagas/{saga}/resolve", json={"note": "by hand"}, timeout=10)
        return answer.status_code == 202

    eventually(resolved)
    return str(saga)


def test_a_line_of_the_log_opens_the_attempt_and_escape_leads_back_to_it(open_page: Open, failed: str) -> None:
    with open_page() as page:
        page.goto(f"/ui/sagas/{failed}")
        panel, log = page.locator("#inspector"), page.get_by_role("group", name="Log")
        expect(panel).to_be_hidden()
        line = log.locator("li.line", has_text="500").get_by_role("link").first
        line.focus()
        page.keyboard.press("Enter")
        expect(panel.get_by_role("heading", name="Step C")).to_be_visible()
        expect(panel).to_be_focused()
        opened = panel.locator("details[open]")
        expect(opened).to_contain_text("HTTP 500")
        expect(opened).to_contain_text("POST http://")
        expect(opened).to_contain_text("Idempotency-Key")
        expect(opened).to_contain_text('"payment": "***"')
        expect(opened).to_contain_text("injected: before")
        expect(panel).to_contain_text("before the next attempt")
        expect(panel).to_contain_text("the action certainly had no effect, so the saga goes back")
        assert SECRET not in page.content()
        assert "seq=" in page.url
        check_accessibility(page)
        page.keyboard.press("Escape")
        expect(panel).to_be_hidden()
        expect(line).to_be_focused()
        assert "seq=" not in page.url


def test_a_link_to_a_step_opens_it_without_javascript_and_leads_on_to_the_others(open_page: Open, failed: str) -> None:
    with open_page(java_script_enabled=False) as page:
        page.goto(f"/ui/sagas/{failed}?step=A#inspector")
        panel = page.locator("#inspector")
        expect(panel.get_by_role("heading", name="Step A")).to_be_visible()
        expect(panel).to_contain_text("KEEP_BODIES=errors keeps only what was not")
        panel.get_by_role("link", name="B", exact=True).click()
        expect(panel.get_by_role("heading", name="Step B")).to_be_visible()
        panel.get_by_role("link", name="Close").click()
        expect(panel).to_be_hidden()


def test_the_log_is_read_newest_first_by_rounds_by_step_and_by_pages(open_page: Open, stuck: str) -> None:
    with open_page(viewport=SIZES["narrow"]) as page:
        page.goto(f"/ui/sagas/{stuck}")
        log = page.get_by_role("group", name="Log")
        expect(log.locator("> ol > li").first).to_contain_text("resolved")
        last = log.locator("summary", has_text="3 × HTTP 500").first
        number = int(last.inner_text().split()[1])
        assert number > 40
        line = log.locator("details li.line").first
        expect(line).to_be_hidden()
        last.focus()
        page.keyboard.press("Enter")
        expect(line).to_be_visible()
        assert line.bounding_box()["height"] > 2 * 16, "a card has more than one row"  # type: ignore[index]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("link", name="Older").press("Enter")
        expect(log.locator("> ol > li").last).to_contain_text("started")
        expect(log.locator("summary", has_text="round 1 of undo A: 3 × HTTP 500")).to_be_visible()
        page.get_by_role("navigation", name="Lines of which step").get_by_role("link", name="B").press("Enter")
        expect(log).not_to_contain_text("undo A")
        expect(log.locator("li.line")).to_have_count(4)
        assert "of=B" in page.url
