"""What the documents show is run: every command, and every row of the README's table."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support.stack import ROOT, Stack, impatient_sagas

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands() -> list[str]:
    """Every line of the documents that begins with curl or the saga command, in fences and in the text."""
    found: list[str] = []
    for page in PAGES:
        text = page.read_text()
        fences = "\n".join(re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
        found += re.findall(r"^((?:curl|\.venv/bin/saga) .*)$", fences, re.MULTILINE)
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        found += re.findall(r"`(curl [^`]+)`", prose)
    return found


pytestmark = pytest.mark.xdist_group("docs")


@pytest.fixture(scope="module")
def stack(make_shared_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    sagas = str(impatient_sagas(tmp_path_factory.mktemp("docs"), 1))
    return make_shared_stack("sqlite", broker=True, SAGAS_DIR=sagas, FAULT_HOLD_SECONDS="5", LEASE_SECONDS="3")


def test_there_are_commands_to_run() -> None:
    assert len(commands()) >= 10


@pytest.mark.parametrize("command", commands())
def test_every_curl_line_of_the_docs_runs(stack: Stack, command: str) -> None:
    """Pitfall 16."""
    for port, process in zip(
        (5000, 5001, 5002, 5003), ("orchestrator", "service_a", "service_b", "service_c"), strict=True
    ):
        command = command.replace(f"localhost:{port}", f"127.0.0.1:{stack.ports[process]}")
    words = shlex.split(command)
    if words[0] == "curl":
        words += ["--silent", "--show-error", "--output", "/dev/null", "--write-out", "%{http_code}"]
        stream = "/events" in command  # has no end: two seconds of it are enough
        run = subprocess.run([*words, *(["-m", "2"] * stream)], capture_output=True, text=True, timeout=60)
        assert run.returncode == (28 if stream else 0), run.stderr
        assert int(run.stdout) in ({500} if "fail=" in command and "wait=0" not in command else {200, 202})
    else:
        words = [sys.executable, "-m", "saga.cli", "--url", stack.url, *words[1:]]
        run = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert run.returncode == 0, run.stderr


def test_what_the_readme_breaks_at_one_service_it_undoes_again(stack: Stack) -> None:
    """Its own promise, that every table is as before, is not made untrue by a later example."""
    before = stack.counts()
    fence = re.search(r"```sh\n(curl[^`]*5002/invoke[^`]*)```", (ROOT / "README.md").read_text())
    assert fence
    lines = fence[1].strip().replace("by-hand", "by-another-hand").split("\n")
    for line, code, more in zip(lines, ("500", "200"), (1, 0), strict=True):
        words = shlex.split(line.replace("localhost:5002", f"127.0.0.1:{stack.ports['service_b']}"))
        words += ["--silent", "--output", "/dev/null", "--write-out", "%{http_code}"]
        assert subprocess.run(words, capture_output=True, text=True, timeout=60).stdout == code
        assert stack.counts() == {**before, "B": before["B"] + more}


def table() -> list[tuple[str, list[int]]]:
    """The README's "Break it": each flag, and the status codes that its row promises."""
    section = (ROOT / "README.md").read_text().partition("## Break it")[2].partition("## Your own")[0]
    rows = re.findall(r"^\| `(fail=[^`]+)` \| ([^|]+)\|$", section, re.MULTILINE)
    return [(flags, [int(code) for code in re.findall(r"\b([245]\d\d)\b", text.split(";")[0])]) for flags, text in rows]


@pytest.mark.parametrize(("flags", "codes"), table())
def test_what_the_readme_says_of_a_failure_is_what_happens(stack: Stack, flags: str, codes: list[int]) -> None:
    """Pitfall 2: every documented failure can be seen."""
    if "orchestrator" in flags:
        run = subprocess.run(
            ["curl", "-s", "-X", "POST", f"{stack.url}/start?{flags}", "-d", '{"username": "ada"}'], timeout=60
        )
        assert run.returncode != 0  # it died
        stack.await_ready("orchestrator")
        saga = stack.ended(stack.get("/sagas?limit=1").json()["sagas"][0]["saga_id"])
        codes, code = [200], 200 if saga["status"] == "COMPLETED" else 0
    else:
        answer = stack.post_start(flags)
        code = answer.status_code
        saga = stack.ended(answer.json()["saga_id"])
    assert code in codes
    found = [sum(row["saga_id"] == saga["saga_id"] for row in stack.rows(name)) for name in "ABC"]
    assert found == ([1, 1, 1] if saga["status"] == "COMPLETED" else [0, 0, 0])


LESSONS = sorted((ROOT / "docs" / "course").glob("[0-9]-*.md"))
Flags = frozenset[tuple[str, str]]


def starts(page: Path) -> list[str]:
    """The commands of a lesson that start a saga."""
    return re.findall(r"^curl -X POST .*$", page.read_text(), re.MULTILINE)


def flags_of(query: str) -> Flags:
    return frozenset(pair for pair in parse_qsl(query) if pair[0] != "wait")


def claims(page: Path) -> dict[Flags, dict[str, str]]:
    """What a lesson says of each saga: the answer to its caller, its end, and the rows of each service."""
    cell = r" ([^|]+) \|"
    rows = re.findall(rf"^\| `([^`]+)` \|{cell * 5}$", page.read_text(), re.MULTILINE)
    columns = ("code", "end", "A", "B", "C")
    return {
        flags_of("" if flags == "(no flag)" else flags): dict(zip(columns, claimed, strict=True))
        for flags, *claimed in rows
    }


@pytest.mark.parametrize(("page", "command"), [(page, line) for page in LESSONS for line in starts(page)])
def test_what_a_lesson_claims_is_what_happens(stack: Stack, page: Path, command: str) -> None:
    """By the very line that its reader pastes, against the services' own rows."""
    words = shlex.split(command.replace("localhost:5000", f"127.0.0.1:{stack.ports['orchestrator']}"))
    claimed = claims(page)[flags_of(urlsplit(next(word for word in words if "/start" in word)).query)]
    run = subprocess.run([*words, "-s", "-w", "\n%{http_code}"], capture_output=True, text=True, timeout=90)
    body, code = run.stdout.rsplit("\n", 1)
    assert run.returncode == 0, run.stderr
    assert code in claimed["code"], body
    saga = stack.ended(json.loads(body)["saga_id"])
    for process in ("service_b", "orchestrator") if "crash" in command or "orchestrator" in command else ():
        stack.await_ready(process)
    assert saga["status"] in claimed["end"]
    found = {step: sum(row["saga_id"] == saga["saga_id"] for row in stack.rows(step)) for step in "ABC"}
    assert len(set(found.values())) == 1  # all or nothing
    for step, number in found.items():
        assert str(number) in re.findall(r"\d+", claimed[step])


def test_each_claim_of_a_lesson_has_its_command_and_each_lesson_some() -> None:
    assert len(LESSONS) == 8
    for page in LESSONS:
        queries = [urlsplit(shlex.split(command)[3]).query for command in starts(page)]
        assert set(map(flags_of, queries)) == claims(page).keys()
        assert claims(page)
