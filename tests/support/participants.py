"""Participants in memory that keep the contract and misbehave as planned, and what the state machine makes of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from saga.call import Attempt, CallRequest, make_call
from saga.definition import SagaDefinition, Step
from saga.http_client.transport import Failure, HttpAnswer
from saga.machine import ENDED, STALLED, Event, Saga, State, apply, attempted, begin, next_call

# What an attempt comes to instead of a good answer: whether it takes effect, and what is seen of it.
ODD = {
    "before": (False, 500),
    "after": (True, 500),
    "refuse": (False, 409),
    "unknown 4xx": (False, 422),
    "garbage": (True, 200),
    "lost": (True, None),
    "broken": (False, Failure.BROKEN),
}
Plan = Mapping[str, list[str]]  # by "A:action" or "A:compensation": what its first attempts come to


@dataclass
class Participants:
    """All of a saga's; a pivot that has committed answers 409 to its compensation, as the contract has it."""

    definition: SagaDefinition
    plan: Plan = field(default_factory=dict)
    state: dict[str, str] = field(default_factory=dict)  # the barrier, by step
    calls: list[str] = field(default_factory=list)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    undone: list[str] = field(default_factory=list)

    @property
    def applied(self) -> set[str]:
        """The steps that have taken effect."""
        return {step for step, state in self.state.items() if state == "applied"}

    def answer(self, headers: Mapping[str, str], body: Mapping[str, Any]) -> tuple[int | Failure | None, bytes]:
        """(status, body) of one attempt; no status where it timed out, a Failure where it broke."""
        _, step, call = headers["Idempotency-Key"].split(":")
        key = f"{step}:{call}"
        self.calls.append(key)
        assert len(self.calls) < 500, "it goes round in circles"
        assert int(headers["Saga-Attempt"]) == self.calls.count(key), "attempts are counted over all rounds"
        assert self.bodies.setdefault(step, dict(body)) == body, "both calls of a step get the same fields"
        odd = dict(enumerate(self.plan.get(key, []), 1)).get(int(headers["Saga-Attempt"]))
        if odd is None:
            return self._contract(step, call)
        takes_effect, seen = ODD[odd]
        if takes_effect:
            self._contract(step, call)
        return seen, b'{"error": "odd"}' if seen != 200 else b"<garbage>"

    def _contract(self, step: str, call: str) -> tuple[int, bytes]:
        now = self.state.get(step)
        if call == "action":
            if now in ("compensated", "sealed"):
                return 409, b'{"error": "too late"}'
            self.state[step] = "applied"
            return 200, json.dumps({f"{step}_id": len(step), "last": step, "list": [step]}).encode()
        if now == "applied" and next(each for each in self.definition.steps if each.name == step).pivot:
            return 409, b'{"error": "it has committed"}'
        if now == "applied":
            self.undone.append(step)
        self.state[step] = "compensated" if now == "applied" else now or "sealed"
        return 200, b"{}"

    def check_all_or_nothing(self, status: str) -> None:
        """Check the promise against what truly took effect."""
        steps = self.definition.steps
        pivot = next((index for index, step in enumerate(steps) if step.pivot), len(steps))
        if status == "COMPLETED":
            assert self.applied == {step.name for step in steps}
        else:
            undoable = {step.name for step in steps if step.compensation}
            assert not self.applied & (undoable | {step.name for step in steps[pivot:]})
        names = [step.name for step in steps]
        assert self.undone == sorted(self.undone, key=names.index, reverse=True)


def by_the_machine(definition: SagaDefinition, input: Mapping[str, Any], there: Participants) -> tuple[Saga, Any]:
    """Return what saga.machine and saga.call make of the same participants: the ended saga, and its first cause."""

    class Network:
        def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> HttpAnswer:
            status, content = there.answer(headers, json.loads(body))
            if isinstance(status, int):
                return HttpAnswer(0, status, {}, content)
            return HttpAnswer(0, failure=status or Failure.TIMED_OUT, message="")

    saga, error = begin(definition, input), None
    while saga.state not in ENDED:
        if saga.state in STALLED:
            saga = apply(saga, Event.RESUMED)
            continue
        call = next_call(saga)
        assert call is not None
        attempts: list[Attempt] = []
        request = CallRequest(
            call.url,
            {"Idempotency-Key": f"s:{call.step.name}:{call.direction}"},
            json.dumps(call.fields).encode(),
            retries=call.step.retries,
            first_attempt=saga.calls.attempts + 1,
            sealing=saga.state is State.SEALING,
            uncertain_before=saga.calls.uncertain,
        )
        outcome = make_call(
            request,
            Network(),  # type: ignore[arg-type]
            sleep=lambda seconds: None,
            random=lambda: 0.0,
            after_attempt=lambda made, will_retry, attempts=attempts: attempts.append(made),  # type: ignore[misc]
        )
        for made in attempts:
            saga = attempted(saga, made.number, made.verdict == "unknown")
        event = Event(f"{call.direction}_{outcome.verdict}")
        if error is None and call.direction == "action" and event is not Event.ACTION_DONE:
            error = {"step": call.step.name, "kind": outcome.kind, "status_code": outcome.status_code}
        saga = apply(saga, event, outcome.result)
    return saga, error


@st.composite
def definitions(draw: st.DrawFn) -> SagaDefinition:
    """Any: with a pivot or without, with steps after it, with steps that have no compensation."""
    count = draw(st.integers(1, 4))
    pivot = draw(st.integers(-1, count - 1))
    sent = st.lists(st.sampled_from(["a", "last", "list", "S0_id", "no such", 'odd " name % \\ é']), unique=True)
    steps = tuple(
        Step(
            f"S{number}",
            f"https://s{number}.example.com/do?x=1&x=2",
            f"https://s{number}.example.com/undo" if draw(st.integers(0, 3)) else None,
            send=tuple(draw(sent)),
            retries=draw(st.integers(0, 2)),
            pivot=number == pivot,
        )
        for number in range(count)
    )
    return SagaDefinition("any", steps, deadline=draw(st.sampled_from([None, 3600.0])), secret=("a",))


@st.composite
def plans(draw: st.DrawFn, definition: SagaDefinition) -> Plan:
    """Draw what goes wrong, in up to five attempts of each call; then all goes well."""
    keys = [f"{step.name}:{call}" for step in definition.steps for call in ("action", "compensation")]
    odd = {"action": st.sampled_from(sorted(ODD)), "compensation": st.sampled_from(sorted(set(ODD) - {"refuse"}))}
    return {key: draw(st.lists(odd[key.split(":")[1]], max_size=5)) for key in keys if draw(st.integers(0, 2)) == 0}
