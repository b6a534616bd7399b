"""Choreographed sagas in a real browser: beside orchestrated ones, parked, overdue, and with the broker away."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

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


def test_a_parked_event_is_seen_and_replayed(browser: Browser, make_stack: Callable[..., Stack]) -> None:
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
        put_right(stack)
        page.get_by_role("button", name="Replay", exact=True).click()
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
        page.get_by_role("button", name="Service A is mended: replay").click()
        expect(page.get_by_role("alert")).to_contain_text("the broker (NATS_URL) does not answer")
        check_accessibility(page)
        page.goto("/ui/break-it?mode=choreography")
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
        panel = page.get_by_role("region", name="Overdue: it waits for service B")
        expect(panel).to_contain_text(stack.url_of("service_b"))
        expect(panel).to_contain_text("Mend service B: the saga then goes on by itself")
        expect(page.get_by_text("that is the price of choreography")).to_be_visible()
        expect(page.locator("main")).not_to_contain_text("in charge")
        for verb in ("Cancel", "Retry", "Resolve", "replay"):
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
