"""The definition that POST /start runs, by its flags; the API and the page "Break it" use it."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.parts import Orchestrator
from saga.definition import SagaDefinition
from saga.faults.flags import parse_plan


def definition_to_start(
    orchestrator: Orchestrator, saga: str | None, mode: str | None, fail: Sequence[str], delay: Sequence[str]
) -> SagaDefinition:
    """Return the saga called `saga`, in this mode, with the failures that `fail` and `delay` inject.

    Raises BadInput that names the flag that is wrong, and Forbidden where failures are injected but FAULTS is off.
    """
    definition = orchestrator.definition(saga)
    plan = parse_plan(fail, delay, [step.name for step in definition.steps], orchestrator.settings.faults)
    return definition.with_faults(plan.queries(), plan.orchestrator).in_mode(orchestrator.mode(mode))
