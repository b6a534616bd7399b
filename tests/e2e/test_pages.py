"""The pages as HTTP: what a browser is told, what is refused, and what is answered where there is nothing."""

from __future__ import annotations

import html
import http
import re
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest
import requests

from orchestrator.app import create_app
from saga.errors import LogUnavailable
from saga.process.settings import load_settings
from saga.views.saga_search import SagaSearch
from tests.support.stack import Stack, eventually

pytestmark = pytest.mark.xdist_group("pages")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack]) -> Stack:
    return make_shared_stack("sqlite")


def start(stack: Stack, headers: dict[str, str] | None = None, **form: str) -> requests.Response:
    return requests.post(f"{stack.url}/ui/start", data={"username": "ada", **form}, headers=headers, timeout=30)


def test_the_page_shows_what_the_log_says(stack: Stack) -> None:
    """Pitfall 19: a failure is shown as one, with its cause."""
    page = start(stack, fail="B:after")
    saga = stack.get("/sagas?limit=1").json()["sagas"][0]
    assert page.url.endswith(saga["saga_id"])
    stack.ended(saga["saga_id"])
    page = requests.get(page.url, timeout=10)
    for text in ("COMPENSATED", "injected: after", "action_unknown", "compensation_done"):
        assert text in page.text
    assert "COMPLETED" not in page.text
    listed = stack.get("/").text
    assert saga["saga_id"] in listed
    assert "injected: after" in listed


def test_nothing_inline_runs_and_nothing_of_another_site_is_loaded(stack: Stack) -> None:
    page = stack.get("/ui/break-it")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert "style=" not in page.text
    assert "onclick" not in page.text


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({}, 200),
    ],
)
def test_forms_of_other_sites_are_refused(stack: Stack, headers: dict[str, str], code: int) -> None:
    before = len(stack.get("/sagas?limit=500").json()["sagas"])
    assert start(stack, headers).status_code == code
    assert requests.post(f"{stack.url}/start", json={"username": "x"}, headers=headers).status_code == code
    after = len(stack.get("/sagas?limit=500").json()["sagas"])
    assert after - before == (2 if code == 200 else 0)


def test_what_is_wrong_is_said_on_the_page(stack: Stack) -> None:
    page = start(stack, username="")
    assert page.status_code == 400
    assert "username is required" in page.text
    for path, code in {"/ui/sagas/nope": 404, "/ui/compare/nope?saga=nope": 404, "/?status=odd": 400}.items():
        answer = stack.get(path)
        assert (answer.status_code, answer.headers["Content-Type"][:9]) == (code, "text/html")
    saga = stack.post_start().json()["saga_id"]
    for verb, code in {"cancel": 409, "resume": 409, "resolve": 400, "explode": 400}.items():
        answer = requests.post(f"{stack.url}/ui/sagas/{saga}/{verb}", timeout=10)
        assert answer.status_code == code
        assert "notice" in answer.text or verb in answer.text
    assert requests.post(f"{stack.url}/ui/sagas/nope/cancel", timeout=10).status_code == 404


def check_error_page(answer: requests.Response, code: int, *texts: str) -> None:
    """A page in the house style, whose title and heading are its own, and which says what is wrong."""
    assert (answer.status_code, answer.headers["Content-Type"][:9]) == (code, "text/html"), answer.text[:300]
    title = re.search("<title>(.*)</title>", answer.text)[1]  # type: ignore[index]
    assert title == http.HTTPStatus(code).phrase.replace("Content", "Entity")
    assert f"<h1>{title}</h1>" in answer.text
    assert 'href="/"' in answer.text
    for text in texts:
        assert text in html.unescape(answer.text)


@pytest.mark.parametrize(
    "path", ["/ui", "/ui/", "/ui/nope", "/ui/sagas/", "/ui/sagas/nope", "/ui/sagas/%00", "/ui/both/a/b"]
)
def test_an_unknown_address_is_a_page(stack: Stack, path: str) -> None:
    check_error_page(stack.get(path), 404)


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("/?status=odd", ["there is no status 'odd'", "COMPENSATED"]),
        ("/?before=zzz", ["before must be the saga_id"]),
        ("/?before=%00", ["before must be the saga_id"]),
        ("/?attention=yes", ["attention must be 1"]),
        ("/ui/break-it?saga=nope", ["there is no saga 'nope'; there is signup"]),
        ("/ui/break-it?mode=nope", ["mode must be orchestration or choreography"]),
        ("/ui/isolation?lock=maybe", ["lock must be off or on"]),
        ("/ui/isolation?world=both&show=dirty", ["there is no such order"]),
        ("/ui/isolation?world=both&show=lost&n=13", ["there are 12 such orders"]),
        ("/ui/isolation?world=both&show=lost&n=0", ["n must be a number"]),
    ],
)
def test_an_odd_value_in_a_pages_query_is_a_page_that_says_which(stack: Stack, path: str, texts: list[str]) -> None:
    check_error_page(stack.get(path), 400, *texts)


def test_the_empty_fields_of_the_search_form_are_no_values(stack: Stack) -> None:
    assert stack.get("/?status=&saga=&q=&before=&attention=").status_code == 200


@pytest.mark.parametrize("before", ["zzz", "1", "019ac000-0000-7000-8000-00000000000g", "\x00"])
def test_before_must_look_like_the_id_of_a_saga(stack: Stack, before: str) -> None:
    answer = requests.get(f"{stack.url}/sagas", params={"before": before}, timeout=10)
    assert (answer.status_code, answer.json()["field"]) == (400, "before")
    assert repr(before) in answer.json()["error"]


def test_before_gives_the_next_page_in_either_case_of_its_letters(stack: Stack) -> None:
    older, newer = (stack.post_start().json()["saga_id"] for _ in range(2))
    for before in (newer, newer.upper()):
        found = stack.get(f"/sagas?limit=1&before={before}").json()["sagas"]
        assert [saga["saga_id"] for saga in found] == [older]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/ui/break-it", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("POST", "/ui/health", {"GET", "HEAD", "OPTIONS"}),
        ("PUT", "/ui/sagas/some/cancel", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("POST", "/", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_a_method_that_a_page_has_not_is_a_page_that_names_those_it_has(
    stack: Stack, method: str, path: str, allowed: set[str]
) -> None:
    answer = requests.request(method, stack.url + path, timeout=10)
    check_error_page(answer, 405)
    assert set(answer.headers["Allow"].split(", ")) == allowed


def test_the_api_names_the_methods_that_it_has(stack: Stack) -> None:
    answer = requests.delete(f"{stack.url}/start", timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"]) == (405, "application/json")
    assert set(answer.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


def test_too_large_a_form_is_a_page(stack: Stack) -> None:
    check_error_page(start(stack, username="a" * (1 << 20)), 413)


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/ui/sagas/{saga}/cancel", "/ui/sagas/{saga}"),
        ("/ui/sagas/{saga}/resume", "/ui/sagas/{saga}"),
        ("/ui/sagas/{saga}/resolve", "/ui/sagas/{saga}"),
        ("/ui/start", "/ui/break-it"),
        ("/ui/both", "/ui/break-it"),
        ("/ui/compare", "/ui/break-it"),
        ("/ui/compare/{saga}/sweep?lesson=3", "/ui/compare/{saga}?lesson=3"),
        ("/ui/again/{saga}", "/ui/break-it"),
        ("/ui/dead-letters/7/replay", "/ui/dead-letters"),
    ],
)
def test_the_address_that_a_refused_form_leaves_leads_back_to_its_page(stack: Stack, path: str, target: str) -> None:
    """Where a browser asks for it, by reloading for example."""
    saga = stack.post_start().json()["saga_id"]
    answer = requests.get(stack.url + path.format(saga=saga), allow_redirects=False, timeout=10)
    assert (answer.status_code, answer.headers["Location"]) == (302, target.format(saga=saga))
    assert requests.get(stack.url + path.format(saga=saga), timeout=10).status_code == 200


def test_a_verb_that_there_is_not_has_no_address(stack: Stack) -> None:
    saga = stack.post_start().json()["saga_id"]
    check_error_page(stack.get(f"/ui/sagas/{saga}/explode"), 404)
    check_error_page(stack.get("/ui/sagas/nope/cancel"), 404, "there is no saga 'nope'")


def test_a_bug_and_a_log_that_is_away_are_pages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_settings({"SAGA_LOG_URL": f"sqlite:///{tmp_path}/log.db", "NATS_URL": "off"})
    app = create_app(settings)
    try:
        client = app.test_client()
        for raised, code in {
            ZeroDivisionError("an inner detail"): 500,
            LogUnavailable("the saga log is away"): 503,
        }.items():
            monkeypatch.setattr(SagaSearch, "find", Mock(side_effect=raised))
            for path, kind in {"/": "text/html", "/sagas": "application/json"}.items():
                answer = client.get(path)
                assert (answer.status_code, answer.mimetype) == (code, kind)
                assert "an inner detail" not in answer.text
                assert ("the saga log is away" in answer.text) == (code == 503)
                assert answer.headers.get("Retry-After") == {503: "5"}.get(code)
    finally:
        app.close()  # type: ignore[attr-defined]


def test_the_light_is_green_until_a_service_says_otherwise(stack: Stack) -> None:
    """The services' own rows decide: one that has lost a row of a completed saga turns the light red."""
    stack.post_start()
    eventually(lambda: "all or nothing holds" in stack.get("/").text)
    assert "ready" in stack.get("/ui/health").text
    stack.kill("service_b")
    eventually(lambda: "not reachable" in stack.get("/ui/health").text)
    stack.start("service_b")
    saga = stack.post_start().json()["saga_id"]
    headers = {"Saga-Id": saga, "Saga-Step": "B"}
    undone = requests.post(f"{stack.url_of('service_b')}/compensate", json={"user_id": 1}, headers=headers, timeout=10)
    assert undone.status_code == 200
    eventually(lambda: "all or nothing is broken" in stack.get("/").text)
    assert saga in stack.get("/ui/health").text
