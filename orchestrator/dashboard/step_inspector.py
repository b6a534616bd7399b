"""What the inspector shows: one step of a saga with its calls, the newest attempt first, or one line of its log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from orchestrator.attempt_lines import line_at, why_not_kept
from orchestrator.dashboard.attempts import answer_of
from orchestrator.dashboard.formatting import length
from orchestrator.dashboard.log_reader import state_of
from orchestrator.dashboard.machine_in_words import in_words
from orchestrator.dashboard.stuck import Flight, flight_of
from orchestrator.parts import Orchestrator
from saga.definition import Step
from saga.errors import NoSuchLine
from saga.machine import ATTEMPT, STALLED, Direction, Event
from saga.payload import mask
from saga.progress import secrets_of
from saga.runtime.kept_exchanges import KeptExchanges
from saga.saga_row import SagaRow
from saga.views.lines import ShownLine, detail_of
from saga.views.phrasing import Phrases
from saga.views.representation import represent, represent_lines, under_way
from saga.views.step_words import StepWords, words_of_steps

LINES_AT_MOST = 60  # of a step, in the panel
NEWER_AT_MOST = 30  # of them, those above the line that is asked for


@dataclass(frozen=True)
class InspectedLine:
    """A line of the panel. `title` says in words what it is, `state` what the machine made of it, `then` what followed.

    Of an attempt: `request` and `response` are None where they were not kept, and `absent` says why. The one that is
    asked for is `unfolded`, else the newest that was kept.
    """

    line: ShownLine
    title: str
    attempt: bool = False
    outcome: str = ""
    state: str = ""
    then: str = ""
    request: Mapping[str, Any] | None = None
    response: Mapping[str, Any] | None = None
    absent: str = ""
    unfolded: bool = False


@dataclass(frozen=True)
class Inspected:
    """A step, with its lines newest first; of a line that belongs to no step only that line, and `step` is None.

    `words` are those for its status. `seq` is the line that was asked for, None where it was a step. `flight` is the
    attempt that may be under way, as of the time `clock`. `older` is a line to go on from, None where there is none.
    """

    step: Step | None
    shown: Mapping[str, Any] | None
    words: StepWords | None
    result: Mapping[str, Any] | None
    lines: Sequence[InspectedLine]
    seq: int | None
    older: int | None
    flight: Flight | None
    say: Phrases
    clock: float


def inspect_step(orchestrator: Orchestrator, row: SagaRow, name: str, seq: int | None = None) -> Inspected:
    """Return what is shown of the step `name`, around the line `seq` where one is given. Raises NoSuchLine."""
    index = next((index for index, step in enumerate(row.definition.steps) if step.name == name), None)
    if index is None:
        raise NoSuchLine(f"the saga {row.id} has no step {name!r}")
    before = None if seq is None else seq + NEWER_AT_MOST
    found = orchestrator.lines.of_saga(row.id, before, LINES_AT_MOST + 1, name)
    lines = represent_lines(found[:LINES_AT_MOST], row)
    saga, flight = represent(row), flight_of(row)
    result = row.results.get(name)
    return Inspected(
        step=row.definition.steps[index],
        shown=saga["steps"][index],
        words=words_of_steps(saga, lines[::-1], under_way=under_way(row))[name],
        result=None if result is None else mask(dict(result), row.definition.secret, secrets_of(row)),
        lines=_inspected(lines, row, orchestrator.exchanges, seq),
        seq=seq,
        older=found[LINES_AT_MOST].seq if len(found) > LINES_AT_MOST else None,
        flight=flight if flight and flight.step == name and seq is None else None,
        say=Phrases(row.definition.mode),
        clock=orchestrator.starter.deps.clock(),
    )


def inspect_line(orchestrator: Orchestrator, row: SagaRow, seq: int) -> Inspected:
    """Return what is shown of the line `seq`: its step, or the line alone where it has none. Raises NoSuchLine."""
    line = line_at(orchestrator.log, row, seq)
    if line.step in [step.name for step in row.definition.steps]:
        return inspect_step(orchestrator, row, str(line.step), seq)
    lines = _inspected(represent_lines([line], row), row, orchestrator.exchanges, seq)
    clock = orchestrator.starter.deps.clock()
    return Inspected(None, None, None, None, lines, seq, None, None, Phrases(row.definition.mode), clock)


def _inspected(
    lines: Sequence[ShownLine], row: SagaRow, exchanges: KeptExchanges, seq: int | None
) -> list[InspectedLine]:
    """Return the lines, newest first as they are given, each with what there is to say of it."""
    say = Phrases(row.definition.mode)
    kept = exchanges.find(row.id, [line["seq"] for line in lines if line["event"] == ATTEMPT])
    newest = max(kept, default=None) if seq is None else seq
    made: list[InspectedLine] = []
    following: ShownLine | None = None
    for line in lines:
        then = _then(line, following)
        if line["event"] != ATTEMPT:
            title = in_words(line, row.definition.mode)
            made.append(InspectedLine(line, title, state=state_of(line), then=then))
        else:
            request, response = kept.get(line["seq"], (None, None))
            made.append(
                InspectedLine(
                    line,
                    _title(line),
                    attempt=True,
                    outcome=answer_of(line, say),
                    then=then,
                    request=request,
                    response=response,
                    absent="" if request else why_not_kept(line, row, exchanges),
                    unfolded=line["seq"] == newest,
                )
            )
        following = line
    return made


def _title(line: ShownLine) -> str:
    undoing = detail_of(line).get("call") == Direction.COMPENSATION
    return f"{'undo, ' if undoing else ''}attempt {line['attempt']}"


def _then(line: ShownLine, following: ShownLine | None) -> str:
    """Return how long it was until the next attempt or round began, and what is missing between two attempts."""
    if following is None or not (line["at"] and following["at"]):
        return ""
    waited = max(0.0, _seconds(following["at"]) - _seconds(line["at"]) - (following["duration_ms"] or 0) / 1000)
    if (state_of(line) in STALLED) and following["event"] == Event.RESUMED:
        return f"rested {length(waited)}"
    if line["event"] != ATTEMPT or following["event"] != ATTEMPT:
        return ""
    missing = (following["attempt"] or 0) - (line["attempt"] or 0) - 1
    if missing > 0:
        return f"then {'an attempt' if missing == 1 else f'{missing} attempts'} whose answer was never recorded"
    return f"waited {length(waited)} before the next attempt"


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
