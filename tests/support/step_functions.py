"""AWS Step Functions for tests: an interpreter that is not ours runs an exported saga against real services.

The interpreter is moto's, which is LocalStack's. What it does not bring is added here: the HTTP Task, as AWS documents
it, and JSONata (jsonata-python). Where it departs from AWS, it is put right. Its pauses are shortened, nothing else.
"""

from __future__ import annotations

import json
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlencode

import uuid_utils
from jsonata.jexception import JException
from jsonata.jsonata import Jsonata
from moto.stepfunctions.parser.api import HistoryEventType, StateMachineType, TaskFailedEventDetails
from moto.stepfunctions.parser.asl.component.common.error_name import custom_error_name
from moto.stepfunctions.parser.asl.component.common.error_name.custom_error_name import CustomErrorName
from moto.stepfunctions.parser.asl.component.common.error_name.error_equals_decl import ErrorEqualsDecl
from moto.stepfunctions.parser.asl.component.common.error_name.failure_event import FailureEvent, FailureEventException
from moto.stepfunctions.parser.asl.component.common.retry import retrier_decl
from moto.stepfunctions.parser.asl.component.state.exec.state_task import state_task_factory
from moto.stepfunctions.parser.asl.component.state.exec.state_task.service.state_task_service import StateTaskService
from moto.stepfunctions.parser.asl.component.state.wait.wait_function.wait_function import WaitFunction
from moto.stepfunctions.parser.asl.eval.environment import Environment
from moto.stepfunctions.parser.asl.eval.evaluation_details import AWSExecutionDetails
from moto.stepfunctions.parser.asl.eval.event.event_detail import EventDetails
from moto.stepfunctions.parser.asl.eval.event.event_manager import EventHistoryContext
from moto.stepfunctions.parser.asl.eval.program_state import ProgramEnded
from moto.stepfunctions.parser.asl.jsonata import jsonata as jsonata_of_moto
from moto.stepfunctions.parser.asl.parse.asl_parser import AmazonStateLanguageParser

from orchestrator.status_codes import COMPENSATED_CODES
from saga.definition import SagaDefinition
from saga.faults.flags import parse_plan
from saga.step_functions.asl import state_machine

PACE = 0.05  # seconds that a second of the machine's pauses lasts
CONNECTION_ARN = "arn:aws:events:eu-central-1:123456789012:connection/saga/5b3c"
ROLE_ARN = "arn:aws:iam::123456789012:role/saga"
MACHINE_ARN = "arn:aws:states:eu-central-1:123456789012:stateMachine:saga"
REFUSED_HEADERS = {"authorization", "host", "connection", "range", "user-agent", "transfer-encoding"}  # some of them
NEVER_CAUGHT, NOT_IN_ALL = "States.Runtime", "States.DataLimitExceeded"

Invoke = Callable[[Mapping[str, Any]], dict[str, Any]]


@dataclass
class Execution:
    """What came of one: `pauses` are the rests that it asked for, in seconds, `states` those that it entered.

    `transitions` is what AWS would bill, `events` how many its history holds.
    """

    status: str
    output: dict[str, Any]
    error: str | None = None
    cause: str | None = None
    states: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)  # the Tasks that succeeded
    pauses: list[float] = field(default_factory=list)
    transitions: int = 0
    events: int = 0

    @property
    def undone(self) -> list[str]:
        """The steps whose compensation was done, in order."""
        return [name.split()[1] for name in self.calls if name.startswith(("Undo ", "Seal "))]


class StepFunctions:
    """Runs definitions as Step Functions would.

    `token` is what the Connection adds to every call; `invoke` takes the place of the network: an HTTP Task's
    arguments in, its result out, or HttpError.
    """

    def __init__(self, token: str | None = None, invoke: Invoke | None = None):
        self.invoke: Invoke = invoke or (lambda arguments: call(arguments, token))

    def run(
        self, definition: SagaDefinition, input: Any, flags: str = "", saga_id: str | None = None
    ) -> tuple[int, dict[str, Any]]:
        """(the status code of POST /start, the saga as its output tells it); `flags` are those of POST /start."""
        execution = self.execute(with_flags(definition, flags), input, saga_id)
        assert execution.status == "SUCCEEDED", (execution.error, execution.cause)
        saga = {**execution.output, "undone": execution.undone}
        if saga["status"] == "COMPLETED":
            return 200, saga
        return COMPENSATED_CODES[saga["error"]["kind"]], saga

    def execute(self, definition: SagaDefinition, input: Any, saga_id: str | None = None) -> Execution:
        """Start an execution of the exported definition and wait for its end."""
        return self.interpret(state_machine(definition, CONNECTION_ARN), input, saga_id or str(uuid_utils.uuid7()))

    def interpret(self, machine: Mapping[str, Any], input: Any, name: str) -> Execution:
        """Start an execution of any machine, and wait for its end."""
        program, _ = AmazonStateLanguageParser.parse(json.dumps(machine))
        env = _environment(input, name)
        running = _running[name] = _Running(self.invoke)
        program.eval(env)
        del _running[name]
        return _told(env, running.pauses)


def with_flags(definition: SagaDefinition, flags: str) -> SagaDefinition:
    """Return the definition that POST /start?<flags> would run."""
    pairs = parse_qsl(flags)
    fail, delay = ([value for name, value in pairs if name == wanted] for wanted in ("fail", "delay"))
    plan = parse_plan(fail, delay, [step.name for step in definition.steps], enabled=True)
    return definition.with_faults(plan.queries(), plan.orchestrator)


def _environment(input: Any, name: str) -> Environment:
    started = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    execution = {"Id": f"arn:{name}", "Input": input, "Name": name, "RoleArn": ROLE_ARN, "StartTime": started}
    return Environment(
        aws_execution_details=AWSExecutionDetails("123456789012", "eu-central-1", ROLE_ARN),
        execution_type=StateMachineType.STANDARD,
        context={"Execution": execution, "StateMachine": {"Id": MACHINE_ARN, "Name": "saga"}},  # type: ignore[arg-type]
        event_history_context=EventHistoryContext.of_program_start(),
        cloud_watch_logging_session=None,
        activity_store={},
    )


def _told(env: Environment, pauses: list[float]) -> Execution:
    history = env.event_manager.get_event_history()
    states: list[str] = []
    calls: list[str] = []
    transitions = 0
    for event in history:
        transitions += event["type"] == HistoryEventType.TaskScheduled  # every attempt is one
        if entered := event.get("stateEnteredEventDetails"):
            states.append(entered["name"])
            transitions += event["type"] != HistoryEventType.TaskStateEntered
        elif "taskSucceededEventDetails" in event:
            calls.append(states[-1])
        elif event["type"] == HistoryEventType.EvaluationFailed:
            calls = calls[:-1]  # the answer came, and could not be used
    state = env.program_state()
    facts: Any = (states, calls, pauses, transitions, len(history))
    if isinstance(state, ProgramEnded):
        return Execution("SUCCEEDED", env.states.get_input(), None, None, *facts)
    error = getattr(state, "error", None) or {}
    return Execution("FAILED", {}, error.get("error"), error.get("cause"), *facts)


class HttpTask(StateTaskService):
    """`arn:aws:states:::http:invoke`, as far as its documentation goes."""

    def _validate_service_integration_is_supported(self) -> None:
        assert self.resource.resource_arn == "arn:aws:states:::http:invoke"

    def _get_sfn_resource(self) -> str:
        return "invoke"

    def _get_sfn_resource_type(self) -> str:
        return "http"

    def _eval_service_task(
        self, env: Environment, resource_runtime_part: Any, normalised_parameters: Any, state_credentials: Any
    ) -> None:
        try:
            env.stack.append(_of(env).invoke(normalised_parameters))
        except HttpError as error:
            raise FailureEventException(self._failed(env, error.name, error.cause)) from None

    def _failed(self, env: Environment, name: str, cause: str) -> FailureEvent:
        details = TaskFailedEventDetails(error=name, cause=cause, resource="invoke", resourceType="http")
        return FailureEvent(
            env, CustomErrorName(name), HistoryEventType.TaskFailed, EventDetails(taskFailedEventDetails=details)
        )

    def _from_error(self, env: Environment, ex: Exception) -> FailureEvent:
        if isinstance(ex, jsonata_of_moto.JSONataException):
            failed = self._failed(env, "States.QueryEvaluationError", str(ex.details))
            failed.event_type = HistoryEventType.EvaluationFailed  # type: ignore[misc]
            return failed
        return super()._from_error(env=env, ex=ex)

    def _handle_retry(self, env: Environment, failure_event: FailureEvent) -> Any:
        self._end_where_nothing_catches(env, failure_event)
        return super()._handle_retry(env, failure_event)

    def _handle_catch(self, env: Environment, failure_event: FailureEvent) -> None:
        self._end_where_nothing_catches(env, failure_event)
        super()._handle_catch(env, failure_event)

    def _end_where_nothing_catches(self, env: Environment, failure_event: FailureEvent) -> None:
        if failure_event.error_name and failure_event.error_name.error_name == NEVER_CAUGHT:
            self._handle_uncaught(env, failure_event)


class HttpError(Exception):
    """An HTTP Task's error, by the name that AWS gives it."""

    def __init__(self, name: str, cause: str):
        super().__init__(name, cause)
        self.name, self.cause = name, cause


def call(arguments: Mapping[str, Any], token: str | None = None) -> dict[str, Any]:
    """Make one call and return {StatusCode, Headers, ResponseBody}; raise HttpError for anything but a 2xx."""
    assert set(arguments) <= {"ApiEndpoint", "Method", "InvocationConfig", "Headers", "QueryParameters", "RequestBody"}
    assert arguments["InvocationConfig"] == {"ConnectionArn": CONNECTION_ARN}
    assert not REFUSED_HEADERS & {name.lower() for name in arguments["Headers"]}
    assert all(isinstance(value, str) for value in arguments["Headers"].values())
    query = urlencode(arguments.get("QueryParameters", {}), doseq=True, safe=":")
    headers = {**arguments["Headers"], **({"Authorization": f"Bearer {token}"} if token else {})}
    body = json.dumps(arguments["RequestBody"]).encode()
    url = arguments["ApiEndpoint"] + (f"?{query}" if query else "")
    request = urllib.request.Request(url, body, headers, method=arguments["Method"])
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return _answered(answer.status, dict(answer.headers), answer.read())
    except urllib.error.HTTPError as error:
        raise HttpError(f"States.Http.StatusCode.{error.code}", error.read().decode(errors="replace")) from None
    except OSError as error:  # refused, reset, cut short
        raise HttpError("States.Http.Socket", str(error)) from None


def _answered(status: int, headers: dict[str, str], content: bytes) -> dict[str, Any]:
    kind = headers.get("Content-Type", "")
    if kind.startswith(("application/octet-stream", "image/", "video/", "audio/")):
        raise HttpError(NEVER_CAUGHT, f"the content type {kind} is not supported")
    if len(content) > 1 << 18:
        raise HttpError(NOT_IN_ALL, "the answer is too large")
    text = content.decode()
    try:
        body = json.loads(text)
    except ValueError:
        body = text
    return {"StatusCode": status, "Headers": {name: [value] for name, value in headers.items()}, "ResponseBody": body}


@dataclass
class _Running:
    invoke: Invoke
    pauses: list[float] = field(default_factory=list)


_running: dict[str, _Running] = {}  # by the execution's name


def _of(env: Environment) -> _Running:
    return _running[env.states.context_object.context_object_data["Execution"]["Name"]]


def _wait(self: WaitFunction, env: Environment, wait_seconds: float) -> None:
    pauses = _of(env).pauses
    pauses.append(wait_seconds)
    assert len(pauses) < 200, "it goes round in circles"
    time.sleep(wait_seconds * PACE)


def evaluate(expression: str) -> Any:
    """Return what jsonata-python makes of an expression."""
    try:
        with _one_at_a_time:
            return Jsonata(expression).evaluate(None)
    except JException as error:
        raise jsonata_of_moto.JSONataException("UNKNOWN", str(error)) from None


_one_at_a_time = threading.Lock()  # jsonata-python keeps the evaluation under way in one place
_matches = ErrorEqualsDecl._eval_body


def _matches_as_on_aws(self: ErrorEqualsDecl, env: Environment) -> None:
    named = env.stack[-1].error_name
    _matches(self, env)
    if named == NOT_IN_ALL and CustomErrorName(NOT_IN_ALL) not in self.error_names:
        env.stack[-1] = False


def _install() -> None:
    """Put what moto lacks into its modules: they have no other way in."""
    sys.setrecursionlimit(1000)  # Python's own, which importing jsonata-python has raised for everybody
    custom_error_name.ILLEGAL_CUSTOM_ERROR_PREFIX = "\0"  # type: ignore[misc]  # AWS's own begin with States.Http.
    state_task_factory.state_task_service_for = lambda service_name: {"http": HttpTask}[service_name]()
    jsonata_of_moto._eval_jsonata = lambda expression: evaluate(expression)
    retrier_decl.time = SimpleNamespace(sleep=lambda seconds: time.sleep(seconds * PACE))  # type: ignore[attr-defined]
    WaitFunction._wait_interval = _wait  # type: ignore[method-assign]
    ErrorEqualsDecl._eval_body = _matches_as_on_aws  # type: ignore[method-assign]


_install()
