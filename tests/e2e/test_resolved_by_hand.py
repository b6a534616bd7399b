"""An operator says that a step is undone, and it is not: the light, the audit and the saga's page say so at once."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from tests.support.stack import ROOT, Stack, eventually

MakeStack = Callable[..., Stack]
WRONG = "the log says undone, A has 1 row"


def made_stuck(stack: Stack) -> str:
    """A saga whose A cannot be undone."""
    saga = stack.post_start("fail=b&fail=a:undo&wait=0").json()["saga_id"]
    eventually(lambda: stack.saga(saga)["status"] == "STALLED")
    return str(saga)


def resolve(stack: Stack, saga: str) -> None:
    answer = requests.post(f"{stack.url}/sagas/{saga}/resolve", json={"note": "done by hand"}, timeout=10)
    assert answer.status_code == 202, answer.text


def light(stack: Stack, path: str = "/ui/health") -> str:
    return re.search(r"all or nothing (\w+ \w+|holds)", stack.get(path).text)[1]  # type: ignore[index]


@pytest.fixture
def stack(make_stack: MakeStack) -> Iterator[Stack]:
    made = make_stack("sqlite", STALL_BASE_SECONDS="60")
    made.post_start()
    eventually(lambda: "all or nothing holds" in made.get("/ui/health").text)
    yield made


def test_the_light_is_red_in_the_next_page_that_is_asked_for(stack: Stack) -> None:
    """Whatever page it is, and however lately it was looked at before."""
    saga = made_stuck(stack)
    assert light(stack) == "holds"
    resolve(stack, saga)
    stack.ended(saga)
    assert light(stack, "/") == "is broken"
    shown = html.unescape(stack.get("/ui/health").text)
    assert saga in shown
    assert "It is broken at 1 step." in shown
    assert [(each["step"], each["found"]) for each in stack.get("/audit").json()["violations"]] == [("A", 1)]


def test_the_sagas_page_says_it_and_turns_its_own_light_red(stack: Stack) -> None:
    saga = made_stuck(stack)
    path = f"/ui/sagas/{saga}"
    assert html.unescape(stack.get(path).text).count("not settled yet") == 3
    noted = requests.post(stack.url + f"{path}/resolve", data={"note": "done by hand"}, timeout=10)
    assert noted.url == stack.url + path
    stack.ended(saga)
    shown = html.unescape(stack.get(path).text)
    assert f"✖</span> {WRONG}" in shown
    assert shown.count("✔</span> as the log says") == 2
    assert "all or nothing is broken" in shown


def test_a_row_that_comes_back_behind_the_audits_back_is_seen_on_the_sagas_page(stack: Stack) -> None:
    """A saga once found right is not asked about again; whoever looks at it asks all the same."""
    saga = stack.post_start("fail=b").json()["saga_id"]
    eventually(lambda: "3 ended sagas checked" in stack.get("/ui/health").text or light(stack) == "holds")
    headers = {"Saga-Id": f"{saga}", "Saga-Step": "Other"}
    requests.post(f"{stack.url_of('service_a')}/invoke", json={"username": "ada"}, headers=headers, timeout=10)
    assert WRONG in html.unescape(stack.get(f"/ui/sagas/{saga}").text)
    assert light(stack) == "is broken"


def test_a_step_that_was_really_undone_by_hand_leaves_it_green(stack: Stack) -> None:
    saga = made_stuck(stack)
    headers = {"Saga-Id": saga, "Saga-Step": "A"}
    requests.post(f"{stack.url_of('service_a')}/compensate", json={"user_id": 1}, headers=headers, timeout=10)
    resolve(stack, saga)
    stack.ended(saga)
    assert light(stack) == "holds"
    assert (
        "✖"
        not in html.unescape(stack.get(f"/ui/sagas/{saga}").text).partition("The truth")[2].partition("</section>")[0]
    )


def test_a_step_can_say_that_it_leaves_no_record_or_that_nobody_asks(make_stack: MakeStack, tmp_path: Path) -> None:
    (tmp_path / "sagas").mkdir()
    shipped = (ROOT / "orchestrator" / "sagas" / "signup.yaml").read_text()
    for name, records in {"strange": "none", "unasked": "skip"}.items():
        changed = re.sub(r"(  - name: B\b.*\n)", rf"\1    records: {records}\n", shipped)
        (tmp_path / "sagas" / f"{name}.yaml").write_text(changed.replace("name: signup", f"name: {name}"))
    stack = make_stack("sqlite", SAGAS_DIR=str(tmp_path / "sagas"))
    strange, unasked = (stack.post_start(f"saga={name}").json()["saga_id"] for name in ("strange", "unasked"))
    found = stack.get("/audit").json()
    wrong = {"saga_id": strange, "step": "B", "status": "COMPLETED", "expected": "no record", "found": 1}
    assert found == {"checked": 2, "violations": [wrong], "unreachable": []}
    assert "not compared (records: skip)" in html.unescape(stack.get(f"/ui/sagas/{unasked}").text)
