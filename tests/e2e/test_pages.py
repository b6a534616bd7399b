"""The page: a form that starts sagas, and what the log says of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import requests

from tests.conftest import databases
from tests.stack import Stack


@pytest.fixture(scope="module")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ports: Iterator[int]
) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("pages")
    made = Stack(databases(request, "sqlite", directory), directory, ports, {})
    made.start_all()
    yield made
    made.stop_all()


def start(stack: Stack, **form: str) -> requests.Response:
    return requests.post(f"{stack.url}/ui/start", data={"username": "ada", **form}, timeout=30)


def test_the_page_shows_what_the_log_says(stack: Stack) -> None:
    """Pitfall 19: a failure is shown as one, with its cause."""
    page = start(stack, fail="B:after")
    saga = stack.get("/sagas?limit=1").json()["sagas"][0]
    assert page.url.endswith(saga["saga_id"])
    for text in ("COMPENSATED", "injected: after", "action_unknown", "compensation_done"):
        assert text in page.text
    assert "COMPLETED" not in page.text
    listed = stack.get("/").text
    assert saga["saga_id"] in listed
    assert "injected: after" in listed


def test_a_hostile_name_is_shown_and_not_run(stack: Stack) -> None:
    page = start(stack, username="<script>alert(1)</script>")
    assert "<script>" not in page.text
    assert "COMPLETED" in page.text


def test_what_is_wrong_is_said_on_the_page(stack: Stack) -> None:
    page = start(stack, username="")
    assert page.status_code == 400
    assert "username is required" in page.text
    assert stack.get("/ui/sagas/nope").status_code == 404
