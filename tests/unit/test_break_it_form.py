"""What the page "Break it" starts from its forms."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from orchestrator.app import register
from orchestrator.dashboard import break_it_page
from saga.definition import SagaDefinition
from tests.support.world import INPUT, signup


@pytest.mark.parametrize("mode", ["orchestration", "choreography"])
def test_both_modes_are_started_alike_whichever_mode_the_form_has(mode: str) -> None:
    """The orchestrated one on the engine that is set."""
    started: list[tuple[str, str]] = []

    def start(definition: SagaDefinition, body: dict[str, Any]) -> str:
        started.append((definition.mode, definition.engine))
        return f"saga-{len(started)}"

    parts: Any = SimpleNamespace(
        definition=lambda name: signup().on_engine("temporal"),
        mode=lambda name: name,
        starter=SimpleNamespace(start=start),
        settings=SimpleNamespace(faults=True),
        check_start=lambda definition: None,
    )
    app = Flask(__name__)
    register(app, {break_it_page.blueprint: {"orchestrator": parts}})
    answer = app.test_client().post("/ui/both", data={**INPUT, "mode": mode})
    assert (answer.status_code, answer.location) == (303, "/ui/both/saga-1/saga-2")
    assert started == [("orchestration", "temporal"), ("choreography", "builtin")]
