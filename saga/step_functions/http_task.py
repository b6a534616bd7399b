"""One call of a saga as an HTTP Task that keeps the participant contract, and the names of the errors it may catch."""

from __future__ import annotations

import math
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from saga.definition import Step
from saga.machine import Call
from saga.retry import BACKOFF_SECONDS_AT_MOST
from saga.step_functions.jsonata import ATTEMPT, EXECUTION_NAME, jsonata

# A 4xx is a refusal, which is not tried again; 408, 425 and 429 are not among them. No wildcard can name the others:
# these are those that IANA has registered. Any other counts as unknown, which is the safe side.
REFUSALS = [
    f"States.Http.StatusCode.{code}"
    for code in (*range(400, 408), *range(409, 419), 421, 422, 423, 424, 426, 428, 431, 451)
]
COMMITTED = ["States.Http.StatusCode.409"]  # what a pivot that has committed answers to its seal
TOO_LARGE = ["States.DataLimitExceeded"]  # an answer over 256 KiB: States.ALL does not include it
ANY = ["States.ALL"]


def http_task(call: Call, body: Any, connection_arn: str) -> dict[str, Any]:
    """Return the Task that sends `body`, without its Assign, Catch and Next."""
    step = call.step
    url = urlsplit(call.url)
    query = parse_qs(url.query, keep_blank_values=True)
    parameters = {name: values if values[1:] else values[0] for name, values in query.items()}
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::http:invoke",
        "Arguments": {
            "Method": "POST",
            "ApiEndpoint": urlunsplit((*url[:3], "", "")),
            **({"QueryParameters": parameters} if parameters else {}),
            "InvocationConfig": {"ConnectionArn": connection_arn},
            "Headers": {
                "Content-Type": "application/json",
                "Saga-Id": jsonata(EXECUTION_NAME),
                "Saga-Step": step.name,
                "Saga-Attempt": jsonata(f"$string({ATTEMPT})"),
                "Idempotency-Key": jsonata(f"{EXECUTION_NAME} & ':{step.name}:{call.direction}'"),
            },
            "RequestBody": body,
        },
        "TimeoutSeconds": timeout_seconds(step),
        "Retry": _retry(step),
    }


def timeout_seconds(step: Step) -> int:
    """Return the step's time-out rounded up to whole seconds, since Step Functions knows no fractions."""
    return max(1, math.ceil(step.timeout))


def _retry(step: Step) -> list[dict[str, Any]]:
    interval = max(1, math.ceil(step.backoff))
    again = {
        "ErrorEquals": ANY,
        "IntervalSeconds": interval,
        "BackoffRate": 2.0,
        "MaxDelaySeconds": max(int(BACKOFF_SECONDS_AT_MOST), interval + 1),  # it must be more than the interval
        "JitterStrategy": "FULL",
        "MaxAttempts": step.retries,
    }
    return [{"ErrorEquals": REFUSALS, "MaxAttempts": 0}, again]


def catch(errors: list[str], following: str, assign: dict[str, Any]) -> dict[str, Any]:
    """Return a rule of a Task's Catch: on one of these errors set the variables, and go on at the state `following`."""
    return {"ErrorEquals": errors, "Assign": assign, "Next": following}


def catch_all(following: str, assign: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the last rules of a Task's Catch, for every error that no rule before them names."""
    return [catch(errors, following, assign) for errors in (TOO_LARGE, ANY)]
