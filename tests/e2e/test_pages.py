"""The pages as HTTP: what a browser is told, what is refused, and what is answered where there is nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.conftest import databases
from tests.stack import Stack, eventually


@pytest.fixture(scope="module")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ports: Iterator[int]
) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("pages")
    made = Stack(databases(request, "sqlite", directory), directory, ports, {})
    made.start_all()
    yield made
    made.stop_all()


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
    page = stack.get("/ui/lab")
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
