"""A saga as a state machine in the Amazon States Language, for AWS Step Functions. Pure: a definition in, JSON out.

Every call is an HTTP Task. Errors that a Task catches lead where the table of `saga.machine` leads: back through the
compensations, to the pivot's seal, or into a rest and the same call again. Nothing that could fail stands between a
failure and its compensation: what is told of the failure is worked out once everything is undone.

Three variables are carried along: `results` (what the actions answered, by step), `failure` (why it turned back), and
of the present call `made` and `rounds` (its attempts and rests so far). https://states-language.net/spec.html
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from saga.definition import SagaDefinition, Step
from saga.errors import BadInput, NotExpressible
from saga.machine import Direction
from saga.retry import BACKOFF_AT_MOST

CONNECTION_ARN = "${ConnectionArn}"  # CloudFormation's DefinitionSubstitutions fills it in
TIMEOUT_AT_MOST = 60  # seconds: Step Functions ends every HTTP Task then
SIZE_AT_MOST = 1 << 20  # bytes, of a whole definition
REST_AT_MOST = 300  # seconds

BEGIN, COMPLETED, COMPENSATED = "Saga begins", "Saga completed", "Saga compensated"

# A 4xx is a refusal, which is not tried again; 408, 425 and 429 are not among them. No wildcard is there to name the
# others: these are those that IANA has registered, and any other counts as unknown, which is the safe side.
REFUSALS = [
    f"States.Http.StatusCode.{code}"
    for code in (*range(400, 408), *range(409, 419), 421, 422, 423, 424, 426, 428, 431, 451)
]
TOO_LARGE = ["States.DataLimitExceeded"]  # an answer over 256 KiB: States.ALL does not hold it
ANY = ["States.ALL"]

ATTEMPT = "$made + $states.context.State.RetryCount + 1"
FRESH: dict[str, Any] = {"made": 0, "rounds": 0}  # of a call that was not made yet
ROUND = {"made": f"{{% {ATTEMPT} %}}", "rounds": "{% $rounds + 1 %}"}  # of one that is made again after a rest
BODY = "$states.result.ResponseBody"
DONE = f"($states.result.StatusCode = 204 or ($states.result.StatusCode != 202 and $type({BODY}) = 'object'))"
RESULT = f"($states.result.StatusCode = 204 ? {{}} : {BODY})"
NO_OBJECT = "$error('HTTP ' & $string($states.result.StatusCode) & ' with a body that is not a JSON object')"

# Why it turned back, as the API tells it: {step, kind, status_code, message}. A backslash is \x5c in the patterns,
# since JSONata's reference parser takes the bracket after a pair of backslashes for an escaped one.
ERROR = r"""(
$name := $failure.output.Error;
$cause := $failure.output.Cause;
$code := $match($name, /^States\.Http\.StatusCode\.([0-9]{3})$/, 1).groups[0];
$odd := $match($cause, /HTTP (2[0-9]{2}) with a body that is not a JSON object/, 1);
$said := $match($cause, /"error"\s*:\s*"((?:[^"\x5c\x00-\x1f]|\x5c["\x5cbfnrt]|\x5cu[0-9a-fA-F]{4})+)"/, 1).groups[0];
$number_of := $exists($code) ? $number($code) : 0;
$late := $name = 'States.Timeout' or $number_of = 408;
$no := $number_of >= 400 and $number_of < 500 and $not($number_of in [408, 425, 429]) and $failure.attempts = 1;
{
'step': $failure.step,
'kind': $exists($failure.kind) ? $failure.kind
  : $no ? 'refused' : $late ? 'timeout' : 'failed',
'status_code': $exists($code) ? $number($code) : $exists($odd) ? $number($odd.groups[0]) : null,
'message': $exists($failure.kind) ? $failure.message
  : $exists($said) ? $substring($parse('"' & $said & '"'), 0, 500) : $exists($code) ? 'HTTP ' & $code
  : $exists($odd) ? $odd.match : $late ? 'no answer within ' & $string($failure.within) & ' s'
  : $exists($cause) and $cause != '' ? $substring($cause, 0, 500) : $name
})""".replace("\n", " ")


def state_machine(definition: SagaDefinition, connection_arn: str = CONNECTION_ARN) -> dict[str, Any]:
    """The state machine, for json.dumps; NotExpressible where Step Functions cannot do what the definition says.

    `connection_arn` names the EventBridge Connection whose credentials the calls carry.
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
    """The addresses in it that Step Functions does not call, since they are not https:// ones."""
    urls = [url for step in definition.steps for url in (step.action, step.compensation) if url]
    return [url for url in urls if urlsplit(url).scheme != "https"]


def _check(definition: SagaDefinition) -> None:
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


@dataclass(frozen=True)
class _Export:
    definition: SagaDefinition
    connection_arn: str

    def states(self) -> dict[str, Any]:
        """Every state, forward and then back."""
        steps = self.definition.steps
        found: dict[str, Any] = {BEGIN: self._begin()}
        for index in range(len(steps)):
            found |= self._forward(index)
        for index in reversed(range(min(self._pivot, len(steps)))):
            if steps[index].compensation:
                found |= self._compensating(index)
        ends = {COMPLETED: self._end("COMPLETED", None), COMPENSATED: self._end("COMPENSATED", _jsonata(ERROR))}
        return found | ends

    @property
    def _pivot(self) -> int:
        """Its index; past the end where there is none."""
        steps = self.definition.steps
        return next((index for index, step in enumerate(steps) if step.pivot), len(steps))

    def _begin(self) -> dict[str, Any]:
        """An input that is no object fails here, before anything is called."""
        given = "$states.context.Execution.Input"
        results = f"$type({given}) = 'object' ? {{}} : $error('the input must be a JSON object')"
        return {"Type": "Pass", "Assign": {"results": _jsonata(results), **FRESH}, "Next": self._name(0)}

    def _forward(self, index: int) -> dict[str, Any]:
        if index > self._pivot:
            return self._finishing(index)
        if index < self._pivot:
            return self._executing(index)
        return self._deciding(index) if self.definition.steps[index].compensation else self._deciding_for_ever(index)

    def _executing(self, index: int) -> dict[str, Any]:
        step = self.definition.steps[index]
        back = _undo(step) if step.compensation else self._before(index)
        task, more = self._action(index, back, {})
        return {step.name: task, **more, **self._deadline(index, back)}

    def _deciding(self, index: int) -> dict[str, Any]:
        step = self.definition.steps[index]
        task, more = self._action(index, seal := f"Seal {step.name}", {})
        committed = _catch(["States.Http.StatusCode.409"], self._after(index), FRESH)
        return {
            step.name: task,
            **more,
            seal: self._compensation(index, self._before(index), [committed], f"{seal} rests"),
            f"{seal} rests": _rest(seal),
        }

    def _deciding_for_ever(self, index: int) -> dict[str, Any]:
        """A pivot without compensation: nobody can tell whether it committed, so it is called until it says so."""
        step = self.definition.steps[index]
        rest = f"{step.name} rests"
        task, more = self._action(index, rest, ROUND)
        return {step.name: task, **more, rest: _rest(step.name)}

    def _finishing(self, index: int) -> dict[str, Any]:
        step = self.definition.steps[index]
        rest = f"{step.name} rests"
        task = self._call(index, Direction.ACTION) | {
            "Assign": {"results": self._with_result(step), **FRESH},
            "Catch": _catch_all(rest, ROUND),
            "Next": self._after(index),
        }
        return {step.name: task, rest: _rest(step.name)}

    def _compensating(self, index: int) -> dict[str, Any]:
        undo = _undo(self.definition.steps[index])
        rest = f"{undo} rests"
        return {undo: self._compensation(index, self._before(index), [], rest), rest: _rest(undo)}

    def _action(self, index: int, unknown: str, assign: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The Task of an action from which there is a way back, and the Choice that tells a refusal.

        It is one only as the first attempt's answer: of the errors before a later one nobody knows any more whether
        each certainly changed nothing. `unknown` is where an unknown outcome leads.
        """
        step = self.definition.steps[index]
        facts = f"'step': '{step.name}', 'within': {_seconds(step)}, 'attempts': {ATTEMPT}"
        assign = {"failure": _jsonata(f"{{{facts}, 'output': $states.errorOutput}}"), **assign}
        refused, back = f"{step.name} refused", self._before(index)
        more: dict[str, Any] = {}
        catch = _catch_all(unknown, assign)
        if unknown != back:
            catch.insert(0, _catch(REFUSALS, refused, assign))
            at_once = {"Condition": _jsonata("$failure.attempts = 1"), "Assign": FRESH, "Next": back}
            more = {refused: {"Type": "Choice", "Choices": [at_once], "Default": unknown}}
        following = self._after(index) if index >= self._pivot else self._in_time(index)
        task = self._call(index, Direction.ACTION) | {
            "Assign": {"results": self._with_result(step), **FRESH},
            "Catch": catch,
            "Next": following,
        }
        return task, more

    def _compensation(self, index: int, following: str, catch: list[dict[str, Any]], rest: str) -> dict[str, Any]:
        done = _jsonata(f"{DONE} ? 0 : {NO_OBJECT}")
        return self._call(index, Direction.COMPENSATION) | {
            "Assign": {**FRESH, "made": done},
            "Catch": [*catch, *_catch_all(rest, ROUND)],
            "Next": following,
        }

    def _call(self, index: int, direction: Direction) -> dict[str, Any]:
        """One HTTP Task that keeps the participant contract."""
        step = self.definition.steps[index]
        url = urlsplit(step.action if direction is Direction.ACTION else step.compensation or "")
        query = parse_qs(url.query, keep_blank_values=True)
        parameters = {name: values if values[1:] else values[0] for name, values in query.items()}
        saga_id = "$states.context.Execution.Name"
        return {
            "Type": "Task",
            "Resource": "arn:aws:states:::http:invoke",
            "Arguments": {
                "Method": "POST",
                "ApiEndpoint": urlunsplit((*url[:3], "", "")),
                **({"QueryParameters": parameters} if parameters else {}),
                "InvocationConfig": {"ConnectionArn": self.connection_arn},
                "Headers": {
                    "Content-Type": "application/json",
                    "Saga-Id": _jsonata(saga_id),
                    "Saga-Step": step.name,
                    "Saga-Attempt": _jsonata(f"$string({ATTEMPT})"),
                    "Idempotency-Key": _jsonata(f"{saga_id} & ':{step.name}:{direction}'"),
                },
                "RequestBody": self._fields(index),
            },
            "TimeoutSeconds": _seconds(step),
            "Retry": _retry(step),
        }

    def _fields(self, index: int) -> Any:
        """What a step may see: of the input and of the steps before it. A later one wins, a missing one is left out."""
        steps = self.definition.steps
        if not steps[index].send:
            return {}
        known = self._merged(steps[:index], "$states.context.Execution.Input")
        fields = ", ".join(f"{_text(name)}: $lookup($known, {_text(name)})" for name in steps[index].send)
        return _jsonata(f"($known := {known}; {{{fields}}})")

    def _with_result(self, step: Step) -> str:
        kept = f"$merge([$results, {{'{step.name}': {RESULT}}}])"
        return _jsonata(f"{DONE} ? {kept} : {NO_OBJECT}")

    def _merged(self, steps: Iterable[Step], *before: str) -> str:
        return f"$merge([{', '.join([*before, *(f'$lookup($results, {_text(step.name)})' for step in steps)])}])"

    def _deadline(self, index: int, back: str) -> dict[str, Any]:
        """Looked at when a step is done: in time the next one is called, else this one is undone as well."""
        if self._in_time(index) == self._after(index):
            return {}
        step, deadline = self.definition.steps[index], self.definition.deadline or 0
        passed = f"$millis() - $toMillis($states.context.Execution.StartTime) >= {math.ceil(deadline * 1000)}"
        failure = {"step": step.name, "kind": "deadline", "message": "the deadline passed"}
        late = {"Condition": _jsonata(passed), "Assign": {"failure": failure}, "Next": back}
        return {self._in_time(index): {"Type": "Choice", "Choices": [late], "Default": self._after(index)}}

    def _in_time(self, index: int) -> str:
        """What follows a step before the pivot: the look at the clock, where there is a deadline and a next step."""
        last = index == len(self.definition.steps) - 1
        return self._after(index) if last or not self.definition.deadline else f"In time after {self._name(index)}"

    def _after(self, index: int) -> str:
        return COMPLETED if index == len(self.definition.steps) - 1 else self._name(index + 1)

    def _before(self, index: int) -> str:
        """The compensation of the nearest earlier step that has one."""
        return next((_undo(step) for step in reversed(self.definition.steps[:index]) if step.compensation), COMPENSATED)

    def _name(self, index: int) -> str:
        return self.definition.steps[index].name

    def _end(self, status: str, error: Any) -> dict[str, Any]:
        secret = "".join(
            f", {{{_text(name)}: $exists($lookup($all, {_text(name)})) ? '***'}}" for name in self.definition.secret
        )
        output = {
            "saga_id": _jsonata("$states.context.Execution.Name"),
            "saga": self.definition.name,
            "status": status,
            "result": _jsonata(f"($all := {self._merged(self.definition.steps)}; $merge([$all{secret}]))"),
            "error": error,
        }
        return {"Type": "Succeed", "Output": output}


def _undo(step: Step) -> str:
    return f"Undo {step.name}"


def _rest(call: str) -> dict[str, Any]:
    """A second, doubling from round to round up to five minutes, each drawn between half and all of it."""
    whole = f"$min([{REST_AT_MOST}, $power(2, $min([$rounds - 1, 20]))])"
    return {"Type": "Wait", "Seconds": _jsonata(f"$ceil({whole} * (0.5 + $random() / 2))"), "Next": call}


def _catch(errors: list[str], following: str, assign: dict[str, Any]) -> dict[str, Any]:
    return {"ErrorEquals": errors, "Assign": assign, "Next": following}


def _catch_all(following: str, assign: dict[str, Any]) -> list[dict[str, Any]]:
    return [_catch(errors, following, assign) for errors in (TOO_LARGE, ANY)]


def _retry(step: Step) -> list[dict[str, Any]]:
    interval = max(1, math.ceil(step.backoff))
    again = {
        "ErrorEquals": ANY,
        "IntervalSeconds": interval,
        "BackoffRate": 2.0,
        "MaxDelaySeconds": max(int(BACKOFF_AT_MOST), interval + 1),  # it must be more than the interval
        "JitterStrategy": "FULL",
        "MaxAttempts": step.retries,
    }
    return [{"ErrorEquals": REFUSALS, "MaxAttempts": 0}, again]


def _seconds(step: Step) -> int:
    return max(1, math.ceil(step.timeout))


def _text(text: str) -> str:
    """A JSONata string; without %, so that no text can end the expression that it stands in."""
    return json.dumps(text).replace("%", "\\u0025")


def _jsonata(expression: str) -> str:
    return "{% " + expression + " %}"
