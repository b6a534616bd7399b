"""The list, the head of every page, dead letters and health, in a real browser: how an operator finds what is stuck."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import SIZES, check_accessibility, opened
from tests.support.stack import INPUT, Stack, eventually

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
        page.goto("/ui/break-it#own")
        form = page.locator("#own-form")
        page.get_by_text("Any fault you like").click()
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


def stuck_at_a(stack: Stack, flags: str = "", **input: str) -> str:
    """A saga whose compensation of A never succeeds: its id, once it has stalled."""
    saga = str(stack.post_start(f"fail=b&fail=a:undo&wait=0{flags}", {**INPUT, **input}).json()["saga_id"])
    eventually(lambda: stack.saga(saga)["status"] == "STALLED")
    return saga


def test_an_empty_list_says_what_to_do(browser: Browser, make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite")
    with opened(browser, stack.url) as page:
        page.goto("/")
        expect(page.get_by_text("No saga yet")).to_be_visible()
        expect(page.locator("#list pre")).to_contain_text("curl -X POST")
        for chip in page.locator(".chips .status").all()[1:]:
            expect(chip).to_have_class("status none")
        check_accessibility(page)


def test_a_new_saga_shows_by_itself_what_it_does_and_its_end(open_page: Open, stack: Stack) -> None:
    with open_page() as page:
        page.goto("/")
        expect(page.locator("#live")).to_contain_text("live")
        saga = stack.post_start("wait=0&delay=b:2500").json()["saga_id"]
        row = page.locator(f"#row-{saga}")
        expect(row.locator(".state .running")).to_be_visible()
        expect(row.locator(".now")).to_contain_text(re.compile(r"B, 1\.\d s"))  # it ticks
        expect(row.locator(".state .completed")).to_be_visible()
        expect(row.locator("td.number")).to_contain_text(" s")


def test_the_list_is_filtered_searched_and_paged(open_page: Open, stack: Stack) -> None:
    for _ in range(27):
        stack.post_start()
    body = {**INPUT, "username": "Margaret Hamilton"}
    refused = stack.post_start("fail=b:refuse", body, headers={"Idempotency-Key": "order 7"}).json()["saga_id"]
    with open_page() as page:
        page.goto("/")
        rows = page.locator("#list tbody tr")
        expect(rows).to_have_count(25)
        first = rows.first.get_attribute("id")
        page.get_by_role("link", name="Older").click()
        expect(page.get_by_role("link", name="Newest")).to_be_visible()
        assert str(rows.first.get_attribute("id")) < str(first)
        page.get_by_role("link", name=re.compile("compensated")).click()
        expect(rows.first).to_contain_text("COMPENSATED")
        assert all("COMPENSATED" in text for text in rows.all_inner_texts())
        for q in (refused, refused[:23], refused[-8:], "order 7", "margaret ham"):
            page.goto("/")
            page.get_by_role("searchbox").fill(q)
            page.get_by_role("button", name="Search").click()
            expect(rows).to_have_count(1)
            expect(rows.first).to_contain_text(refused[-8:])
            expect(rows.first).to_contain_text("order 7")
            expect(rows.first.locator(".now")).to_contain_text("B refused: injected: refuse")
        page.get_by_role("searchbox").fill("4111")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_text("No saga fits this")).to_be_visible()
        page.goto("/")
        page.get_by_text("Filter and sort").click()
        page.get_by_label("because it was").select_option("refused")
        page.get_by_label("failed at").select_option("B")
        page.get_by_label("started").select_option("15m")
        page.get_by_role("button", name="Apply").click()
        expect(rows).to_have_count(1)
        expect(page.get_by_label("because it was")).to_have_value("refused")
        page.goto("/?until=2020-01-01T00:00")
        expect(page.get_by_text("No saga fits this")).to_be_visible()


def test_the_range_of_time_is_filled_in_in_the_readers_zone(open_page: Open, stack: Stack) -> None:
    stack.post_start()
    with open_page(timezone_id="Asia/Tokyo") as page:
        page.goto("/")
        page.get_by_text("Filter and sort").click()
        page.get_by_label("to (local time)").fill("2020-01-01T12:00")
        page.get_by_role("button", name="Apply").click()
        expect(page).to_have_url(re.compile("until=2020-01-01T03%3A00%3A00.000Z"))
        expect(page.get_by_text("No saga fits this")).to_be_visible()
        expect(page.get_by_label("to (local time)")).to_have_value("2020-01-01T12:00")


def test_the_whole_row_leads_to_the_saga_but_for_the_button_that_copies_its_id(open_page: Open, stack: Stack) -> None:
    saga = stack.post_start().json()["saga_id"]
    with open_page(permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto("/")
        row = page.locator(f"#row-{saga}")
        row.get_by_role("button", name="Copy the id").click()
        assert page.evaluate("navigator.clipboard.readText()") == saga
        row.locator(".steps").click(force=True)  # the link lies over it
        expect(page).to_have_url(re.compile(f"/ui/sagas/{saga}"))


def test_what_is_stuck_for_one_cause_is_retried_together_and_nothing_else_is(open_page: Open, stack: Stack) -> None:
    """Pitfall 35: one that gets stuck after the dry run is not hit, nor one that has moved on meanwhile."""
    two = [stuck_at_a(stack, username=name) for name in ("grace", "linus")]
    with open_page() as page:
        page.goto("/")
        cause = page.locator(".causes li", has_text="undo A: HTTP 500")
        expect(cause).to_contain_text(re.compile(r"2 sagas since \d"))
        cause.get_by_role("link", name="Retry all").click()
        expect(page.get_by_role("heading", name="Retry 2 sagas: undo A: HTTP 500")).to_be_visible()
        for saga, name in zip(two, ("grace", "linus"), strict=True):
            expect(page.locator("tr", has_text=saga[-8:])).to_contain_text(name)
        late = stuck_at_a(stack)
        before = {saga: len(stack.lines(saga)) for saga in (*two, late)}
        gone = requests.post(f"{stack.url}/sagas/{two[1]}/resolve", json={"note": "by hand"}, timeout=10)
        assert gone.status_code == 202
        stack.ended(two[1])
        page.get_by_role("button", name="Retry these 2 now").click()
        expect(page.get_by_role("heading", name="1 of 2 sagas makes the call undo A again now")).to_be_visible()
        expect(page.locator("tr", has_text=two[1][-8:])).to_contain_text("it is not stalled any more")
        check_accessibility(page)
    events = [line for line in stack.lines(two[0])[before[two[0]] :] if line["event"] == "resumed"]
    assert [line["detail"]["by"] for line in events] == ["operator"]
    assert len(stack.lines(late)) == before[late]
    for saga in (two[0], late):
        eventually(lambda saga=saga: resolved(stack, saga))


def resolved(stack: Stack, saga: str) -> bool:
    answer = requests.post(f"{stack.url}/sagas/{saga}/resolve", json={"note": "the test is over"}, timeout=10)
    return answer.status_code == 202 or bool(stack.saga(saga)["ended_at"])


def test_only_what_needs_attention_is_under_that_filter_and_counts_in_the_title(
    browser: Browser, make_stack: Callable[..., Stack]
) -> None:
    stack = make_stack("sqlite", STALL_BASE_SECONDS="0.05", STALL_MAX_SECONDS="0.1")
    saga = stuck_at_a(stack)
    eventually(lambda: stack.saga(saga)["needs_attention"], within=60)
    with opened(browser, stack.url) as page:
        page.goto("/")
        looked = page.locator("#signs").get_attribute("data-now")
        expect(page).to_have_title("(1!) Sagas")
        page.get_by_role("link", name="needs attention 1").click()
        expect(page.locator("#list tbody tr")).to_have_count(1)
        expect(page.locator("#list tbody tr")).to_contain_text(saga[-8:])
        expect(page.locator("#signs")).not_to_have_attribute("data-now", str(looked))  # it has looked again
        expect(page).to_have_title("(1!) Sagas")


def test_the_keyboard_is_enough_from_the_list_to_a_resolved_saga(open_page: Open, stack: Stack) -> None:
    saga = stuck_at_a(stack)
    with open_page() as page:
        page.goto("/?status=STALLED")
        link = page.locator(f"#row-{saga} a")
        while not link.evaluate("link => link === document.activeElement"):
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile(saga))
        summary = page.get_by_text("by hand …")
        summary.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.type("removed the row, Ada")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text("COMPENSATED")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_view_of_the_list_is_accessible(open_page: Open, stack: Stack, scheme: str, size: str) -> None:
    saga = stuck_at_a(stack)
    with open_page(color_scheme=scheme, viewport=SIZES[size]) as page:
        for path in ("/", "/?kind=failed&range=1h", "/ui/stuck?saga=signup&what=undo+A:+HTTP+500", "/ui/health"):
            page.goto(path)
            expect(page.locator("#live")).to_contain_text("● live")
            check_accessibility(page)
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
    eventually(lambda: resolved(stack, saga))


def test_health_says_how_old_it_is_since_when_and_how_the_sagas_go(browser: Browser, make_stack: Any) -> None:
    stack = make_stack("sqlite")
    stack.post_start()
    stack.post_start("fail=b:refuse")
    with opened(browser, stack.url) as page:
        page.goto("/ui/health")
        expect(page.locator("#age")).to_contain_text(re.compile(r"Looked at \d\.\d s ago"))
        expect(page.locator(".figure", has_text="1 completed")).to_contain_text("50 %")
        expect(page.locator(".figure", has_text="1 compensated")).to_contain_text("50 %")
        service = page.get_by_role("row", name="B http")
        expect(service).to_contain_text(re.compile(r"ready\s*0:0\d"))
        stack.kill("service_b")
        expect(service).to_contain_text(re.compile(r"not reachable\s*0:0\d"), timeout=8_000)
        expect(page).to_have_title("(1!) Health")
        expect(page.locator("#signs .status.bad")).to_contain_text("B", timeout=8_000)
        check_accessibility(page)
