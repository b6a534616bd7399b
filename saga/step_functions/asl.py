"""A saga as a state machine in the Amazon States Language, for AWS Step Functions. Pure: a definition in, JSON out.

The states are generated from the table of `saga.machine`. Every position that a saga can come to (a state and a step)
becomes one state of the language: an HTTP Task where the machine wants a call, a Wait where the saga is stalled, a
Succeed where it has ended. What the table says of the call's outcomes becomes the Task's Next and its Catch. Two kinds
of states are added, for what the table leaves to its driver: a Choice that tells a refusal from an unknown outcome,
and a Choice that looks at the deadline.

Nothing that could fail stands between a failure and its compensation: what the output says of the failure is worked
out once everything is undone. https://states-language.net/spec.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from saga.definition import SagaDefinition
from saga.errors import BadInput, NotExpressible
from saga.machine import (
    ENDED,
    FORWARD,
    STALLED,
    TRANSITIONS,
    Call,
    Direction,
    Event,
    Saga,
    State,
    apply,
    attempted,
    begin,
    next_call,
)
from saga.step_functions.http_task import COMMITTED, REFUSALS, catch, catch_all, http_task, timeout_seconds
from saga.step_functions.jsonata import (
    ATTEMPT,
    ERROR,
    EXECUTION_NAME,
    deadline_passed,
    failure_of,
    fields_of,
    jsonata,
    no_attempts_once_done,
    no_results,
    rest_seconds,
    result_of,
    results_with,
)

CONNECTION_ARN = "${ConnectionArn}"  # CloudFormation's DefinitionSubstitutions fills it in
TIMEOUT_AT_MOST = 60  # seconds: Step Functions ends every HTTP Task then
SIZE_AT_MOST = 1 << 20  # bytes, of a whole definition

BEGIN, COMPLETED, COMPENSATED = "Saga begins", "Saga completed", "Saga compensated"

OPERATORS = frozenset({Event.CANCELLED, Event.RESOLVED})  # no operator gives a command to an execution

FRESH: dict[str, Any] = {"made": 0, "rounds": 0}  # of a call that was not made yet
ROUND = {"made": jsonata(ATTEMPT), "rounds": "{% $rounds + 1 %}"}  # of one that is made again after a rest


def state_machine(definition: SagaDefinition, connection_arn: str = CONNECTION_ARN) -> dict[str, Any]:
    """Return the state machine, ready for json.dumps.

    `connection_arn` names the EventBridge Connection whose credentials the calls carry; BadInput is raised where it is
    none. Raises NotExpressible where Step Functions cannot do what the definition says.
    """
    _check(definition)
    if not re.fullmatch(r"\$\{\w+\}|arn:[\w-]+:events:[\w-]*:\d*:connection/[\w./-]+", connection_arn):
        raise BadInput(f"connection-arn: {connection_arn!r} is not the ARN of an EventBridge Connection")
    machine = {
        "Comment": f"The saga {definition.name}, exported by `saga export --asl {definition.name}`",
        "QueryLanguage": "JSONata",
        "StartAt": BEGIN,
        "States": _Export(definition, connection_arn).states(),
    }
    if (size := len(json.dumps(machine))) > SIZE_AT_MOST:
        raise NotExpressible(f"the state machine has {size} bytes, and Step Functions takes {SIZE_AT_MOST}")
    return machine


def local_addresses(definition: SagaDefinition) -> list[str]:
    """Return the definition's addresses that Step Functions cannot call, because they are not https:// ones."""
    urls = [url for step in definition.steps for url in (step.action, step.compensation) if url]
    return [url for url in urls if urlsplit(url).scheme != "https"]


def _check(definition: SagaDefinition) -> None:
    """Raise NotExpressible, naming the field, where Step Functions cannot do what the definition says."""
    for index, step in enumerate(definition.steps):
        if any("@" in urlsplit(url).netloc for url in (step.action, step.compensation) if url):
            problem = "its URL holds a user; here the credentials of a call are the Connection's"
            raise NotExpressible(f"steps[{index}]: {problem}", f"steps[{index}]")
        if step.unsaid and step.compensation is None:
            field = f"steps[{index}].compensation"
            raise NotExpressible(f"{field}: it is missing, and the state machine cannot ask an operator", field)
        if step.timeout > TIMEOUT_AT_MOST:
            field = f"steps[{index}].timeout"
            problem = f"{step.timeout:g} s, but an HTTP Task of Step Functions ends after {TIMEOUT_AT_MOST} s"
            raise NotExpressible(f"{field}: {problem}", field)
    if definition.faults:
        raise NotExpressible("fail=orchestrator: there is no orchestrator that could crash")


def _positions(definition: SagaDefinition) -> list[Saga]:
    """Return one saga for every position, that is state and cursor, that can be reached without an operator.

    Those of the way forward come first, then those of the way back, then the ends.
    """
    found: dict[tuple[State, int], Saga] = {}
    ahead = [begin(definition, {})]
    while ahead:
        saga = ahead.pop()
        if (saga.state, saga.cursor) not in found:
            found[saga.state, saga.cursor] = saga
            events = [event for state, event in TRANSITIONS if state is saga.state and event not in OPERATORS]
            ahead += [_after(saga, event) for event in events]
    return sorted(found.values(), key=_place)


def _after(saga: Saga, event: Event) -> Saga:
    """Return the position after an event, which follows a call that was made unless the saga is stalled."""
    return apply(saga if saga.state in STALLED else attempted(saga, 1, uncertain=False), event)


def _place(saga: Saga) -> tuple[bool, bool, int, int]:
    """Return the sort key that orders the positions in the exported file."""
    back = saga.state in (State.COMPENSATING, State.STALLED_COMPENSATING)
    ended = saga.state in ENDED
    return ended, back, -saga.cursor if back or ended else saga.cursor, list(State).index(saga.state)


def _name(saga: Saga) -> str:
    """Return the name of the state that a position becomes."""
    if saga.state in STALLED:
        return f"{_name(_after(saga, Event.RESUMED))} rests"
    if saga.step is None:
        return COMPLETED if saga.state is State.COMPLETED else COMPENSATED
    if saga.state in FORWARD:
        return saga.step.name
    return f"Seal {saga.step.name}" if saga.state is State.SEALING else f"Undo {saga.step.name}"


@dataclass(frozen=True)
class _Export:
    definition: SagaDefinition
    connection_arn: str

    def states(self) -> dict[str, Any]:
        """Return every state by its name, in the order in which a reader meets them."""
        first = begin(self.definition, {})
        found: dict[str, Any] = {
            BEGIN: {"Type": "Pass", "Assign": {"results": no_results(), **FRESH}, "Next": _name(first)}
        }
        for saga in _positions(self.definition):
            if call := next_call(saga):
                found |= self._call(saga, call)
            elif saga.state in STALLED:
                found[_name(saga)] = {
                    "Type": "Wait",
                    "Seconds": rest_seconds(),
                    "Next": _name(_after(saga, Event.RESUMED)),
                }
            else:
                found[_name(saga)] = self._end(saga)
        return found

    def _call(self, saga: Saga, call: Call) -> dict[str, Any]:
        """Return the Task of a call and the Choices that belong to it, by their names."""
        outcomes = [Event(f"{call.direction}_{outcome}") for outcome in ("done", "refused", "unknown")]
        done, refused, unknown = (_after(saga, event) for event in outcomes)
        assign: dict[str, Any] = {}
        if call.direction is Direction.ACTION and refused.state not in STALLED:  # the saga turns back
            assign["failure"] = failure_of(call.step, timeout_seconds(call.step))
        if unknown.state in STALLED:
            assign |= ROUND
        rules, choices = self._refusal(call, refused, unknown, assign)
        in_time = self._in_time(saga, call, done)
        task = http_task(call, fields_of(call.step, self.definition.steps[: saga.cursor]), self.connection_arn) | {
            "Assign": _once_done(call),
            "Catch": [*rules, *catch_all(_name(unknown), assign)],
            "Next": next(iter(in_time), _name(done)),
        }
        return {_name(saga): task, **choices, **in_time}

    def _refusal(
        self, call: Call, refused: Saga, unknown: Saga, assign: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Return the rules that catch a refusal, and the Choice that they lead to.

        There are none where a refusal leads to the same state as any other error. A seal is refused by a 409, whatever
        came before it. An action is refused only by its first attempt's answer: a Task does not say whether the errors
        of earlier attempts certainly changed nothing.
        """
        if _name(refused) == _name(unknown):
            return [], {}
        if call.direction is Direction.COMPENSATION:
            return [catch(COMMITTED, _name(refused), FRESH)], {}
        name = f"{call.step.name} refused"
        at_once = {"Condition": jsonata("$failure.attempts = 1"), "Assign": FRESH, "Next": _name(refused)}
        choice = {"Type": "Choice", "Choices": [at_once], "Default": _name(unknown)}
        return [catch(REFUSALS, name, assign)], {name: choice}

    def _in_time(self, saga: Saga, call: Call, done: Saga) -> dict[str, Any]:
        """Return the Choice that looks at the deadline once a step is done; empty where none is needed.

        In time the saga goes on; past the deadline it turns back, and this step is undone as well. No Choice is needed
        where the definition has no deadline, no step is left, or the table knows no way back from here.
        """
        deadline = self.definition.deadline
        if not deadline or (saga.state, Event.DEADLINE_PASSED) not in TRANSITIONS or done.state in ENDED:
            return {}
        failure = {"step": call.step.name, "kind": "deadline", "message": "the deadline passed"}
        back = _name(_after(saga, Event.DEADLINE_PASSED))
        late = {"Condition": deadline_passed(deadline), "Assign": {"failure": failure}, "Next": back}
        choice = {"Type": "Choice", "Choices": [late], "Default": _name(done)}
        return {f"In time after {call.step.name}": choice}

    def _end(self, saga: Saga) -> dict[str, Any]:
        """Return the Succeed state of an ended saga; its output says how the saga ended, and why it turned back."""
        output = {
            "saga_id": jsonata(EXECUTION_NAME),
            "saga": self.definition.name,
            "status": saga.state.upper(),
            "result": result_of(self.definition),
            "error": None if saga.state is State.COMPLETED else jsonata(ERROR),
        }
        return {"Type": "Succeed", "Output": output}


def _once_done(call: Call) -> dict[str, Any]:
    """Return what a done call assigns to the variables; the Task fails where the answer does not say "done"."""
    if call.direction is Direction.ACTION:
        return {"results": results_with(call.step), **FRESH}
    return {**FRESH, "made": no_attempts_once_done()}
