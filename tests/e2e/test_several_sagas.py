"""An orchestrator with several sagas, none of them called `signup`, and one with a single saga of another name."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from tests.support.stack import ROOT, Stack, eventually


def sagas_called(directory: Path, *names: str) -> str:
    """A folder with the saga that ships, under each of these names; all but the first have steps of another name."""
    shipped = (ROOT / "orchestrator" / "sagas" / "signup.yaml").read_text()
    for name in names:
        text = shipped.replace("name: signup", f"name: {name}")
        text = text if name == names[0] else re.sub(r"- name: ([ABC])\b", rf"- name: {name.title()}\1", text)
        (directory / f"{name}.yaml").write_text(text)
    return str(directory)


pytestmark = pytest.mark.xdist_group("several sagas")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    return make_shared_stack("sqlite", SAGAS_DIR=sagas_called(tmp_path_factory.mktemp("several"), "orders", "returns"))


def page(stack: Stack, path: str) -> str:
    answer = stack.get(path)
    assert answer.status_code == 200, answer.text[:500]
    return html.unescape(answer.text)


def test_a_start_that_names_none_is_refused_with_the_names(stack: Stack) -> None:
    answer = requests.post(f"{stack.url}/start", json={"username": "ada"}, timeout=10)
    assert answer.status_code == 400
    assert answer.json() == {"error": "saga is required, because there are several: orders, returns", "field": "saga"}
    assert requests.post(f"{stack.url}/start?saga=orders", json={"username": "ada"}, timeout=30).status_code == 200


def test_break_it_shows_the_first_and_lets_its_reader_choose(stack: Stack) -> None:
    first, other = page(stack, "/ui/break-it"), page(stack, "/ui/break-it?saga=returns")
    for shown, name in ((first, "orders"), (other, "returns")):
        assert f'<input type="hidden" name="saga" value="{name}">' in shown
        assert 'href="/ui/break-it?saga=orders"' in shown
        assert 'href="/ui/break-it?saga=returns"' in shown
        assert f"/start?saga={name}" in shown


def test_a_service_is_tried_in_whichever_saga_has_it(stack: Stack) -> None:
    for service in ("a", "returnsa"):
        answer = requests.post(f"{stack.url}/test_status?service={service}", timeout=30)
        assert (answer.status_code, answer.json()["status_code"]) == (200, 200)
    answer = requests.post(f"{stack.url}/test_status?service=nope", timeout=30)
    assert answer.status_code == 400
    assert "A, B, C, ReturnsA" in answer.json()["error"]


def test_a_saga_of_ones_own_has_its_cards_and_they_are_right(stack: Stack) -> None:
    shown = page(stack, "/ui/break-it?saga=returns")
    assert "ReturnsB commits, then fails" in shown
    assert "/start?saga=returns&fail=returnsb:after" in shown
    for card, status in (("after-commit", "COMPENSATED"), ("in-doubt-pivot", "COMPLETED")):
        started = requests.post(f"{stack.url}/ui/start", data={"saga": "returns", "scenario": card}, timeout=30)
        path = started.url.removeprefix(stack.url)
        saga = stack.ended(path.rsplit("/", 1)[1].partition("?")[0])
        assert (saga["saga"], saga["status"]) == ("returns", status)
        assert "As the card said:" in page(stack, path)


def test_from_a_form_to_its_pages_and_back_the_saga_is_kept(stack: Stack) -> None:
    form = {"saga": "returns", "username": "ada", "payment": "4111", "kind-ReturnsB": "after"}
    started = requests.post(f"{stack.url}/ui/start", data=form, timeout=30)
    assert started.status_code == 200
    saga = stack.ended(started.url.rsplit("/", 1)[1])
    assert (saga["saga"], saga["status"]) == ("returns", "COMPENSATED")
    shown = page(stack, f"/ui/sagas/{saga['saga_id']}")
    assert 'href="/ui/break-it?saga=returns"' in shown
    assert "/start?saga=returns&fail=returnsb:after" in shown
    compared = requests.post(f"{stack.url}/ui/compare", data=form, timeout=30)
    assert compared.status_code == 200
    assert "says nothing any more" not in compared.text
    path = compared.url.removeprefix(stack.url)
    eventually(lambda: "It says ROLLED BACK" in page(stack, path))
    assert 'href="/ui/break-it?saga=returns"' in page(stack, path)
    assert 'href="/ui/break-it?saga=returns"' in page(stack, "/?saga=returns")


@pytest.mark.parametrize(
    "path", ["/", "/?saga=orders", "/?saga=gone", "/ui/health", "/ui/dead-letters", "/ui/break-it"]
)
def test_every_link_of_every_page_leads_somewhere(stack: Stack, path: str) -> None:
    links = set(re.findall(r'href="(/[^"#]*)"', page(stack, path)))
    assert len(links) >= 5
    for link in links:
        assert stack.get(link).status_code == 200, link


def test_a_single_saga_of_another_name_needs_no_name(make_stack: Callable[..., Stack], tmp_path: Path) -> None:
    directory = tmp_path / "single"
    directory.mkdir()
    stack = make_stack("sqlite", SAGAS_DIR=sagas_called(directory, "orders"))
    shown = page(stack, "/")
    assert f"curl -X POST {stack.url}/start -H" in shown
    assert requests.post(f"{stack.url}/start", json={"username": "ada"}, timeout=30).status_code == 200
    assert '<input type="hidden" name="saga" value="orders">' in page(stack, "/ui/break-it")
    assert requests.post(f"{stack.url}/test_status?service=a", timeout=30).status_code == 200
