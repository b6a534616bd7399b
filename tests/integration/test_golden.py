"""Everything that is sent, written and observed while a saga is driven, word for word: `drives.golden.json`.

A change in it is a change of the participant contract, of the log, or of what the API shows: it should be one that
was meant. UPDATE_GOLDEN=1 writes the file anew.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saga.driver import DriverDeps
from saga.http_client.transport import HttpAnswer
from saga.machine import Line
from saga.saga_row import SagaRow
from tests.support.world import INPUT, Points, World, signup

GOLDEN = Path(__file__).parent / "drives.golden.json"
DRIVES = {
    "it completes": "",
    "B fails after its commit": "b:after",
    "B refuses": "b:refuse",
    "B fails once": "b:before:1",
    "the pivot is in doubt, and had committed": "c:after",
    "the pivot acts too late, and had committed": "c:late",
    "a compensation stalls, twice": "b:after&a:undo:7",
    "sealing stalls": "c:late&c:undo:4",
    "the answer is garbage": "b:garbage",
    "the orchestrator exits before B": "orchestrator:before-b",
    "the orchestrator exits after B": "orchestrator:after-b",
    "the orchestrator exits around undoing A": "b:refuse&orchestrator:before-undo-a&orchestrator:after-undo-a",
}


class LogWriter(World):
    """A world that writes down what it sees; times count from the saga's start."""

    def __init__(self, directory: Path):
        super().__init__(directory)
        self.start_time = self.now
        self.seen: list[Any] = []

    def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float, epoch: int) -> HttpAnswer:
        shown = {**headers, "traceparent": headers["traceparent"][:36]}  # what follows is random
        self.seen.append({"call": url, "headers": shown, "body": body.decode(), "timeout": timeout})
        return super().post(url, headers, body, timeout, epoch)

    def deps(self, *args: Any, **kwargs: Any) -> DriverDeps:
        return replace(super().deps(*args, **kwargs), observe=self.observed, token="token")

    def observed(self, row: SagaRow, line: Line) -> None:
        self.seen.append({"line": {**vars(line), "at": self.since(line.at)}, "saga": self.shown(row)})

    def shown(self, row: SagaRow) -> dict[str, Any]:
        times = {name: self.since(getattr(row, name)) for name in ("due_at", "ended_at", "deadline_at")}
        fixed = ("definition", "input", "started_at")
        context = row.context.as_json()
        for told in (context, *context["steps"].values()):
            told |= {name: self.since(told[name]) for name in told if name == "at" or name.endswith("_at")}
        kept = {key: value for key, value in vars(row).items() if key not in fixed}
        return {**kept, **times, "context": context}

    def since(self, at: float | None) -> float | None:
        return None if at is None else round(at - self.start_time, 3)


def told(world: LogWriter, saga_id: str | None) -> Any:
    assert saga_id
    row = world.finish(saga_id)
    lines = [{**vars(line), "at": world.since(line.at)} for line in world.log.lines(saga_id)]
    return json.loads(json.dumps({"seen": world.seen, "log": lines, "saga": world.shown(row)}))


def drive(directory: Path, name: str) -> Any:
    world = LogWriter(directory)
    try:
        if name == GOES_ON:
            a, b, c = world.definition.steps
            world.definition = signup(steps=(a, c, replace(b, timeout=3.0, backoff=0.7)))
            return told(world, world.start("c:after&b:before:4"))
        if name == TOO_LATE:
            world.definition = signup(deadline=6.0)
            return told(world, world.start("b:lost"))
        if name == CRASHES:
            world.point = Points(7)
            saga_id = world.start("", {**INPUT, "address": "Straße 1"})
            world.point = lambda _: None
            return told(world, saga_id)
        return told(world, world.start(DRIVES[name]))
    finally:
        world.close()


def written(drives: Mapping[str, Any]) -> str:
    """As JSON, a line for each thing that was seen."""

    def items(each: list[Any]) -> str:
        return ",\n  ".join(json.dumps(item, ensure_ascii=False) for item in each)

    parts = [
        f'{json.dumps(name)}: {{\n "seen": [\n  {items(each["seen"])}],\n "log": [\n  {items(each["log"])}],\n'
        f' "saga": {items([each["saga"]])}}}'
        for name, each in drives.items()
        if each
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


CRASHES = "it crashes in the middle of a call"
GOES_ON = "the pivot stands in the middle, is in doubt, had committed, and what follows it stalls"
TOO_LATE = "the deadline passes while B does not answer"
NAMES = [*DRIVES, CRASHES, GOES_ON, TOO_LATE]


@pytest.mark.parametrize("name", NAMES)
def test_a_drive_is_word_for_word_as_ever(tmp_path: Path, name: str) -> None:
    found = drive(tmp_path, name)
    known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    if os.environ.get("UPDATE_GOLDEN"):
        known = {each: known.get(each) for each in NAMES} | {name: found}
        GOLDEN.write_text(written(known))
    assert found == known[name]
