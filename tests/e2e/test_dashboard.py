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

from orchestrator.dashboard.scenarios import SCENARIOS, Scenario
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


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.slug))
def test_each_card_does_what_it_says(open_page: Open, stack: Stack, scenario: Scenario) -> None:
    """And its saga's page says so, from the services' own rows; it gets there by itself."""
    with open_page() as page:
        if scenario.slug == "orchestrator-crash":
            page.expected += CUT  # type: ignore[attr-defined]
        page.goto("/ui/break-it")
        page.locator(f"#{scenario.slug}").get_by_role("button", name="Run", exact=True).click()
        expect(page).to_have_url(re.compile("/ui/sagas/"))
        if scenario.slug == "stuck-compensation":
            expect(page.get_by_role("button", name="Retry now")).to_be_visible()
        table = page.get_by_role("region", name="What the scenario said, and what happened")
        expect(table).to_be_visible(timeout=40_000)
        expect(table.get_by_text("as said")).to_have_count(4)
    saga_id = re.search(r"/ui/sagas/([^?]+)", page.url)[1]  # type: ignore[index]
    for service, number in scenario.right_end(stack.saga(saga_id)["status"]).rows.items():
        assert sum(row["saga_id"] == saga_id for row in stack.rows(service)) == number


def test_a_prediction_is_held_against_what_happened(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        card = page.locator("#after-commit")
        card.get_by_text("Predict, then run").click()
        card.get_by_label("It ends as").select_option("COMPENSATED")
        for step, told in {"A": "is not there", "B": "is there", "C": "is not there"}.items():
            card.get_by_label(f"{step}'s row").select_option(told)
        card.get_by_role("button", name="Run and compare").click()
        table = page.get_by_role("region", name="What you predicted, and what happened")
        expect(table.get_by_text("as said")).to_have_count(3)
        expect(table.get_by_text("not so")).to_have_count(1)


def test_the_naive_coordinator_leaves_rows_behind_and_ours_does_not(open_page: Open, stack: Stack) -> None:
    before = stack.counts()
    with open_page() as page:
        page.goto("/ui/break-it")
        page.locator("#after-commit").get_by_role("button", name="Beside a naive one").click()
        naive = page.get_by_role("region", name="Naive")
        expect(naive.get_by_text("It says ROLLED BACK, but B has 3 rows of it.")).to_be_visible()
        ours = page.get_by_role("region", name="Ours")
        expect(ours.get_by_text("B: no row")).to_be_visible()
        assert SECRET not in page.content()
        check_accessibility(page)
        assert stack.counts() == {**before, "B": before["B"] + 3}
        naive.get_by_role("button", name="Sweep up").click()
        expect(naive.get_by_text("B: no row")).to_be_visible()
    assert stack.counts() == before


def test_a_new_saga_shows_by_itself_and_so_does_its_end(open_page: Open, stack: Stack) -> None:
    with open_page() as page:
        page.goto("/")
        expect(page.locator("#live")).to_contain_text("live")
        saga = stack.post_start("wait=0&delay=b:1500").json()["saga_id"]
        row = page.locator(f"#row-{saga}")
        expect(row.locator("td > .status.running")).to_be_visible()
        expect(row.locator("td > .status.completed")).to_be_visible()


def test_what_is_typed_and_unfolded_stays_while_the_page_changes(open_page: Open, stuck: str) -> None:
    with open_page() as page:
        page.goto(f"/ui/sagas/{stuck}")
        lines = page.locator("#log li.line")
        before = lines.count()
        page.get_by_text("It has been done by hand").click()
        note = page.get_by_label("What was done")
        note.fill("half a note")
        page.get_by_role("heading", name="Log").click()
        expect(lines.nth(before + 1)).to_be_attached()  # another round
        expect(note).to_have_value("half a note")


def test_an_operator_retries_resolves_and_cancels(browser: Browser, make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", STALL_BASE_SECONDS="60")
    saga = made_stuck(stack)
    with opened(browser, stack.url) as page:
        page.goto(f"/ui/sagas/{saga}")
        expect(page.get_by_text("Next try by itself")).to_be_visible()
        page.get_by_role("button", name="Retry now").click()
        expect(page.locator("#log")).to_contain_text("by operator")
        expect(page.locator("h1")).to_contain_text("STALLED")
        eventually(lambda: stack.saga(saga)["status"] == "STALLED")
        page.get_by_text("It has been done by hand").click()
        page.get_by_label("What was done").fill("removed by hand, Ada")
        page.get_by_role("button", name="Resolve").click()
        expect(page.locator("h1")).to_contain_text("COMPENSATED")
        expect(page.locator("#summary")).to_contain_text("removed by hand, Ada")
        slow = stack.post_start("wait=0&delay=b:1500").json()["saga_id"]
        page.goto(f"/ui/sagas/{slow}")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("h1")).to_contain_text("COMPENSATED")
        expect(page.locator("#summary")).to_contain_text("operator")
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


def test_a_verb_that_came_too_late_is_told_and_the_page_stays_live(open_page: Open, stack: Stack) -> None:
    saga = stack.post_start("wait=0&delay=b:1500").json()["saga_id"]
    with open_page() as page:
        page.expected += ["409", *CUT]  # type: ignore[attr-defined]
        page.route("**/events?*", lambda route: route.abort())  # it does not hear of what happens now
        page.goto(f"/ui/sagas/{saga}")
        page.unroute("**/events?*")
        assert requests.post(f"{stack.url}/sagas/{saga}/cancel", timeout=10).status_code == 202
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("alert")).to_contain_text("it was cancelled before")
        expect(page.locator("h1")).to_contain_text("COMPENSATED")
        expect(page.get_by_role("alert")).to_be_visible()


def test_the_list_is_filtered_searched_and_paged(open_page: Open, stack: Stack) -> None:
    for _ in range(27):
        stack.post_start()
    refused = stack.post_start("fail=b:refuse", headers={"Idempotency-Key": "order 7"}).json()["saga_id"]
    with open_page() as page:
        page.goto("/")
        rows = page.locator("#list tbody tr")
        expect(rows).to_have_count(25)
        first = rows.first.locator("a").inner_text()
        page.get_by_role("link", name="Older").click()
        expect(page.get_by_role("link", name="Newest")).to_be_visible()
        assert rows.first.locator("a").inner_text() < first
        page.get_by_role("link", name=re.compile("compensated")).click()
        expect(rows.first).to_contain_text("COMPENSATED")
        assert all("COMPENSATED" in text for text in rows.all_inner_texts())
        for q in (refused, refused[:23], "order 7"):
            page.goto("/")
            page.get_by_role("searchbox").fill(q)
            page.get_by_role("button", name="Search").click()
            expect(rows).to_have_count(1)
            expect(rows.first).to_contain_text(refused)
        page.get_by_role("searchbox").fill("nobody")
        page.get_by_role("button", name="Search").click()
        expect(page.get_by_text("No saga fits this")).to_be_visible()


def test_only_what_needs_attention_is_under_that_filter(browser: Browser, make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", STALL_BASE_SECONDS="0.05", STALL_MAX_SECONDS="0.1")
    saga = made_stuck(stack)

    eventually(lambda: stack.saga(saga)["needs_attention"], within=60)
    made_stuck(stack)
    with opened(browser, stack.url) as page:
        page.goto("/")
        page.get_by_role("link", name="needs attention").click()
        expect(page.locator("#list tbody tr")).to_have_count(1)
        expect(page.locator("#list tbody tr")).to_contain_text(saga)


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


def test_the_curl_line_follows_the_form_and_says_no_secret(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        form = page.locator("#own-form")
        for field in ("username", "address", "payment"):  # what the form shows at first is what it sends
            expect(page.locator("#sent")).to_contain_text(f'"{field}": ')
        group = form.get_by_role("group", name="B", exact=True)
        group.get_by_label("what goes wrong").select_option("after")
        group.get_by_label("in the first").fill("2")
        form.get_by_label("payment").fill("very-secret")
        sent = page.locator("#sent")
        expect(sent).to_contain_text("/start?fail=b:after:2")
        expect(sent).to_contain_text(""""payment": "'"$PAYMENT"'"}'""")
        expect(sent).to_contain_text("Set PAYMENT first")
        expect(sent).not_to_contain_text("***")
        expect(sent).not_to_contain_text("very-secret")
        form.get_by_role("button", name="Start", exact=True).click()
        expect(page.locator("h1")).to_contain_text("COMPLETED")
        expect(page.locator("#summary")).to_contain_text("HTTP 500 twice")


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
        due = datetime.fromisoformat(stack.saga(saga)["due_at"]).astimezone(ZoneInfo("Asia/Tokyo"))
        summary = page.locator("#summary")
        expect(summary.locator("time")).to_have_count(2)
        expect(summary).to_contain_text(f"by itself at {due.day} {due:%b %Y}, {due:%H:%M:%S}")
        for path in (f"/ui/sagas/{saga}", "/", "/ui/break-it", "/ui/health"):
            page.goto(path)
            expect(page.locator("#live")).to_contain_text("live")
            expect(page.locator("body")).not_to_contain_text(re.compile(r"\bUTC\b|\d\d:\d\d:\d\d(\.\d+)?Z"))


def test_a_false_resolve_is_red_on_the_sagas_page_and_in_the_head_of_an_open_one(
    browser: Browser, make_stack: Callable[..., Stack]
) -> None:
    stack = make_stack("sqlite", STALL_BASE_SECONDS="60")
    saga = made_stuck(stack)
    with opened(browser, stack.url) as other, opened(browser, stack.url) as page:
        other.goto("/")
        expect(other.locator("#invariant")).to_contain_text("holds")
        page.goto(f"/ui/sagas/{saga}")
        expect(page.get_by_text("not settled yet")).to_have_count(3)
        page.get_by_text("It has been done by hand").click()
        page.get_by_label("What was done").fill("not really")
        page.get_by_role("button", name="Resolve").click()
        expect(page.get_by_text("✖ the log says undone, A has 1 row")).to_be_visible()
        expect(page.locator("#invariant")).to_contain_text("broken")
        expect(other.locator("#invariant")).to_contain_text("broken")
        check_accessibility(page)


def test_a_cancel_is_drawn_as_one(open_page: Open, stack: Stack) -> None:
    saga = stack.post_start("wait=0&delay=b:1500").json()["saga_id"]
    eventually(lambda: any(line["event"] == "action_done" for line in stack.get(f"/sagas/{saga}/log").json()["lines"]))
    assert requests.post(f"{stack.url}/sagas/{saga}/cancel", timeout=10).status_code == 202
    stack.ended(saga)
    with open_page() as page:
        page.goto(f"/ui/sagas/{saga}")
        drawing = page.get_by_role("img", name="who called whom")
        expect(drawing).to_contain_text("cancelled")
        expect(drawing).not_to_contain_text("taken over")
        expect(page.locator("#summary")).not_to_contain_text("taken over")
        page.goto(f"/ui/sagas/{saga}?step=B")
        expect(page.locator("#inspector")).to_contain_text("an operator cancelled the saga")


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


def test_what_is_wrong_in_the_form_is_said_beside_it(open_page: Open) -> None:
    with open_page() as page:
        page.expected += ["400"]  # type: ignore[attr-defined]
        page.goto("/ui/break-it")
        form = page.locator("#own-form")
        form.get_by_role("group", name="B", exact=True).get_by_label("what goes wrong").select_option("after")
        form.get_by_role("group", name="B", exact=True).get_by_label("in the first").fill("many")
        form.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("'many' is not a number of times")


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


def test_it_can_be_used_without_javascript(open_page: Open, stack: Stack) -> None:
    """Everything but being live: a page that is not final reloads itself."""
    with open_page(java_script_enabled=False) as page:
        page.goto("/ui/break-it")
        page.locator("#stuck-compensation").get_by_role("button", name="Run", exact=True).click()
        expect(page).to_have_url(re.compile("/ui/sagas/"))
        expect(page.locator("h1")).to_contain_text("COMPENSATED", timeout=30_000)
        page.goto("/")
        page.get_by_role("link", name=re.compile("compensated")).click()
        expect(page.locator("#list tbody tr").first).to_contain_text("COMPENSATED")
        page.goto("/ui/break-it")
        page.get_by_role("group", name="B", exact=True).get_by_label("what goes wrong").select_option("refuse")
        page.get_by_role("button", name="Show the curl line").click()
        expect(page.locator("#sent")).to_contain_text("fail=b:refuse")


def test_the_keyboard_is_enough(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.locator("#refusal").get_by_role("button", name="Run", exact=True).focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text("COMPENSATED")


def test_where_choreography_is_off_that_is_said(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        card = page.locator("#b-fails")
        expect(card.get_by_label("choreography").first).to_be_disabled()
        expect(card.get_by_text("choreography is switched off here (NATS_URL=off)").first).to_be_visible()
        expect(card.get_by_role("button", name="Run both")).to_be_disabled()
        expect(page.get_by_role("link", name="Dead letters")).to_have_count(0)
        page.goto("/ui/health")
        expect(page.get_by_role("row", name="the broker")).to_contain_text("NATS_URL=off")
        page.goto("/ui/dead-letters")
        expect(page.get_by_text("There are none: choreography is switched off here")).to_be_visible()


def test_who_called_whom_is_drawn_and_told_in_words(open_page: Open, stack: Stack) -> None:
    saga = stack.post_start("fail=b:after").json()["saga_id"]
    with open_page() as page:
        page.goto(f"/ui/sagas/{saga}")
        drawing = page.get_by_role("img", name="who called whom")
        for text in ("B ×3", "HTTP 500", "undo B", "undo A"):
            expect(drawing).to_contain_text(text)
        page.get_by_text("The same in words").click()
        expect(page.locator("ol.words")).to_contain_text("the orchestrator calls B, attempts 1 to 3: HTTP 500")


def test_an_empty_list_says_what_to_do(browser: Browser, make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite")
    with opened(browser, stack.url) as page:
        page.goto("/")
        expect(page.get_by_text("No saga yet")).to_be_visible()
        expect(page.locator("#list pre")).to_contain_text("curl -X POST")
        check_accessibility(page)
