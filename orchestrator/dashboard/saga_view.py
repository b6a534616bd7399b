"""All that a page shows of one saga: its representation, what its log tells, and what the services have."""

from __future__ import annotations

from typing import Any

from orchestrator.dashboard.curl import flags_of
from orchestrator.dashboard.log_reader import attempts_of, read_history, with_gaps
from orchestrator.dashboard.saga_stats import stats_of
from orchestrator.dashboard.sequence import sequence
from orchestrator.dashboard.step_graph import step_graph
from orchestrator.dashboard.stuck import flight_of, stuck_at
from orchestrator.dashboard.summary import summarize
from orchestrator.dashboard.timeline import timeline
from orchestrator.dashboard.truth import agreements, violations
from orchestrator.parts import Orchestrator
from saga.errors import SagaUnreadable
from saga.machine import STALLED_AT_AN_ACTION, Line, State
from saga.payload import iso, mask
from saga.progress import secrets_of
from saga.saga_log import SagaLog
from saga.saga_row import SagaRow
from saga.unreadable import Unreadable
from saga.views.phrasing import Phrases
from saga.views.records import ask_all
from saga.views.representation import represent, represent_lines, under_way
from saga.views.step_words import sealed_steps, words_of_steps

FIRST_LINES, LATEST_LINES = 100, 200  # of a saga's log, on its page
RECORDS_WITHIN = 1.0  # seconds that a page waits for a participant's records

View = dict[str, Any]


def find_view(orchestrator: Orchestrator, saga_id: str) -> View:
    """What is shown of the saga with this id. Raises NoSuchSaga and SagaUnreadable."""
    saga = orchestrator.starter.read(saga_id)
    if isinstance(saga, Unreadable):
        raise SagaUnreadable(f"the saga {saga_id} cannot be read: {saga.reason}")
    return view_of(orchestrator, saga)


def view_of(orchestrator: Orchestrator, row: SagaRow) -> View:
    """What is shown of a saga; its services are asked what they have of it, for RECORDS_WITHIN at most."""
    lines = with_gaps(represent_lines(_lines(orchestrator.log, row), row))
    saga, history = represent(row), read_history(lines)
    clock = orchestrator.starter.deps.clock()
    now, stuck = None if row.ended else clock, stuck_at(row, saga, history, lines)
    sent, sealed = attempts_of(history), sealed_steps(lines)
    words = words_of_steps(saga, lines, sent, under_way(row))
    timeouts = {step.name: step.timeout for step in row.definition.steps}
    transport, token = orchestrator.starter.deps.transport, orchestrator.settings.token
    found = ask_all(row.definition, row.id, transport, token, RECORDS_WITHIN)
    orchestrator.health.report(row.id, violations(row, found))
    return {
        "saga": saga,
        "lines": lines,
        "steps": list(zip(row.definition.steps, saga["steps"], strict=True)),
        "say": Phrases(saga["mode"]),
        "graph": step_graph(saga, row.definition.steps, words),
        "summary": summarize(saga, lines),
        "timeline": timeline(saga, lines, now, timeouts),
        "diagram": sequence(saga, lines),
        "stats": stats_of(saga, lines),
        "parked": [] if row.ended else history.parked,
        "words": words,
        "sealed": sealed,
        "stuck": stuck,
        "story": summarize(saga, lines, in_a_panel=stuck is not None),
        "clock": clock,
        "flight": flight_of(row),
        "deadline_at": iso(row.deadline_at) if row.state is State.EXECUTING and not saga["overdue"] else None,
        "rows": mask(found, row.definition.secret, secrets_of(row)),
        "agreements": agreements(row, saga["steps"], found, sealed),
        "permitted_commands": orchestrator.operator.permitted_commands(row),
        "takes_a_result": row.state in STALLED_AT_AN_ACTION,
        "stalled_before": row.context.stalled and not row.ended,
        "flags": flags_of(row.definition),
        "snapshot": row.definition,
        "key": row.idempotency_key,
    }


def _lines(log: SagaLog, row: SagaRow) -> list[Line]:
    """The first and the latest lines of its log, and those between them that tell of what is parked now."""
    latest = max(FIRST_LINES, row.context.lines - LATEST_LINES)
    lines = log.lines(row.id, 0, FIRST_LINES)
    parked = [letter.line for letter in row.context.parked if FIRST_LINES < letter.line <= latest]
    lines += log.lines_at(row.id, parked) if parked else []
    return lines + log.lines(row.id, latest) if row.context.lines > FIRST_LINES else lines
