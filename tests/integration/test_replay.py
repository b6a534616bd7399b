"""Sagas that are under way go on with the code of today: recorded histories are replayed through the workflow.

Where this fails, a change of the workflow, or of the machine under it, would break sagas that were started before it:
see docs/temporal.md, "Changing the code".
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from temporalio.client import WorkflowHistory
from temporalio.worker import Replayer
from temporalio.workflow import NondeterminismError

from saga import machine
from saga.machine import Event, Move, State
from saga.temporal.workflow import SagaWorkflow
from tests.record_histories import HISTORIES, SAGAS

RECORDED = sorted(HISTORIES.glob("*.json"))


def replay(path: Path) -> None:
    history = json.loads(path.read_text())
    recorded = WorkflowHistory.from_json(history.pop("workflow_id"), history)
    asyncio.run(Replayer(workflows=[SagaWorkflow]).replay_workflow(recorded))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_a_saga_under_way_goes_on_with_the_code_of_today(path: Path) -> None:
    replay(path)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_nothing_is_written_elsewhere_that_the_history_does_not_have_yet(path: Path) -> None:
    events = json.loads(path.read_text())["events"]
    kinds = [event["eventType"] for event in events]
    assert "EVENT_TYPE_MARKER_RECORDED" not in kinds  # of a local activity
    assert "project" in [
        event["activityTaskScheduledEventAttributes"]["activityType"]["name"]
        for event in events
        if "activityTaskScheduledEventAttributes" in event
    ]


def test_there_is_a_history_of_each_kind() -> None:
    assert {path.stem for path in RECORDED} >= {name.replace(" ", "_") for name in SAGAS}


def test_a_machine_that_decides_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    changed: Mapping[tuple[State, Event], tuple[State, Move]] = {
        **machine.TRANSITIONS,
        (State.EXECUTING, Event.ACTION_UNKNOWN): (State.COMPENSATING, Move.PREVIOUS),
    }
    monkeypatch.setattr(machine, "TRANSITIONS", changed)
    with pytest.raises(NondeterminismError):
        replay(HISTORIES / "a_step_in_doubt_is_compensated.json")
