"""The JSONata expressions of an exported saga. Pure: text in, text out.

Three variables live through an execution: `$results` (what the actions answered, by step), `$failure` (why the saga
turned back), and of the present call `$made` and `$rounds` (its attempts and its rests so far).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from saga.definition import SagaDefinition, Step

REST_AT_MOST = 300  # seconds

EXECUTION_NAME = "$states.context.Execution.Name"  # the saga's id
INPUT = "$states.context.Execution.Input"
ATTEMPT = "$made + $states.context.State.RetryCount + 1"
BODY = "$states.result.ResponseBody"
DONE = f"($states.result.StatusCode = 204 or ($states.result.StatusCode != 202 and $type({BODY}) = 'object'))"
RESULT = f"($states.result.StatusCode = 204 ? {{}} : {BODY})"
NO_OBJECT = "$error('HTTP ' & $string($states.result.StatusCode) & ' with a body that is not a JSON object')"

# Why the saga turned back, as the API shows it: {step, kind, status_code, message}. A backslash is \x5c in the
# patterns, since JSONata's reference parser takes the bracket after a pair of backslashes for an escaped one.
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


def jsonata(expression: str) -> str:
    """Return the expression in the form in which a field of a state holds it."""
    return "{% " + expression + " %}"


def no_results() -> str:
    """Return the expression for no results yet; it fails where the execution's input is no JSON object."""
    return jsonata(f"$type({INPUT}) = 'object' ? {{}} : $error('the input must be a JSON object')")


def results_with(step: Step) -> str:
    """Return the results with what the step's action has just answered; it fails where that does not say "done"."""
    return jsonata(f"{DONE} ? $merge([$results, {{'{step.name}': {RESULT}}}]) : {NO_OBJECT}")


def no_attempts_once_done() -> str:
    """Return the expression that is 0 where a compensation answers "done", and fails where it does not."""
    return jsonata(f"{DONE} ? 0 : {NO_OBJECT}")


def failure_of(step: Step, within: int) -> str:
    """Return the facts of a failed action, from which ERROR is worked out; `within` is its time-out in seconds."""
    facts = f"'step': '{step.name}', 'within': {within}, 'attempts': {ATTEMPT}"
    return jsonata(f"{{{facts}, 'output': $states.errorOutput}}")


def fields_of(step: Step, earlier: Sequence[Step]) -> Any:
    """Return the body of a step's calls: what `send` names, of the input and of the `earlier` steps' results.

    Of two that have a field the later one wins, and a field that nobody has is left out, as `machine.next_call` does.
    """
    if not step.send:
        return {}
    known = _merged(earlier, INPUT)
    fields = ", ".join(f"{_text(name)}: $lookup($known, {_text(name)})" for name in step.send)
    return jsonata(f"($known := {known}; {{{fields}}})")


def result_of(definition: SagaDefinition) -> str:
    """Return the saga's result: what all steps answered, merged, with its secret fields masked."""
    masks = "".join(f", {{{_text(name)}: $exists($lookup($all, {_text(name)})) ? '***'}}" for name in definition.secret)
    return jsonata(f"($all := {_merged(definition.steps)}; $merge([$all{masks}]))")


def deadline_passed(seconds: float) -> str:
    """Return the condition that the execution has run for so many seconds."""
    elapsed = "$millis() - $toMillis($states.context.Execution.StartTime)"
    return jsonata(f"{elapsed} >= {math.ceil(seconds * 1000)}")


def rest_seconds() -> str:
    """Return a stalled call's rest: a second, doubling each round up to REST_AT_MOST, of which half to all is drawn."""
    whole = f"$min([{REST_AT_MOST}, $power(2, $min([$rounds - 1, 20]))])"
    return jsonata(f"$ceil({whole} * (0.5 + $random() / 2))")


def _merged(steps: Iterable[Step], *before: str) -> str:
    return f"$merge([{', '.join([*before, *(f'$lookup($results, {_text(step.name)})' for step in steps)])}])"


def _text(text: str) -> str:
    """Return the text as a JSONata string, without a %, so that it cannot end the expression that it stands in."""
    return json.dumps(text).replace("%", "\\u0025")
