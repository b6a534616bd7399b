"""The page "Break it" in a real browser: its cards, predictions, lessons, and the naive coordinator."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from playwright.sync_api import Locator, Page, expect

from orchestrator.dashboard.lessons import LESSONS
from orchestrator.dashboard.scenarios import SCENARIOS, Scenario
from tests.support.browser import SIZES, check_accessibility
from tests.support.stack import Stack, eventually, impatient_sagas

SECRET = "4111-1111"
CUT = ["ERR_", "Failed to load resource", "htmx:", "[object Event]"]  # what is logged where a connection breaks
MODES = ("orchestration", "choreography")
CRASHES = ("service-crash", "orchestrator-crash")  # disturb whatever else is under way
Open = Callable[..., AbstractContextManager[Page]]

expect.set_options(timeout=15_000)
pytestmark = pytest.mark.xdist_group("browser, break it")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """With a broker; time-outs of two seconds, so that a card with a lost answer takes seven."""
    environ = {"FAULT_HOLD_SECONDS": "8", "LEASE_SECONDS": "2", "STALL_BASE_SECONDS": "0.5"}
    sagas = str(impatient_sagas(tmp_path_factory.mktemp("sagas"), 2))
    return make_shared_stack("sqlite", broker=True, SAGAS_DIR=sagas, **environ)


Ran = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def ran(stack: Stack) -> Iterator[Ran]:
    """The ids of a saga of each card in each mode. All run side by side, but those that crash a process."""

    def start(card: Scenario, mode: str) -> str:
        form = {"scenario": card.slug, "saga": "signup", "mode": mode}
        answer = requests.post(f"{stack.url}/ui/start", data=form, timeout=30, allow_redirects=False)
        address = urlsplit(answer.headers["Location"])
        assert (answer.status_code, parse_qs(address.query)) == (303, {"scenario": [card.slug]})
        return address.path.rsplit("/", 1)[1]

    calm = [card for card in SCENARIOS if card.slug not in CRASHES]
    started = {(card.slug, mode): start(card, mode) for mode in MODES for card in calm}
    for saga in started.values():
        stack.ended(saga, within=90)
    for card in SCENARIOS:
        for mode in MODES if card.slug in CRASHES else ():
            started[card.slug, mode] = start(card, mode)
            stack.ended(started[card.slug, mode])
            for process in ("service_b", "orchestrator"):
                stack.await_ready(process)
    yield started


def card_of(page: Page, slug: str) -> Locator:
    return page.locator(f"#{slug}")


def predicted(card: Locator, end: str, **rows: str) -> None:
    """Answer a card's questions."""
    card.get_by_label(end, exact=True).check()
    for step, answer in rows.items():
        card.get_by_role("group", name=f"{step} has").get_by_label(answer, exact=True).check()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.slug))
def test_each_card_does_what_it_says_and_the_sagas_page_says_so(
    stack: Stack, ran: Ran, scenario: Scenario, mode: str
) -> None:
    """From the services' own rows."""
    saga_id = ran[scenario.slug, mode]
    saga = stack.saga(saga_id)
    right = scenario.right_end(saga["status"])
    assert (saga["mode"], saga["status"]) == (mode, right.status)
    assert {step: sum(row["saga_id"] == saga_id for row in stack.rows(step)) for step in "ABC"} == right.rows
    page = stack.get(f"/ui/sagas/{saga_id}?scenario={scenario.slug}").text
    assert "As the card said:" in page
    assert "Not as the card said:" not in page


def test_a_card_says_what_it_injects_and_what_comes_of_it_in_the_mode_that_is_chosen(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        for mode, told in (("orchestration", "B answers 500"), ("choreography", "the event is delivered to it")):
            page.get_by_role("navigation", name="Mode").get_by_role("link", name=mode).click()
            expect(page.get_by_role("link", name=mode)).to_have_attribute("aria-current", "true")
            expect(card_of(page, "b-fails")).to_contain_text(told)
            expect(card_of(page, "b-fails")).to_contain_text("COMPENSATED no row anywhere")
        page.goto("/")
        page.goto("/ui/break-it")  # it is remembered
        expect(page.get_by_role("link", name="choreography")).to_have_attribute("aria-current", "true")
        headings = page.locator(".scenarios h2").all_inner_texts()
        assert [text.partition(":")[0] for text in headings] == [
            *("Plain failures", "Nobody can tell", "Crashes", "Stuck", "Isolation"),
        ]


def test_a_prediction_is_asked_for_without_the_answer_and_held_against_what_happened(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        page.get_by_role("navigation", name="Predict first").get_by_role("link", name="on").click()
        page.goto("/ui/break-it")  # it is remembered
        for given_away in ("COMPENSATED", "no row anywhere", "is undone"):
            expect(page.locator("main")).not_to_contain_text(given_away)
        card = card_of(page, "after-commit")
        card.get_by_text("Predict, then run").click()
        predicted(card, "compensated", A="no row", B="a row", C="no row")
        card.get_by_role("button", name="Run", exact=True).click()
        score = page.locator(".score")
        expect(score).to_contain_text("3 of 4.")
        expect(score).to_contain_text(
            "B: you said one row; it has no row, because nobody could tell whether it had acted, so that it was undone"
        )
        page.reload()
        expect(score).to_contain_text("3 of 4.")
        page.get_by_text("All answers, and why").click()
        expect(page.locator(".answers li")).to_have_count(4)
        expect(page.locator(".answers")).to_contain_text("C: you said no row; it has no row, because it never had its")
        check_accessibility(page)


def test_a_prediction_that_is_not_made_is_asked_for_where_one_looks(open_page: Open, stack: Stack) -> None:
    newest = stack.get("/sagas?limit=1").json()
    with open_page(java_script_enabled=False) as page:
        page.expected += ["400"]  # type: ignore[attr-defined]
        page.goto("/ui/break-it?predict=on&mode=choreography")
        card_of(page, "refusal").get_by_label("More ways to run").click()
        card_of(page, "refusal").get_by_role("button", name="Run both").click()
        expect(card_of(page, "refusal").get_by_role("alert")).to_contain_text("predict first")
    assert stack.get("/sagas?limit=1").json() == newest


def test_a_lesson_leads_from_its_cards_to_the_next_lesson(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/break-it?lesson=2")
        expect(page).to_have_url(re.compile("/ui/break-it.lesson=2"))
        expect(page.get_by_role("heading", level=1)).to_have_text("A refusal is an answer")
        expect(page.locator(".scenario")).to_have_count(2)
        card = card_of(page, "refusal")
        predicted(card, "compensated", A="no row", B="no row", C="no row")
        card.get_by_role("button", name="Run", exact=True).click()
        expect(page.locator(".score")).to_contain_text("4 of 4. All of it is as you said.")
        page.get_by_role("link", name="The lesson's other card").click()
        expect(page).to_have_url(re.compile("lesson=2#c-fails"))
        page.go_back()
        page.get_by_role("link", name="Next lesson: Nobody can tell").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Nobody can tell")


def test_a_saga_is_run_again_as_it_was_and_with_changes(open_page: Open, stack: Stack) -> None:
    first = stack.post_start("fail=b:after:2&delay=c:10:1", {"username": "eve", "payment": SECRET}).json()
    with open_page() as page:
        page.goto(f"/ui/sagas/{first['saga_id']}")
        page.get_by_role("button", name="Run again").click()
        expect(page).not_to_have_url(re.compile(first["saga_id"]))
        again = stack.ended(urlsplit(page.url).path.rsplit("/", 1)[1])
        assert (again["input"], again["status"]) == (first["input"], "COMPLETED")
        assert [step["attempts"] for step in again["steps"]] == [1, 3, 1]
        expect(page.locator("main pre").filter(has_text="fail=b:after:2&delay=c:10:1").first).to_be_visible()
        page.get_by_role("link", name="Edit and run").click()
        form = page.locator("#own-form")
        expect(form.get_by_label("username")).to_have_value("eve")
        b = form.get_by_role("group", name="B", exact=True)
        expect(b.get_by_label("what goes wrong")).to_have_value("after")
        expect(form.get_by_role("group", name="C", exact=True).get_by_label("slower by")).to_have_value("10")
        b.get_by_label("what goes wrong").select_option("refuse")
        form.get_by_role("button", name="Start", exact=True).click()
        expect(page.locator("h1")).to_contain_text("COMPENSATED")
    newest = stack.get("/sagas?limit=1").json()["sagas"][0]
    assert (newest["input"]["username"], newest["error"]["kind"]) == ("eve", "refused")


def test_a_card_is_run_in_both_modes_side_by_side(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it?mode=both")
        card_of(page, "after-commit").get_by_role("button", name="Run", exact=True).click()
        expect(page).to_have_url(re.compile("/ui/both/"))
        called = page.get_by_role("region", name="orchestration", exact=True)
        told = page.get_by_role("region", name="choreography", exact=True)
        for side in (called, told):
            expect(side.get_by_text("As the card said:")).to_be_visible()
            expect(side.get_by_text("B was undone as well as A")).to_be_visible()
            expect(side.get_by_text("B: no row").first).to_be_visible()
        expect(called.get_by_role("group", name="who called whom")).to_contain_text("HTTP 500")
        expect(told.get_by_role("group", name="who told whom")).to_contain_text("saga.signup.B.refused")
        cost = page.get_by_role("group", name="What it cost")
        for text in ("6 HTTP requests", "4 events published", "2 sent again", "2 delivered again"):
            expect(cost).to_contain_text(text)
        check_accessibility(page)


def test_both_sides_are_live(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        page.get_by_role("heading", name="Any fault you like").click()
        form = page.locator("#own-form")
        form.get_by_role("group", name="B", exact=True).get_by_label("slower by").fill("1500")
        form.get_by_role("button", name="Start both").click()
        expect(page.get_by_role("cell", name="not ended")).to_have_count(2)
        expect(page.get_by_role("group", name="who called whom")).to_contain_text("no answer yet")
        expect(page.get_by_role("group", name="who told whom")).to_contain_text("nothing heard yet")
        expect(page.get_by_role("cell", name="not ended")).to_have_count(0)
        expect(page.get_by_role("group", name="who told whom")).to_contain_text("saga.signup.C.done")


def test_the_naive_coordinator_leaves_rows_behind_and_ours_does_not(open_page: Open, stack: Stack) -> None:
    """They are shown, and can be swept up, after a restart too: the services have them, and nobody else."""
    before = stack.counts()
    with open_page() as page:
        page.expected += CUT  # type: ignore[attr-defined]
        page.goto("/ui/break-it")
        card_of(page, "after-commit").get_by_label("More ways to run").click()
        card_of(page, "after-commit").get_by_role("button", name="Beside a naive one").click()
        naive = page.get_by_role("region", name="Naive")
        expect(naive.get_by_text("It says ROLLED BACK, but B has 3 rows of it.")).to_be_visible()
        drawing = naive.get_by_role("group", name="who called whom")
        for text in ("A, request 1", "B, request 3", "HTTP 500, left 1 row", "undo A", "says ROLLED BACK"):
            expect(drawing).to_contain_text(text)
        ours = page.get_by_role("region", name="Ours")
        expect(ours.get_by_text("B: no row")).to_be_visible()
        assert SECRET not in page.content()
        check_accessibility(page)
        assert stack.counts() == {**before, "B": before["B"] + 3}
        stack.kill("orchestrator")
        stack.start("orchestrator")
        page.reload()
        expect(naive.get_by_text("It says nothing any more")).to_be_visible()
        expect(drawing).to_contain_text("no answer known, left 1 row")
        naive.get_by_role("button", name="Sweep up").click()
        expect(naive.get_by_text("B: no row")).to_be_visible()
    assert stack.counts() == before


def test_the_curl_line_follows_the_form_and_says_no_secret(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it?mode=choreography")
        page.get_by_role("heading", name="Any fault you like").click()
        form, sent = page.locator("#own-form"), page.locator("#sent")
        for field in ("username", "address", "payment"):  # what the form shows at first is what it sends
            expect(sent).to_contain_text(f'"{field}": ')
        group = form.get_by_role("group", name="B", exact=True)
        group.get_by_label("what goes wrong").select_option("after")
        group.get_by_label("in the first … attempts", exact=True).fill("2")
        form.get_by_label("payment").fill("very-secret")
        expect(sent).to_contain_text("/start?mode=choreography&fail=b:after:2")
        expect(sent).to_contain_text(""""payment": "'"$PAYMENT"'"}'""")
        expect(sent).to_contain_text("Set PAYMENT first")
        expect(sent).not_to_contain_text("***")
        expect(sent).not_to_contain_text("very-secret")
        form.get_by_role("button", name="Start", exact=True).click()
        expect(page.locator("h1")).to_contain_text("COMPLETED")
        expect(page.get_by_role("group", name="who told whom")).to_contain_text("saga.signup.C.done")


def test_a_delay_beyond_the_time_out_is_warned_of(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        page.get_by_role("heading", name="Any fault you like").click()
        b = page.get_by_role("group", name="B", exact=True)
        b.get_by_label("slower by").fill("8000")
        warning = page.locator("#sent .notice")
        expect(warning).to_contain_text("8000 ms is more than B's time-out of 2 s")
        b.get_by_label("slow in the first").fill("3")
        expect(warning).to_have_count(0)
        expect(page.locator("#sent")).to_contain_text("delay=b:8000:3")


def test_what_is_wrong_in_the_form_is_said_beside_it(open_page: Open) -> None:
    for java_script in (True, False):
        with open_page(java_script_enabled=java_script) as page:
            page.expected += ["400"]  # type: ignore[attr-defined]
            page.goto("/ui/break-it")
            page.get_by_role("heading", name="Any fault you like").click()
            form = page.locator("#own-form")
            group = form.get_by_role("group", name="B", exact=True)
            group.get_by_label("what goes wrong").select_option("after")
            group.get_by_label("in the first … attempts", exact=True).fill("many")
            form.get_by_role("button", name="Start", exact=True).click()
            alert = page.locator("#own").get_by_role("alert")
            expect(alert).to_contain_text("'many' is not a number of times")
            expect(alert).to_be_in_viewport()
            expect(group.get_by_label("in the first … attempts", exact=True)).to_have_value("many")


def test_it_can_be_used_without_javascript(open_page: Open) -> None:
    """Everything but being live: a page that is not final reloads itself."""
    with open_page(java_script_enabled=False) as page:
        page.goto("/ui/break-it")
        card_of(page, "stuck-compensation").get_by_role("button", name="Run", exact=True).click()
        expect(page).to_have_url(re.compile("/ui/sagas/"))
        page.get_by_role("button", name="Retry").click()
        expect(page).to_have_url(re.compile("scenario=stuck-compensation"))
        expect(page.get_by_text("As the card said:")).to_be_visible(timeout=30_000)
        page.goto("/ui/break-it")
        card_of(page, "refusal").get_by_label("More ways to run").click()
        card_of(page, "refusal").get_by_role("button", name="Run both").click()
        expect(page.get_by_text("As the card said:")).to_have_count(2, timeout=30_000)
        page.goto("/ui/break-it")
        page.get_by_role("heading", name="Any fault you like").click()
        page.get_by_role("group", name="B", exact=True).get_by_label("what goes wrong").select_option("refuse")
        page.get_by_role("button", name="Show the curl line").click()
        expect(page.locator("#sent")).to_contain_text("fail=b:refuse")


def test_the_isolation_laboratory_counts_and_opens_an_order_without_javascript(open_page: Open) -> None:
    with open_page(java_script_enabled=False) as page:
        page.goto("/ui/break-it?lesson=8")
        page.get_by_role("link", name="The isolation laboratory").click()
        expect(page.locator("#counts")).to_have_count(0)
        page.get_by_role("checkbox", name="Reread value").check()
        page.get_by_role("button", name="Run every order").click()
        expect(page.get_by_role("checkbox", name="Reread value")).to_be_checked()
        expect(page.get_by_role("link", name="Lost update, Without: 27 of 35")).to_be_visible()
        page.get_by_role("link", name="Lost update, Reread value: 7 of 25").click()
        expect(page.get_by_role("heading", name="Lost update: order 1 of 7")).to_be_visible()
        page.get_by_role("link", name="Next").click()
        expect(page.locator("#order .finding", has_text="Lost update")).to_contain_text("Ann overwrites")
        expect(page.locator("pre.changed")).to_contain_text("account.still_holds")


@pytest.mark.parametrize(("scheme", "size"), [("light", "wide"), ("dark", "narrow")])
def test_the_isolation_laboratory_is_accessible(open_page: Open, scheme: str, size: str) -> None:
    with open_page(color_scheme=scheme, viewport=SIZES[size]) as page:
        page.goto("/ui/isolation?compare=all&world=both&show=lost")
        expect(page.locator("#counts thead th")).to_have_count(6)
        check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_the_keyboard_is_enough(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        run = card_of(page, "refusal").get_by_role("button", name="Run", exact=True)
        run.focus()
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(card_of(page, "refusal").get_by_role("button", name="Run both")).to_be_visible()
        run.focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text("COMPENSATED")


@pytest.mark.parametrize(("scheme", "size", "at_most"), [("light", "wide", 1700), ("dark", "narrow", 3200)])
def test_every_view_is_accessible_and_short(open_page: Open, scheme: str, size: str, at_most: int) -> None:
    with open_page(color_scheme=scheme, viewport=SIZES[size]) as page:
        for path in ("/ui/break-it", "/ui/break-it?predict=on", "/ui/break-it?lesson=1", "/ui/break-it?kind-B=after"):
            page.goto(path)
            expect(page.locator("#live")).to_contain_text("live")
            check_accessibility(page)
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path
            height = page.evaluate("document.documentElement.scrollHeight")
            assert "kind-B" in path or height <= at_most, (path, height)
        page.goto("/ui/break-it?predict=off")
        card_of(page, "c-fails").get_by_label("More ways to run").click()
        check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def test_each_lesson_has_its_page_and_its_cards(stack: Stack) -> None:
    for lesson in LESSONS:
        page = stack.get(f"/ui/break-it?lesson={lesson.number}").text
        assert re.findall(r'<form class="scenario predicting" id="([\w-]+)"', page) == list(lesson.cards)
    eventually(lambda: requests.get(f"{stack.url}/ui/break-it?lesson=9", timeout=10).status_code == 400)
