"""Choreographed sagas in a real browser: beside orchestrated ones, parked, overdue, and with the broker away."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from orchestrator.dashboard.scenarios import SCENARIOS, Scenario
from tests.e2e.test_choreography import dead_letters
from tests.support.browser import SIZES, check_accessibility, opened
from tests.support.stack import INPUT, Stack, eventually, impatient_sagas

QUICK = {"LEASE_SECONDS": "2", "STALL_BASE_SECONDS": "0.05", "STALL_MAX_SECONDS": "0.1", "RECOVERY_INTERVAL": "0.2"}
CUT = ["ERR_", "Failed to load resource", "htmx:", "[object Event]"]  # what is logged where a connection breaks
Open = Callable[..., AbstractContextManager[Page]]

expect.set_options(timeout=15_000)
pytestmark = pytest.mark.xdist_group("browser, choreography")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """With a broker; time-outs of two seconds."""
    sagas = str(impatient_sagas(tmp_path_factory.mktemp("sagas"), 2))
    return make_shared_stack("sqlite", mode="choreography", **{**QUICK, "SAGAS_DIR": sagas, "FAULT_HOLD_SECONDS": "8"})


def parked(stack: Stack) -> str:
    """A saga whose event is parked at A, until A takes injected faults again: its id."""
    stack.kill("service_a")
    stack.start("service_a", FAULTS="off")
    before = len(dead_letters(stack))
    saga = stack.post_start("fail=b&fail=a:undo:1&wait=0").json()["saga_id"]
    eventually(lambda: len(dead_letters(stack)) > before)
    eventually(lambda: stack.saga(saga)["needs_attention"])
    return str(saga)


def put_right(stack: Stack) -> None:
    stack.kill("service_a")
    stack.start("service_a")


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: str(scenario.slug))
def test_each_card_does_what_it_says_in_choreography_too(open_page: Open, stack: Stack, scenario: Scenario) -> None:
    with open_page() as page:
        if scenario.slug == "orchestrator-crash":
            page.expected += CUT  # type: ignore[attr-defined]
        page.goto("/ui/break-it")
        card = page.locator(f"#{scenario.slug}")
        expect(card.get_by_text(scenario.about)).to_be_visible()
        card.get_by_label("choreography").first.check()
        expect(card.get_by_text(scenario.choreographed or scenario.about)).to_be_visible()
        expect(card.get_by_text(scenario.about)).to_be_visible(visible=not scenario.choreographed)
        card.get_by_role("button", name="Run", exact=True).click()
        expect(page).to_have_url(re.compile("/ui/sagas/"))
        table = page.get_by_role("region", name="What the scenario said, and what happened")
        expect(table).to_be_visible(timeout=40_000)
        expect(table.get_by_text("as said")).to_have_count(4)
        summary = page.locator("#summary").inner_text()
        assert not re.search("answered|HTTP|asked|could not be reached", summary), summary
    saga = re.search(r"/ui/sagas/([^?]+)", page.url)[1]  # type: ignore[index]
    assert stack.saga(saga)["mode"] == "choreography"
    for service, number in scenario.expect.rows.items():
        assert sum(row["saga_id"] == saga for row in stack.rows(service)) == number


def test_a_scenario_is_run_in_both_modes_side_by_side(open_page: Open, stack: Stack) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        page.locator("#after-commit").get_by_role("button", name="Run both").click()
        expect(page).to_have_url(re.compile("/ui/both/"))
        called = page.get_by_role("region", name="orchestration", exact=True)
        told = page.get_by_role("region", name="choreography", exact=True)
        for side in (called, told):
            expect(side.get_by_text("COMPENSATED", exact=True).first).to_be_visible()
            expect(side.get_by_text("B was undone as well as A")).to_be_visible()
            expect(side.get_by_text("B: no row")).to_be_visible()
        expect(called.get_by_role("img", name="who called whom")).to_contain_text("HTTP 500")
        expect(told.get_by_role("img", name="who told whom")).to_contain_text("saga.signup.B.refused")
        cost = page.get_by_role("group", name="What it cost")
        for text in ("6 HTTP requests", "4 events published", "2 sent again", "2 delivered again"):
            expect(cost).to_contain_text(text)
        expect(page.get_by_text("as said")).to_have_count(8)
        check_accessibility(page)


def test_both_sides_are_live(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        form = page.locator("#own-form")
        form.get_by_role("group", name="B", exact=True).get_by_label("slower by").fill("1500")
        form.get_by_role("button", name="Start both").click()
        expect(page.get_by_role("cell", name="not ended")).to_have_count(2)
        expect(page.get_by_role("img", name="who called whom")).to_contain_text("no answer yet")
        expect(page.get_by_role("img", name="who told whom")).to_contain_text("nothing heard yet")
        expect(page.get_by_role("cell", name="not ended")).to_have_count(0)
        expect(page.get_by_role("img", name="who told whom")).to_contain_text("saga.signup.C.done")


def test_who_told_whom_is_drawn_while_it_happens_and_told_in_words(open_page: Open, stack: Stack) -> None:
    saga = stack.post_start("wait=0&fail=c:refuse&delay=b:1500").json()["saga_id"]
    with open_page() as page:
        page.goto(f"/ui/sagas/{saga}")
        drawing = page.get_by_role("img", name="who told whom; the orchestrator only listens")
        expect(drawing).to_contain_text("nothing heard yet")
        expect(drawing).not_to_contain_text("saga.signup.B.done")
        expect(drawing).to_contain_text("saga.signup.A.undone")
        page.get_by_text("The same in words").click()
        words = page.locator("ol.words")
        for text in (
            "the orchestrator publishes saga.signup.started: A hears it, and acts",
            "C, attempt 1: it refuses",
            "C publishes saga.signup.C.refused: B hears it, and undoes itself",
            "A publishes saga.signup.A.undone: nobody has to act on it",
        ):
            expect(words.get_by_text(text)).to_be_visible()
        expect(page.get_by_role("group", name="Log")).to_contain_text("saga.signup.C.refused")
        expect(page.locator("main pre").filter(has_text="mode=choreography")).to_be_visible()


@pytest.mark.parametrize("place", ["/ui/dead-letters", "/ui/sagas/{}", "/ui/sagas/{}/resume"])
def test_a_parked_event_is_seen_and_replayed(browser: Browser, make_stack: Callable[..., Stack], place: str) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    saga = parked(stack)
    fine = stack.post_start().json()["saga_id"]
    with opened(browser, stack.url) as page:
        page.goto("/?attention=1")
        expect(page.locator("#list tbody tr")).to_have_count(1)
        expect(page.locator(f"#row-{saga}")).to_contain_text("needs attention")
        expect(page.locator("#letters")).to_have_text("1")
        page.get_by_role("link", name="Dead letters").click()
        letter = page.locator("#letters-list tr[id^=letter-]")
        for text in ("saga.signup.B.refused", "at A", "FAULTS=off", saga[-8:]):
            expect(letter).to_contain_text(text)
        page.goto(place.format(saga).removesuffix("/resume"))
        if "sagas" in place:
            expect(page.locator("h1")).to_contain_text("needs attention")
            expect(page.locator("#summary")).to_contain_text("A could not handle saga.signup.B.refused")
            expect(page.get_by_role("img", name="who told whom")).to_contain_text("parked")
        put_right(stack)
        page.get_by_role("button", name="Replay what is parked" if "resume" in place else "Replay", exact=True).click()
        if "resume" not in place:
            expect(page.get_by_text("No event is parked")).to_be_visible()
        expect(page.locator("#letters")).to_have_text("")
        page.goto(f"/ui/sagas/{saga}")
        expect(page.locator("h1")).to_contain_text("COMPENSATED")
        expect(page.locator("#summary")).to_contain_text("A parked event was replayed once by an operator")
        page.goto("/?attention=1")
        expect(page.get_by_text("No saga fits this")).to_be_visible()
    assert stack.saga(saga)["status"] == "COMPENSATED"
    assert stack.counts() == {"A": 1, "B": 1, "C": 1}
    assert stack.saga(fine)["status"] == "COMPLETED"


def test_an_event_that_is_no_letter_any_more_and_another_site_are_refused(stack: Stack) -> None:
    replay = f"{stack.url}/ui/dead-letters/9999/replay"
    gone = requests.post(replay, timeout=10)
    assert gone.status_code == 404
    assert "there is no dead letter 9999" in gone.text
    assert requests.post(replay, headers={"Sec-Fetch-Site": "cross-site"}, timeout=10).status_code == 403
    assert (
        requests.post(f"{stack.url}/ui/both", headers={"Sec-Fetch-Site": "cross-site"}, timeout=10).status_code == 403
    )


def test_dead_letters_of_one_cause_are_replayed_together_and_no_other(open_page: Open, stack: Stack) -> None:
    """Pitfall 35: one that is parked after the dry run is not replayed."""
    two = [parked(stack) for _ in range(2)]
    with open_page() as page:
        page.goto("/ui/dead-letters")
        expect(page).to_have_title(re.compile(r"^\(\d+!\) Dead letters"))
        letter = next(each for each in dead_letters(stack) if each["saga_id"] == two[1])
        page.locator(f"#carries-{letter['letter']} summary").click()
        expect(page.locator(f"#carries-{letter['letter']} pre")).to_contain_text(f'"saga_id": "{two[1]}"')
        assert INPUT["payment"] not in page.content()
        page.locator(".causes li").first.get_by_role("link", name="Replay all").click()
        heading = page.get_by_role("heading", name=re.compile(r"Replay \d+ events at A"))
        expect(heading).to_be_visible()
        check_accessibility(page)
        late = parked(stack)
        put_right(stack)
        page.get_by_role("button", name=re.compile(r"Replay these \d+ now")).click()
        expect(page.get_by_role("heading", name=re.compile("published again"))).to_be_visible()
        for saga in two:
            assert stack.ended(saga)["status"] == "COMPENSATED"
        assert stack.saga(late)["needs_attention"]
        page.goto("/ui/dead-letters")
        left = next(each for each in dead_letters(stack) if each["saga_id"] == late)
        page.locator(f"#replay-{left['letter']}").get_by_role("button", name="Replay").click()
        expect(page.get_by_role("status").filter(has_text="✔ Replay: accepted at")).to_be_visible()
        assert stack.ended(late)["status"] == "COMPENSATED"


def test_that_the_broker_is_away_is_said_and_nothing_breaks(browser: Browser, make_stack: Callable[..., Stack]) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    saga = parked(stack)
    with opened(browser, stack.url) as page:
        page.expected += ["503"]  # type: ignore[attr-defined]
        page.goto("/ui/dead-letters")
        expect(page.get_by_role("button", name="Replay")).to_be_visible()
        expect(page.locator("#signs").get_by_text("broker")).to_contain_text("ready")
        stack.kill("nats")
        expect(page.get_by_text("What is parked is not known: the broker does not answer.")).to_be_visible()
        page.goto("/ui/health")
        broker = page.get_by_role("row", name="the broker")
        expect(broker).to_contain_text("the broker (NATS_URL) does not answer")
        expect(page.locator("#signs").get_by_text("broker")).to_contain_text("does not answer")
        page.goto(f"/ui/sagas/{saga}")
        page.get_by_role("button", name="Replay what is parked").click()
        expect(page.get_by_role("alert")).to_contain_text("the broker (NATS_URL) does not answer")
        page.get_by_role("button", name="Replay", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("the broker (NATS_URL) does not answer")
        check_accessibility(page)
        page.goto("/ui/break-it")
        page.locator("#all-goes-well").get_by_label("choreography").first.check()
        page.locator("#all-goes-well").get_by_role("button", name="Run", exact=True).click()
        expect(page.locator("#summary")).to_contain_text("Nothing is heard of A yet")  # it is durable, and waits
        stack.start("nats")
        expect(page.locator("h1")).to_contain_text("COMPLETED", timeout=30_000)


def test_past_its_deadline_a_saga_is_said_to_have_nobody_in_charge(
    browser: Browser, make_stack: Callable[..., Stack], tmp_path: Path
) -> None:
    file = impatient_sagas(tmp_path, 0.5) / "signup.yaml"
    file.write_text(re.sub("deadline: .*", "deadline: 1", file.read_text()))
    stack = make_stack("sqlite", mode="choreography", **{**QUICK, "SAGAS_DIR": str(file.parent)})
    stack.kill("service_b")
    saga = stack.post_start("wait=0").json()["saga_id"]
    eventually(lambda: stack.saga(saga)["overdue"])
    with opened(browser, stack.url) as page:
        page.goto("/?attention=1")
        expect(page.locator(f"#row-{saga}")).to_contain_text("overdue")
        expect(page.locator(f"#row-{saga}")).to_contain_text("choreography")
        page.locator(f"#row-{saga} a").click()
        expect(page.locator("h1")).to_contain_text("overdue")
        expect(page.get_by_text("That is the price of choreography")).to_be_visible()
        expect(page.locator("#summary")).to_contain_text("nobody is in charge who could roll it back")
        for verb in ("Cancel", "Retry now", "Resolve", "Replay"):
            expect(page.get_by_role("button", name=verb)).to_have_count(0)
        check_accessibility(page)
        stack.start("service_b")
        expect(page.locator("h1")).to_contain_text("COMPLETED")
        expect(page.locator("#summary")).to_contain_text("Its deadline passed before it ended")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_every_view_of_it_is_accessible(open_page: Open, stack: Stack, scheme: str, size: str) -> None:
    sagas = [stack.post_start(flags).json()["saga_id"] for flags in ("", "fail=c:after", "fail=b")]
    flight = stack.post_start("wait=0&delay=b:4000").json()["saga_id"]
    with open_page(color_scheme=scheme, viewport=SIZES[size]) as page:
        pages = [f"/ui/sagas/{saga}" for saga in (flight, *sagas)]
        for path in (*pages, f"/ui/both/{sagas[0]}/{sagas[1]}", "/", "/ui/break-it", "/ui/dead-letters", "/ui/health"):
            page.goto(path)
            expect(page.locator("#live")).to_contain_text("live")
            for summary in page.get_by_text("The same in words").all():
                summary.click()
            check_accessibility(page)
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_what_is_parked_is_accessible(
    browser: Browser, make_stack: Callable[..., Stack], scheme: str, size: str
) -> None:
    stack = make_stack("sqlite", mode="choreography", **QUICK)
    saga = parked(stack)
    with opened(browser, stack.url, color_scheme=scheme, viewport=SIZES[size]) as page:
        for path in ("/ui/dead-letters", f"/ui/sagas/{saga}", "/?attention=1"):
            page.goto(path)
            expect(page.locator("#letters")).to_have_text("1")
            check_accessibility(page)
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), path


BOXES = """texts => texts.map(text => text.getBoundingClientRect()).filter(box => box.width)
                    .map(({x, y, width, height}) => ({x, y, width, height}))"""


def test_texts_of_a_drawing_do_not_overlap(open_page: Open, stack: Stack) -> None:
    sagas = [stack.post_start(flags).json()["saga_id"] for flags in ("fail=c:after", "fail=b:after&fail=a:undo:2")]
    stack_mode, stack.mode = stack.mode, "orchestration"
    sagas += [stack.post_start(flags).json()["saga_id"] for flags in ("fail=c:after", "fail=b:after&fail=a:undo:2")]
    stack.mode = stack_mode
    with open_page() as page:
        for saga in sagas:
            stack.ended(saga)  # so that nothing moves any more
            page.goto(f"/ui/sagas/{saga}")
            found = page.locator("svg.sequence text").evaluate_all(BOXES)
            assert len(found) > 10
            for index, one in enumerate(found):
                for other in found[index + 1 :]:
                    apart = (
                        one["x"] + one["width"] <= other["x"] + 1
                        or other["x"] + other["width"] <= one["x"] + 1
                        or one["y"] + one["height"] <= other["y"] + 3
                        or other["y"] + other["height"] <= one["y"] + 3
                    )
                    assert apart, (one, other)


def test_both_modes_can_be_run_without_javascript(open_page: Open) -> None:
    with open_page(java_script_enabled=False) as page:
        page.goto("/ui/break-it")
        page.locator("#refusal").get_by_role("button", name="Run both").click()
        expect(page.get_by_text("as said")).to_have_count(8, timeout=30_000)


def test_the_form_and_its_curl_line_follow_the_mode(open_page: Open) -> None:
    with open_page() as page:
        page.goto("/ui/break-it")
        form = page.locator("#own-form")
        form.get_by_label("choreography").check()
        expect(page.locator("#sent")).to_contain_text("/start?mode=choreography")
        form.get_by_label("username").fill("")
        form.get_by_label("username").evaluate("element => element.removeAttribute('required')")
        page.expected += ["400"]  # type: ignore[attr-defined]
        form.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_role("alert")).to_contain_text("username is required")
        expect(form.get_by_label("choreography")).to_be_checked()
        form.get_by_label("username").fill(INPUT["username"])
        form.get_by_role("button", name="Start", exact=True).click()
        expect(page.get_by_role("img", name="who told whom")).to_contain_text("saga.signup.C.done")
