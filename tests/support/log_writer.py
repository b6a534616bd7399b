"""A writer of logs of sagas that never ran, in the state machine's terms, which are shown as the API would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from saga.definition import CHOREOGRAPHY, ORCHESTRATION, SagaDefinition, Step
from saga.machine import (
    ATTEMPT,
    CANCEL_REQUESTED,
    CLAIMED,
    ENDED,
    FAULT,
    OVERDUE,
    PARKED,
    RELEASED,
    REPLAYED,
    STALLED,
    TRANSITIONS,
    Direction,
    Event,
    Line,
    State,
    apply,
    begin,
    fold,
    next_call,
)
from saga.views.representation import represent, represent_lines
from tests.support.builders import a_started_saga

START = 1_000_000_000.0  # 2001-09-09 01:46:40 UTC
Shown = tuple[dict[str, Any], list[dict[str, Any]]]


def steps(text: str) -> SagaDefinition:
    """`A B* C!`: steps in order; the star has no compensation, the exclamation mark is the pivot."""
    made = []
    for word in text.split():
        name = word.rstrip("*!")
        undo = None if "*" in word else f"http://{name}/undo"
        made.append(Step(name, f"http://{name}/do", undo, send=("pin",), pivot="!" in word))
    return SagaDefinition("test", tuple(made), secret=("pin",))


class LogWriter:
    """One saga; each method adds a line, `seconds` after the one before it."""

    def __init__(self, text: str = "A B C!", input: Mapping[str, Any] | None = None, mode: str = ORCHESTRATION):
        definition = steps(text).in_mode(mode)
        self.saga = begin(definition, input or {})
        self.now = START
        detail = {"mode": mode, "subject": "saga.test.started"} if definition.choreographed else None
        self.row, line = a_started_saga(definition, input or {}, START, detail, id="id", owner="one")
        self.lines = [line]

    def attempt(
        self,
        status: int | None = 200,
        verdict: str | None = None,
        message: str | None = None,
        took: float = 0.01,
        seconds: float = 0.01,
    ) -> None:
        """Add an attempt; without a verdict it is the one that the status says. It took `took` of the `seconds`."""
        call = next_call(self.saga)
        assert call
        verdict = verdict or {2: "done", 4: "refused"}.get((status or 0) // 100, "unknown")
        number = self.saga.calls.attempts + 1
        detail = {"call": str(call.direction), "verdict": verdict, **({"message": message} if message else {})}
        self.add_line(
            ATTEMPT, detail, seconds, step=call.step.name, attempt=number, status_code=status, duration_ms=took * 1000
        )

    def event(self, event: Event, kind: str = "failed", seconds: float = 0.0, **detail: Any) -> None:
        """Add an event of the machine; where it is a failure of an action, its cause is `kind`."""
        step, before = self.saga.step, self.saga.state
        after = apply(self.saga, event, {})
        stays = after.state == State.COMPLETED or (before == State.SEALING and event == Event.COMPENSATION_REFUSED)
        failed = event in (Event.ACTION_REFUSED, Event.ACTION_UNKNOWN, Event.CANCELLED, Event.DEADLINE_PASSED)
        cause = {"step": step and step.name, "kind": kind, "status_code": None, "message": "why"} if failed else None
        if self.row.definition.choreographed and step:
            detail["subject"] = f"saga.test.{step.name}.{_SAID.get(event, 'attempt')}"
        self.add_line(str(event), {"state": str(after.state), **detail}, seconds, step=step and step.name)
        rounds = self.row.rounds + 1 if after.state in STALLED else self.row.rounds * (event == Event.RESUMED)
        self.row = replace(
            self.row,
            state=after.state,
            cursor=after.cursor,
            results=after.results,
            rounds=rounds,
            error=None if stays else self.row.error or cause,
            ended_at=self.now if after.state in ENDED else None,
            due_at=None if after.state in ENDED else self.now + 10,
        )

    def call(self, status: int | None = 200, times: int = 1, verdict: str | None = None, **more: Any) -> None:
        """Add a whole call: so many attempts with the same answer, and the event that they come to."""
        direction = (
            Direction.ACTION if self.saga.state in ("executing", "deciding", "finishing") else Direction.COMPENSATION
        )
        for _ in range(times):
            self.attempt(status, verdict, **more)
        came_to = (self.lines[-1].detail or {})["verdict"]
        if came_to == "refused" and self.saga.calls.uncertain and self.saga.state != State.SEALING:
            came_to = "unknown"
        self.event(Event(f"{direction}_{came_to}"), {4: "refused", 0: "timeout"}.get((status or 0) // 100, "failed"))

    def claim(self, was_held: bool = True, seconds: float = 10.0, why: str | None = None) -> None:
        """Another orchestrator takes it over; `why`: an operator has it do so."""
        more = {"why": why} if why else {}
        self.add_line(CLAIMED, {"by": "two", "epoch": 2, "interrupted": was_held, **more}, seconds)

    def add_line(self, event: str, detail: dict[str, Any] | None = None, seconds: float = 0.0, **fields: Any) -> None:
        """Add any line."""
        self.now += seconds
        line = Line(len(self.lines) + 1, self.now, event, detail=detail, **fields)
        before, self.saga = self.saga, fold(self.saga, line, {})
        self.row = replace(self.row, context=self.row.context.after(line, before, self.saga))
        self.lines.append(line)

    def shown(self) -> Shown:
        """Return the representation of the saga, and its lines."""
        return represent(self.row), represent_lines(self.lines, self.row)


_SAID = {  # by what a step publishes
    Event.ACTION_DONE: "done",
    Event.ACTION_REFUSED: "refused",
    Event.COMPENSATION_DONE: "undone",
    Event.COMPENSATION_REFUSED: "done",
}
SECRET = "4111-2222"
WORDS_OF_THE_LOG = (
    "completed",
    "compensated",
    "stalled",
    "sealing",
    "done",
    "unknown",
    "action",
    "compensation",
    "1",
    "B",
)
DEFINITIONS = ["A", "A B C!", "A* B C!", "A B*! C", "A! B* C", "A B C", "A* B*", "A B! C D"]


@st.composite
def ways(draw: st.DrawFn) -> str:
    """Draw one to six steps as `steps` reads them, with or without a pivot, some without a compensation."""
    count = draw(st.integers(1, 6))
    pivot = draw(st.none() | st.integers(0, count - 1))
    words = []
    for index in range(count):
        undone = (pivot is None or index <= pivot) and draw(st.booleans())
        words.append("ABCDEF"[index] + "*" * (not undone) + "!" * (index == pivot))
    return " ".join(words)


NOTED = {ORCHESTRATION: [RELEASED, CANCEL_REQUESTED, FAULT], CHOREOGRAPHY: [OVERDUE, PARKED, REPLAYED, FAULT]}


@st.composite
def written_logs(draw: st.DrawFn, secrets: Sequence[str] = (SECRET,), most: int = 25) -> LogWriter:
    """Draw a saga that went any way that the machine allows, up to any line; its secret is one of these."""
    mode = draw(st.sampled_from([ORCHESTRATION, CHOREOGRAPHY]))
    writer = LogWriter(draw(st.sampled_from(DEFINITIONS) | ways()), {"pin": draw(st.sampled_from(secrets))}, mode)
    for _ in range(draw(st.integers(0, most))):
        state = writer.saga.state
        if state in ENDED:
            break
        seconds = draw(st.sampled_from([0.0, 0.003, 0.2, 5.0, 400.0]))
        kind = draw(st.sampled_from(["attempt", "attempt", "event", "event", "claim", "note"]))
        if kind == "attempt" and state not in STALLED:
            status = draw(st.sampled_from([200, 400, 409, 500, 503, None]))
            verdict = draw(st.sampled_from(["done", "refused", "unknown"]))
            message = draw(st.sampled_from([None, "no", f"card {SECRET} is blocked"]))
            writer.attempt(status, verdict, message, took=draw(st.sampled_from([0.0, 0.01, 7.0])), seconds=seconds)
        elif kind == "event":
            event = draw(st.sampled_from([event for before, event in TRANSITIONS if before == state]))
            writer.event(
                event, draw(st.sampled_from(["refused", "timeout", "failed"])), seconds, note=f"it was {SECRET}"
            )
        elif kind == "claim":
            writer.claim(
                draw(st.booleans()), seconds, draw(st.sampled_from([None, "cancelled", "resumed", "resolved"]))
            )
        else:
            event = draw(st.sampled_from(NOTED[mode]))
            detail = {"by": SECRET, "letter": draw(st.integers(1, 2)), "subject": f"saga.{SECRET}", "message": SECRET}
            writer.add_line(event, detail, seconds, step="A")
    return writer
