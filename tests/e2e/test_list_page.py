"""The list, the head of every page, dead letters and health, in a real browser: how an operator finds what is stuck."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser import SIZES
from tests.support.stack import Stack

CUT = ["ERR_", "Failed to load resource", "htmx:", "[object Event]"]  # what is logged where a connection breaks
Open = Callable[..., AbstractContextManager[Page]]

expect.set_options(timeout=15_000)
pytestmark = pytest.mark.xdist_group("list_page")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack]) -> Stack:
    return make_shared_stack("sqlite", STALL_BASE_SECONDS="60", LEASE_SECONDS="2")


def test_a_page_that_is_cut_off_says_so_switches_its_buttons_off_and_finds_back(open_page: Open, stack: Stack) -> None:
    """The orchestrator is killed; what happened until the page is back shows, too."""
    slow = stack.post_start("wait=0&delay=b:4500").json()["saga_id"]
    with open_page() as page:
        page.expected += CUT  # type: ignore[attr-defined]
        page.goto(f"/ui/sagas/{slow}")
        expect(page.locator("#live")).to_contain_text("● live")
        cancel = page.get_by_role("button", name="Cancel")
        expect(cancel).to_be_enabled()
        stack.kill("orchestrator")
        bar = page.get_by_role("alert")
        expect(bar).to_contain_text(re.compile(r"Orchestrator not reachable for 0:0[1-9]; this is \d"))
        expect(page.locator("#live")).to_contain_text("disconnected")
        expect(cancel).to_be_disabled()
        stack.start("orchestrator")
        expect(page.locator("#live")).to_contain_text("● live")
        expect(bar).to_be_hidden()
        expect(page.locator("h1")).to_contain_text("COMPLETED")


def test_a_form_that_cannot_be_sent_keeps_what_was_typed(open_page: Open) -> None:
    with open_page() as page:
        page.expected += CUT  # type: ignore[attr-defined]
        page.goto("/ui/lab")
        form = page.locator("#own-form")
        form.get_by_label("username").fill("grace")
        page.route("**/ui/start", lambda route: route.abort())
        form.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_text("Not sent: the orchestrator does not answer.")).to_be_visible()
        expect(form.get_by_label("username")).to_have_value("grace")


def test_times_are_in_the_readers_zone_or_in_utc_as_they_choose_for_all_pages(open_page: Open, stack: Stack) -> None:
    saga = stack.post_start().json()["saga_id"]
    with open_page(timezone_id="Asia/Tokyo", locale="en-GB") as page:
        page.goto(f"/ui/sagas/{saga}")
        started = page.locator("p.muted time").first
        hour = int(stack.saga(saga)["started_at"][11:13])
        expect(started).to_contain_text(f"{(hour + 9) % 24:02}:")
        page.get_by_role("button", name="local time").click()
        expect(started).to_contain_text(f"{hour:02}:")
        page.goto("/ui/health")
        expect(page.get_by_role("button", name="UTC")).to_be_visible()


def test_on_a_phone_the_head_is_one_line_with_one_light(open_page: Open) -> None:
    with open_page(viewport=SIZES["narrow"]) as page:
        page.goto("/ui/health")
        expect(page.locator("#dot.good")).to_be_visible()
        assert page.locator("header.top").bounding_box()["height"] < 60  # type: ignore[index]
        for link in page.locator("header.top nav a").all():
            box = link.bounding_box()
            assert box and box["x"] + box["width"] <= SIZES["narrow"]["width"]
