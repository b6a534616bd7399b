"""The inspector and the log of a saga's page in a real browser: opened, read and closed by the keyboard alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import SIZES, check_accessibility
from tests.support.long_log import write_long_log
from tests.support.stack import INPUT, SERVICES, Stack

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
def long(stack: Stack) -> str:
    """A saga with 60,013 lines: undoing A has failed in 12,001 rounds."""
    services = {name: stack.url_of(process) for name, process in SERVICES.items()}
    return write_long_log(stack.urls["orchestrator"], 12_000, services)


def test_a_line_of_the_log_opens_the_attempt_and_escape_leads_back_to_it(open_page: Open, failed: str) -> None:
    with open_page() as page:
        page.goto(f"/ui/sagas/{failed}")
        panel, log = page.locator("#inspector"), page.get_by_role("group", name="Log")
        expect(panel).to_be_hidden()
        line = log.locator("li.line", has=page.locator("b", has_text="500")).get_by_role("link").first
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
        expect(opened).to_be_in_viewport()
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


def test_the_log_is_read_newest_first_by_rounds_by_pages_and_by_step(open_page: Open, long: str) -> None:
    with open_page(viewport=SIZES["narrow"]) as page:
        page.goto(f"/ui/sagas/{long}")
        log = page.get_by_role("group", name="Log")
        expect(log.locator("> ol > li").first).to_contain_text("resolved")
        newest = log.locator("summary", has_text="round 12001 of undo A: 3 × HTTP 500")
        line = log.locator("details li.line").first
        expect(line).to_be_hidden()
        newest.focus()
        page.keyboard.press("Enter")
        expect(line).to_be_visible()
        assert line.bounding_box()["height"] > 2 * 16, "a card has more than one row"  # type: ignore[index]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_role("link", name="Older").press("Enter")
        expect(log.locator("summary", has_text="round 11961 of undo A: 3 × HTTP 500")).to_be_visible()
        expect(newest).to_have_count(0)
        page.get_by_role("navigation", name="Lines of which step").get_by_role("link", name="B").press("Enter")
        expect(log.locator("li.line")).to_have_count(2)
        assert "of=B" in page.url


@pytest.mark.parametrize("asked", ["", "?step=A", "?seq=30000", "?before=30000", "?before=30000&of=A"])
def test_what_a_page_reads_and_sends_does_not_grow_with_the_log(stack: Stack, long: str, asked: str) -> None:
    """Pitfall 43. All lines together would be 25 MB."""
    page = stack.get(f"/ui/sagas/{long}{asked}")
    assert page.status_code == 200
    assert len(page.content) < 400_000
    assert page.elapsed.total_seconds() < 5  # 0.15 on a machine that does nothing else
