"""The command that starts the same again, run by real shells against a stand-in for curl."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.dashboard.curl import curl, flags_of
from saga.definition import SagaDefinition, Step
from saga.faults.flags import parse_plan
from saga.payload import mask

URL = "http://localhost:5000/start"
SHELLS = [shell for shell in ("sh", "bash", "zsh") if shutil.which(shell)]


@pytest.fixture(scope="module")
def bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `curl` that prints its arguments."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "curl").write_text('#!/bin/sh\nprintf "%s\\0" "$@"\n')
    (folder / "curl").chmod(0o755)
    return folder


def arguments(bin: Path, shell: str, line: str, **environ: str) -> list[str]:
    env = {"PATH": f"{bin}:/usr/bin:/bin", "LC_ALL": "C.UTF-8", **environ}
    ran = subprocess.run([shell, "-c", line], env=env, capture_output=True, timeout=30, check=True)
    assert not ran.stderr
    return ran.stdout.decode().split("\0")[:-1]


def saga(input: dict[str, Any] | None = None, *secret: str) -> SagaDefinition:
    return SagaDefinition("signup", (Step("A", "http://a/invoke", "http://a/compensate"),), input, secret)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_pasted_sends_the_body_with_the_secret_in_its_place(bin: Path, shell: str) -> None:
    shown = mask({"username": "ada o'neil $HOME `id`", "payment": "4111"}, ["payment"])
    made = curl(URL, [("fail", "b:after"), ("mode", "choreography")], shown, saga(None, "payment"), "order 7's")
    assert made.variables == ("PAYMENT",)
    assert """"payment": "'"$PAYMENT"'"}'""" in made.line
    assert "***" not in made.line
    assert arguments(bin, shell, made.line, PAYMENT="41 11") == [
        *("-X", "POST", f"{URL}?fail=b:after&mode=choreography"),
        *("-H", "content-type: application/json", "-H", "Idempotency-Key: order 7's"),
        *("-d", '{"username": "ada o\'neil $HOME `id`", "payment": "41 11"}'),
    ]


def test_a_secret_that_is_no_text_has_no_quotation_marks_and_each_has_a_name_of_its_own(bin: Path) -> None:
    schema = {
        "properties": {
            "pin": {"type": "integer"},
            "card": {"type": "object", "properties": {"number": {"type": "string"}, "pin": {"type": "number"}}},
        }
    }
    shown = mask(
        {"pin": 1, "card": {"number": "4", "pin": 2}, "path": "/x", "é-mail": "e"}, ["pin", "number", "path", "é-mail"]
    )
    made = curl(URL, [], shown, saga(schema, "pin", "number", "path", "é-mail"))
    assert made.variables == ("PIN", "CARD_NUMBER", "CARD_PIN", "SECRET_PATH", "SECRET___MAIL")
    given_ = {"PIN": "1", "CARD_NUMBER": "4", "CARD_PIN": "2.5", "SECRET_PATH": "/x", "SECRET___MAIL": "e"}
    body = json.loads(arguments(bin, "sh", made.line, **given_)[-1])
    assert body == {"pin": 1, "card": {"number": "4", "pin": 2.5}, "path": "/x", "é-mail": "e"}


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
)
BODIES = st.dictionaries(
    st.sampled_from(["username", "payment", "a b", "$(id)", "'"]),
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BODIES)
def test_whatever_the_body_is_the_shell_sends_just_that(bin: Path, body: dict[str, Any]) -> None:
    body = {**body, **({"payment": "4111"} if "payment" in body else {})}
    made = curl(URL, [], mask(body, ["payment"]), saga(None, "payment"))
    assert json.loads(arguments(bin, "sh", made.line, PAYMENT="4111")[-1]) == body


def test_the_flags_are_those_that_the_saga_was_started_with() -> None:
    steps = tuple(Step(name, f"http://{name}/invoke", f"http://{name}/compensate") for name in "ABC")
    plan = parse_plan(["b:after:2", "a:undo:3", "orchestrator:after-b"], ["c:20"], ["A", "B", "C"], enabled=True)
    definition = SagaDefinition("signup", steps).with_faults(plan.queries(), plan.orchestrator)
    assert sorted(flags_of(definition)) == [
        ("delay", "c:20"), ("fail", "a:undo:3"), ("fail", "b:after:2"), ("fail", "orchestrator:after-b"),
    ]  # fmt: skip
    assert flags_of(definition.in_mode("choreography"))[0] == ("mode", "choreography")
