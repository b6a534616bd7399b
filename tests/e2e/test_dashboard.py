"""The dashboard in a real browser: what a reader sees, does, and is told."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.support.browser import SIZES, check_accessibility, opened
from tests.support.stack import INPUT, Stack, eventually, impatient_sagas

SECRET = "4111-1111"
CUT = ["ERR_", "Failed to load resource", "htmx:", "[object Event]"]  # what is logged where a connection breaks
COUNT_POLLS = """
document.addEventListener("htmx:afterSettle", (event) => {
  if (event.detail.requestConfig?.elt.id === "signs") window.polls = (window.polls || 0) + 1;
});
"""
Open = Callable[..., AbstractContextManager[Page]]

expect.set_options(timeout=15_000)
pytestmark = pytest.mark.xdist_group("browser")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """Time-outs of two seconds, so that a card with a lost answer takes seven."""
    environ = {"FAULT_HOLD_SECONDS": "8", "LEASE_SECONDS": "2", "STALL_BASE_SECONDS": "0.5"}
    return make_shared_stack("sqlite", SAGAS_DIR=str(impatient_sagas(tmp_path_factory.mktemp("sagas"), 2)), **environ)


def made_stuck(stack: Stack) -> str:
    """A saga whose compensation never succeeds: its id, once it has stalled."""
    saga = stack.post_start("fail=b&fail=a:undo&wait=0").json()["saga_id"]
    eventually(lambda: stack.saga(saga)["status"] == "STALLED")
    return str(saga)


@pytest.fixture
def stuck(stack: Stack) -> Iterator[str]:
    """Such a saga; resolved at the end, since the breaker lets the other sagas of its service wait for it."""
    saga = made_stuck(stack)
    yield saga

    def resolved() -> bool:
        answer = requests.post(f"{stack.url}/sagas/{saga}/resolve", json={"note": "the test is over"}, timeout=10)
        return answer.status_code == 202 or bool(stack.saga(saga)["ended_at"])

    eventually(resolved)


def test_secrets_are_hidden_and_a_hostile_name_is_shown_and_not_run(open_page: Open, stack: Stack) -> None:
    hostile = "<script>document.title = 'run'</script><img src=x onerror=alert(1)>"
    saga = stack.post_start("fail=c:after", {**INPUT, "username": hostile}).json()["saga_id"]
    with open_page() as page:
        for path in (f"/ui/sagas/{saga}", "/", "/ui/health"):
            page.goto(path)
            assert SECRET not in page.content()
            assert page.title() != "run"
        page.goto(f"/ui/sagas/{saga}")
        expect(page.get_by_text(hostile).first).to_be_visible()


def test_the_same_again_as_curl_is_the_same_request(open_page: Open, stack: Stack) -> None:
    """Run by a shell, with the secret in its variable, it is answered with the very saga: by its key, and its body."""
    saga = stack.post_start("fail=b:after", headers={"Idempotency-Key": "order 'seven'"}).json()
    with open_page() as page:
        page.goto(f"/ui/sagas/{saga['saga_id']}")
        section = page.locator("section", has=page.get_by_role("heading", name="The same again, as curl"))
        expect(section).to_contain_text("Leave that header out to start another one")
        line = section.locator("pre").inner_text()
    assert "***" not in line
    environ = {**os.environ, "PAYMENT": INPUT["payment"]}
    ran = subprocess.run(["sh", "-c", f"{line} -s"], env=environ, capture_output=True, timeout=60, check=True)
    assert json.loads(ran.stdout) == saga


def test_every_page_keeps_its_title_when_its_head_is_looked_at_again(open_page: Open, stack: Stack) -> None:
    saga = stack.post_start().json()["saga_id"]
    titles = {"/": "Sagas", "/ui/break-it": "Break it", "/ui/dead-letters": "Dead letters", "/ui/health": "Health"}
    titles[f"/ui/sagas/{saga}"] = f"completed: signup {saga}"
    with open_page() as page:
        page.add_init_script(COUNT_POLLS)
        for path, title in titles.items():
            page.goto(path)
            eventually(lambda: page.evaluate("window.polls"))
            expect(page).to_have_title(title)


def test_every_time_is_in_the_readers_own_zone(
    open_page: Open, browser: Browser, make_stack: Callable[..., Stack]
) -> None:
    """Of one that is stalled, which says most times: none is left in UTC, in no text of the page."""
    stack = make_stack("sqlite", STALL_BASE_SECONDS="600", STALL_MAX_SECONDS="600")
    saga = made_stuck(stack)
    with opened(browser, stack.url, timezone_id="Asia/Tokyo", locale="en-GB") as page:
        page.goto(f"/ui/sagas/{saga}")
        stalled = next(line["at"] for line in stack.lines(saga) if line["event"].startswith("compensation"))
        since = datetime.fromisoformat(stalled).astimezone(ZoneInfo("Asia/Tokyo"))
        expect(page.locator("#stuck time")).to_have_text(f"{since.day} {since:%b %Y}, {since:%H:%M:%S}")
        for path in (f"/ui/sagas/{saga}", "/", "/ui/break-it", "/ui/health"):
            page.goto(path)
            expect(page.locator("#live")).to_contain_text("live")
            expect(page.locator("body")).not_to_contain_text(re.compile(r"\bUTC\b|\d\d:\d\d:\d\d(\.\d+)?Z"))


def test_a_page_that_is_not_there_looks_like_the_others(open_page: Open) -> None:
    with open_page() as page:
        page.expected += ["404", "400"]  # type: ignore[attr-defined]
        for path, title in {
            "/ui/": "Not Found",
            "/ui/sagas/nope/cancel": "Not Found",
            "/?status=foo": "Bad Request",
        }.items():
            page.goto(path)
            expect(page).to_have_title(title)
            expect(page.locator("#live")).to_contain_text("live")
            check_accessibility(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_view_is_accessible(open_page: Open, stack: Stack, stuck: str, scheme: str, size: str) -> None:
    sagas = [stuck, *(stack.post_start(flags).json()["saga_id"] for flags in ("", "fail=c:after", "fail=b"))]
    with open_page(color_scheme=scheme, viewport=SIZES[size]) as page:
        for path in ("/", "/?q=nobody", "/ui/break-it", "/ui/health", *(f"/ui/sagas/{saga}" for saga in sagas)):
            page.goto(path)
            expect(page.locator("#live")).to_contain_text("live")
            check_accessibility(page)
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path


def test_where_choreography_is_off_that_is_said(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        switch = page.get_by_role("navigation", name="Mode")
        expect(switch.get_by_role("link")).to_have_text(["orchestration"])
        expect(page.get_by_text("choreography is switched off here (NATS_URL=off)")).to_be_visible()
        page.locator("#b-fails").get_by_label("More ways to run").click()
        expect(page.locator("#b-fails").get_by_role("button", name="Run both")).to_be_disabled()
        expect(page.get_by_role("link", name="Dead letters")).to_have_count(0)
        page.goto("/ui/health")
        expect(page.get_by_role("row", name="the broker")).to_contain_text("NATS_URL=off")
        page.goto("/ui/dead-letters")
        expect(page.get_by_text("There are none: choreography is switched off here")).to_be_visible()
