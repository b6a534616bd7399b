"""A saga's page in a real browser: the drawings, the panel of what is stuck, the verdicts, and what is explained."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, Route, expect
from sqlalchemy import create_engine, text

from tests.e2e.test_choreography import dead_letters
from tests.support.browser import SIZES, check_accessibility, opened
from tests.support.stack import Stack, eventually, impatient_sagas

CUT = ["ERR_", "Failed to load resource", "htmx:", "[object Event]"]  # what is logged where a connection breaks
Open = Callable[..., AbstractContextManager[Page]]

expect.set_options(timeout=15_000)
pytestmark = pytest.mark.xdist_group("browser, a saga's page")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """With a broker; time-outs of three seconds, and rests of a minute."""
    sagas = str(impatient_sagas(tmp_path_factory.mktemp("sagas"), 3))
    environ = {"FAULT_HOLD_SECONDS": "14", "LEASE_SECONDS": "2", "STALL_BASE_SECONDS": "60", "RECOVERY_INTERVAL": "0.2"}
    return make_shared_stack("sqlite", broker=True, SAGAS_DIR=sagas, **environ)


@pytest.fixture
def stuck(stack: Stack) -> Iterator[str]:
    """A saga whose compensation never succeeds: its id, once it rests. It is resolved at the end of the test."""
    saga = str(stack.post_start("fail=b&fail=a:undo&wait=0").json()["saga_id"])
    eventually(lambda: stack.saga(saga)["status"] == "STALLED")
    yield saga
    remove_row(stack, saga)

    def resolved() -> bool:
        answer = requests.post(f"{stack.url}/sagas/{saga}/resolve", json={"note": "the test is over"}, timeout=10)
        return answer.status_code == 202 or bool(stack.saga(saga)["ended_at"])

    eventually(resolved)


def remove_row(stack: Stack, saga: str) -> None:
    """What an operator does by hand: A's row of the saga is gone."""
    engine = create_engine(stack.urls["service_a"])
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM TABLE_A WHERE saga_id = :saga"), {"saga": saga})
    engine.dispose()


def reached_b(stack: Stack, flags: str) -> str:
    """A saga whose step A is done, and whose step B is being called: its id."""
    saga = str(stack.post_start(f"wait=0&{flags}").json()["saga_id"])
    eventually(lambda: any(line["event"] == "action_done" for line in stack.lines(saga)))
    return saga


def diagram(page: Page, who: str = "who called whom") -> Locator:
    return page.get_by_role("group", name=re.compile(f"^Sequence diagram: {who}"))


def box(page: Page, step: str) -> Locator:
    return page.locator(".graph-box", has=page.locator("b", has_text=re.compile(f"^{step}$")))


def test_a_retry_says_in_place_what_came_of_it_and_keeps_focus_and_scroll(open_page: Open, stuck: str) -> None:
    with open_page(viewport={"width": 1280, "height": 400}) as page:
        page.goto(f"/ui/sagas/{stuck}")
        panel = page.get_by_role("region", name="Stuck at undo A")
        for words in ("/compensate", "it answers", "HTTP 500: injected: undo", "rounds"):
            expect(panel).to_contain_text(words)
        expect(page.locator("#summary")).not_to_contain_text("Stalled since")
        left = panel.locator("[data-until]")
        before = left.inner_text()
        expect(left).not_to_have_text(before)  # it counts down
        check_accessibility(page)
        retry = panel.get_by_role("button", name="Retry undo A now")
        retry.scroll_into_view_if_needed()
        scrolled = page.evaluate("scrollY")
        retry.click()
        expect(page.locator("#retried")).to_have_text("Retried: HTTP 500 again.")
        expect(retry).to_be_focused()
        assert page.evaluate("scrollY") == scrolled


def test_what_is_typed_and_unfolded_stays_while_the_page_changes(open_page: Open, stack: Stack, stuck: str) -> None:
    with open_page() as page:
        page.goto(f"/ui/sagas/{stuck}")
        expect(page.locator("#live")).to_contain_text("● live")
        page.get_by_text("I did it by hand").click()
        note = page.get_by_label("What was done")
        note.fill("half a note")
        assert requests.post(f"{stack.url}/sagas/{stuck}/resume", timeout=10).status_code == 202
        expect(page.locator("#retried")).to_have_text("Retried: HTTP 500 again.")
        expect(note).to_have_value("half a note")


def test_a_false_resolve_is_warned_of_and_red_at_once(
    browser: Browser, open_page: Open, stack: Stack, stuck: str
) -> None:
    row = next(row["id"] for row in stack.rows("A") if row["saga_id"] == stuck)
    with opened(browser, stack.url) as other, open_page() as page:
        other.goto("/")
        expect(other.locator("#invariant")).to_contain_text("holds")
        page.goto(f"/ui/sagas/{stuck}")
        expect(page.get_by_text("not settled yet")).to_have_count(3)
        page.get_by_text("I did it by hand").click()
        expect(page.get_by_text(f"A still has row {row}. Go on only once that is gone.")).to_be_visible()
        page.get_by_label("What was done").fill("removed by hand, Ada")
        page.get_by_role("button", name="Resolve").click()
        expect(page.locator("h1")).to_contain_text("COMPENSATED")
        expect(page.locator("#summary")).to_contain_text("removed by hand, Ada")
        expect(page.get_by_text("✖ the log says undone, A has 1 row")).to_be_visible()
        expect(page.locator("#stuck")).to_have_count(0)
        for light in (page.locator("#invariant"), other.locator("#invariant")):
            expect(light).to_contain_text("broken")
        check_accessibility(page)


def test_a_call_under_way_is_unknown_and_its_time_ticks(open_page: Open, stack: Stack) -> None:
    with open_page() as page:
        saga = reached_b(stack, "delay=b:2700")
        page.goto(f"/ui/sagas/{saga}")
        expect(box(page, "B")).to_contain_text(re.compile(r"attempt 1 under way, \d(\.\d)? s of 3 s"))
        ticking = box(page, "B").locator("[data-since]")
        before = ticking.inner_text()
        expect(ticking).not_to_have_text(before)
        expect(page.locator("#deadline")).to_contain_text("turns back by itself in")
        expect(page.locator(".truth", has_text="its action has its turn")).to_contain_text("effect: unknown")
        box(page, "B").click()
        expect(page.locator("#inspector")).to_contain_text("unknown")
        expect(page.locator("#inspector")).to_contain_text("its action has its turn")
        expect(page.locator("#inspector")).to_contain_text("attempt 1 under way")
        expect(page.locator("svg .bar.running.grows")).to_be_attached()
        expect(page.locator("h1")).to_contain_text("COMPLETED")
        expect(page.get_by_text("✔ as the log says")).to_have_count(3)


def test_a_cancel_is_drawn_as_one(open_page: Open, stack: Stack) -> None:
    saga = reached_b(stack, "fail=b:lost")  # B is called for nine seconds
    with open_page() as page:
        page.goto(f"/ui/sagas/{saga}")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("h1")).to_contain_text("COMPENSATED")
        expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
        expect(page.locator("#summary")).to_contain_text("An operator cancelled it at B")
        for drawn in (re.compile(r"B, attempt \d: answer not awaited"), "cancelled", "undo B"):
            expect(diagram(page)).to_contain_text(drawn)
        expect(page.locator("main")).not_to_contain_text("orchestrator gone")
        expect(page.locator("main")).not_to_contain_text("taken over")
        box(page, "B").click()
        expect(page.locator("#inspector")).to_contain_text("an operator cancelled the saga")
        expect(page.locator("#inspector")).not_to_contain_text("0 attempts")
        check_accessibility(page)


def test_a_crash_in_the_middle_is_drawn_as_a_call_without_an_answer_and_a_gap(open_page: Open, stack: Stack) -> None:
    saga = reached_b(stack, "delay=b:1000")
    stack.kill("orchestrator")
    stack.start("orchestrator")
    stack.ended(saga)
    with open_page() as page:
        page.goto(f"/ui/sagas/{saga}")
        gone = re.compile(r"orchestrator gone, about \d+ m?s")
        expect(diagram(page)).to_contain_text("B, attempt 1: answer never recorded")
        expect(diagram(page)).to_contain_text(gone)
        timeline = page.get_by_role("group", name="Timeline")
        expect(timeline).to_contain_text(gone)
        expect(timeline.locator("svg .bar.lost")).to_have_count(1)
        expect(box(page, "B")).to_contain_text("2 attempts")
        check_accessibility(page)


def test_sealed_refused_and_no_effect_are_three_words(open_page: Open, stack: Stack) -> None:
    late, refused, failed = (
        stack.post_start(flags).json()["saga_id"] for flags in ("fail=c:late", "fail=b:refuse", "fail=b")
    )
    with open_page() as page:
        page.goto(f"/ui/sagas/{late}")
        expect(box(page, "C")).to_contain_text("sealed")
        box(page, "C").click()
        expect(page.locator("#inspector")).to_contain_text("it did nothing, and never will")
        check_accessibility(page)
        page.goto(f"/ui/sagas/{refused}")
        expect(box(page, "B")).to_contain_text("refused")
        page.goto(f"/ui/sagas/{failed}")
        expect(box(page, "B")).to_contain_text("no effect")
    assert stack.saga(failed)["steps"][1]["status"] == "REFUSED"  # the API's word stays


def test_a_word_is_explained_under_the_mouse_with_the_keyboard_and_when_it_is_touched(
    open_page: Open, stack: Stack
) -> None:
    saga = stack.post_start().json()["saga_id"]
    shown = "element => getComputedStyle(element, '::after').content"
    for touch in (False, True):
        with open_page(has_touch=touch, viewport=SIZES["narrow" if touch else "wide"]) as page:
            page.goto(f"/ui/sagas/{saga}")
            pivot = page.locator(".graph-pivot .term")
            assert pivot.evaluate(shown) == "none"
            pivot.tap() if touch else pivot.focus()
            assert "The step that cannot be undone once it has committed" in pivot.evaluate(shown)
            page.get_by_role("heading", level=1).click()
            pivot.blur()
            pivot.hover()
            assert "The step that cannot be undone" in pivot.evaluate(shown)


def test_who_called_whom_is_drawn_and_told_in_words_and_leads_to_each_call(open_page: Open, stack: Stack) -> None:
    saga = stack.post_start("fail=b:after").json()["saga_id"]
    with open_page() as page:
        page.goto(f"/ui/sagas/{saga}")
        for words in ("B ×3", "HTTP 500", "undo B", "undo A"):
            expect(diagram(page)).to_contain_text(words)
        page.get_by_text("The same in words").click()
        expect(page.locator("ol.words")).to_contain_text("the orchestrator calls B, attempts 1 to 3: HTTP 500")
        for drawn in (box(page, "B"), diagram(page).locator("a").first, page.locator(".gantt a").first):
            assert "#inspector" in str(drawn.get_attribute("href"))


def test_who_told_whom_is_drawn_while_it_happens_and_told_in_words(open_page: Open, stack: Stack) -> None:
    saga = stack.post_start("mode=choreography&wait=0&fail=c:refuse&delay=b:1500").json()["saga_id"]
    with open_page() as page:
        page.goto(f"/ui/sagas/{saga}")
        drawing = diagram(page, "who told whom; the orchestrator only listens")
        expect(drawing).to_contain_text("nothing heard yet")
        expect(drawing).not_to_contain_text("saga.signup.B.done")
        expect(drawing).to_contain_text("saga.signup.A.undone")
        page.get_by_text("The same in words").click()
        told = page.locator("ol.words")
        for words in (
            "the orchestrator publishes saga.signup.started: A hears it, and acts",
            "C, attempt 1: it refuses",
            "C publishes saga.signup.C.refused: B hears it, and undoes itself",
            "A publishes saga.signup.A.undone: nobody has to act on it",
        ):
            expect(told.get_by_text(words)).to_be_visible()
        expect(page.locator("main pre").filter(has_text="mode=choreography")).to_be_visible()
        check_accessibility(page)


def test_a_parked_saga_names_the_service_to_mend_and_has_one_button(
    browser: Browser, make_stack: Callable[..., Stack]
) -> None:
    stack = make_stack("sqlite", mode="choreography", STALL_BASE_SECONDS="0.05", STALL_MAX_SECONDS="0.1")
    stack.kill("service_a")
    stack.start("service_a", FAULTS="off")
    saga = stack.post_start("fail=b&fail=a:undo:1&wait=0").json()["saga_id"]
    eventually(lambda: dead_letters(stack))
    eventually(lambda: stack.saga(saga)["needs_attention"])
    with opened(browser, stack.url) as page:
        page.goto(f"/ui/sagas/{saga}")
        panel = page.get_by_role("region", name="Service A could not handle an event: it is parked")
        for words in ("saga.signup.B.refused", stack.url_of("service_a"), "FAULTS=off", "Mend service A first"):
            expect(panel).to_contain_text(re.compile(re.escape(words), re.IGNORECASE))
        expect(page.locator("main")).not_to_contain_text("in charge")
        expect(page.locator("#stuck button, .head .actions button")).to_have_count(1)
        check_accessibility(page)
        stack.kill("service_a")
        stack.start("service_a")
        panel.get_by_role("button", name="Service A is mended: replay").click()
        expect(page.locator("h1")).to_contain_text("COMPENSATED")
        expect(page.locator("#summary")).to_contain_text("A parked event was replayed once by an operator")
    assert stack.saga(saga)["status"] == "COMPENSATED"


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


def test_what_a_verb_came_to_is_told_though_its_form_has_gone_meanwhile(open_page: Open, stack: Stack) -> None:
    saga = stack.post_start("wait=0&delay=b:1500").json()["saga_id"]
    with open_page() as page:
        page.expected += ["409", *CUT]  # type: ignore[attr-defined]
        page.route("**/events?*", lambda route: route.abort())  # so that the button is still there
        page.goto(f"/ui/sagas/{saga}")
        assert requests.post(f"{stack.url}/sagas/{saga}/cancel", timeout=10).status_code == 202

        def answer_once_the_page_has_moved_on(route: Route) -> None:
            stack.ended(saga)
            page.evaluate("document.querySelectorAll('form').forEach((form) => form.remove())")
            route.continue_()

        page.route("**/cancel*", answer_once_the_page_has_moved_on)
        page.get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("alert")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_steps_are_a_column_and_nothing_is_cut_without_a_sign(
    open_page: Open, stack: Stack, stuck: str, scheme: str
) -> None:
    ended = stack.post_start("fail=b:after").json()["saga_id"]
    with open_page(color_scheme=scheme, viewport=SIZES["narrow"]) as page:
        for saga in (stuck, ended):
            page.goto(f"/ui/sagas/{saga}")
            expect(page.locator("#live")).to_have_class(re.compile("good"))
            a, b = (box(page, step).bounding_box() for step in "AB")
            assert a is not None
            assert b is not None
            assert b["y"] > a["y"] + a["height"]
            assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            for part in page.locator(".scroll.signed").all():
                cut = part.evaluate("element => element.scrollWidth > element.clientWidth")
                assert not cut or part.locator("xpath=preceding-sibling::*[1]").is_visible()
            check_accessibility(page)


LARGE_ENOUGH = "texts => texts.every(text => parseFloat(getComputedStyle(text).fontSize) >= 13)"
BOXES = """texts => texts.map(text => text.getBoundingClientRect()).filter(box => box.width)
                    .map(({x, y, width, height}) => ({x, y, width, height}))"""


def test_texts_of_a_drawing_do_not_overlap_and_are_large_enough(open_page: Open, stack: Stack) -> None:
    flags = ("fail=c:after", "fail=b:after&fail=a:undo:2", "mode=choreography&fail=c:after")
    sagas = [stack.post_start(flag).json()["saga_id"] for flag in flags]
    for size in SIZES.values():
        with open_page(viewport=size) as page:
            for saga in sagas:
                stack.ended(saga)  # so that nothing moves any more
                page.goto(f"/ui/sagas/{saga}")
                texts = page.locator("svg.sequence text")
                assert texts.evaluate_all(
                    "texts => texts.every(text => parseFloat(getComputedStyle(text).fontSize) >= 13)"
                )
                found = texts.evaluate_all(BOXES)
                assert len(found) > 10
                overlaps = [
                    (one, other) for n, one in enumerate(found) for other in found[n + 1 :] if overlap(one, other)
                ]
                assert not overlaps


def overlap(one: dict[str, float], other: dict[str, float]) -> bool:
    return (
        one["x"] + one["width"] > other["x"] + 1
        and other["x"] + other["width"] > one["x"] + 1
        and one["y"] + one["height"] > other["y"] + 3
        and other["y"] + other["height"] > one["y"] + 3
    )
