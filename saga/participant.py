"""This module keeps the participant contract without a web framework: a call comes in as data, an answer goes out.

A kit (saga/kits/flask.py is one) reads a request of its framework into a ParticipantRequest, lets Endpoints answer it,
and turns the ParticipantResponse into one of its framework. All that the contract says of headers, bodies, status codes
and records is here, so that every kit keeps the same contract.

    POST /invoke              Endpoints.invoke            the action, once
    POST /compensate          Endpoints.compensate        the compensation, once
    GET  /records[/<saga>]    Endpoints.records           the business rows, and a saga's barrier rows too
    GET  /healthz, /readyz    Endpoints.healthy, .ready   the process serves; its database answers
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import uuid_utils
from jsonschema import Draft202012Validator
from sqlalchemy import BigInteger, Column, Integer, MetaData, RowMapping, Table, select
from sqlalchemy.exc import SQLAlchemyError

from saga.barrier import Key, saga_barrier
from saga.errors import BadInput, Forbidden
from saga.local_transaction import (
    AttemptHooks,
    LocalOutcome,
    LocalTransactions,
    StepFunction,
    failure_message,
    log_failure,
)
from saga.payload import check_fields, compact, digest, iso, mask, parse_object, schema_of
from saga.storage.column_types import Token, decodable

REQUEST_BYTES_AT_MOST = 1 << 20  # bytes; a kit answers 413 to a larger one
JSON_TYPE = "application/json"
# The headers that Endpoints reads.
HEADERS = ("Saga-Id", "Saga-Step", "Saga-Attempt", "Saga-Dry-Run")
# The paths that are served to everybody, also where there is a token.
OPEN_PATHS = ("/healthz", "/readyz")


def business_table(name: str, *columns: Column[Any]) -> Table:
    """Return a service's own table: the columns `id` and `saga_id`, which says whose row it is, then those given."""
    number = BigInteger().with_variant(Integer, "sqlite")
    saga_id = Column("saga_id", Token(255), nullable=False, index=True)
    return Table(name, MetaData(), Column("id", number, primary_key=True), saga_id, *columns)


@dataclass(frozen=True)
class ParticipantDefinition:
    """A service as its author describes it."""

    # The service's name, which is also that of its step.
    name: str
    table: Table
    action: StepFunction
    compensation: StepFunction
    # A JSON Schema of the action's fields.
    schema: Mapping[str, Any]
    # The columns that /records masks, and the fields whose values no error quotes.
    secret: Sequence[str] = ()


@dataclass(frozen=True)
class ParticipantRequest:
    """What Endpoints needs of a call: those of HEADERS that it has, its query in order, its whole body."""

    headers: Mapping[str, str]
    query: Sequence[tuple[str, str]] = ()
    body: bytes = b""


@dataclass(frozen=True)
class ParticipantResponse:
    """What a kit is to send."""

    status: int
    text: str
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = JSON_TYPE


@dataclass(frozen=True)
class CallHeaders:
    """What the headers of a call say, checked."""

    saga_id: str
    step: str
    attempt: int
    dry_run: bool
    # The call named no saga (somebody's curl), so that the service has made up an id and answers with it.
    anonymous: bool

    @classmethod
    def read(cls, headers: Mapping[str, str], own_step: str) -> CallHeaders:
        """Return what the headers of a call say; `own_step` is the step of the service that is called.

        Raises BadInput, which names the header, where one is wrong.
        """
        anonymous = "Saga-Id" not in headers
        saga_id = str(uuid_utils.uuid7()) if anonymous else headers["Saga-Id"]
        step, attempt = headers.get("Saga-Step", own_step), headers.get("Saga-Attempt", "1")
        check_saga_id(saga_id, "the header Saga-Id")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", step):
            raise BadInput("the header Saga-Step must be a name: a letter, then letters, digits, - and _", "Saga-Step")
        if not re.fullmatch(r"[1-9][0-9]{0,8}", attempt):
            raise BadInput(f"the header Saga-Attempt must be a number from 1 on, not {attempt!r}", "Saga-Attempt")
        dry_run = headers.get("Saga-Dry-Run", "").lower() == "true"
        return cls(saga_id, step, int(attempt), dry_run, anonymous)

    def key(self, fields: Mapping[str, Any]) -> Key:
        """Return the call's row in the barrier."""
        return Key(self.saga_id, self.step, digest(fields))


class Endpoints:
    """Answers the requests to one service."""

    def __init__(self, participant: ParticipantDefinition, transactions: LocalTransactions, token: str | None = None):
        """Check the author's schema.

        Raises jsonschema's SchemaError where it is not one: the service does not start.
        """
        Draft202012Validator.check_schema(participant.schema)
        self.schema = schema_of(participant.schema)
        self._participant = participant
        self._transactions = transactions
        self._token = token

    def check_token(self, path: str, authorization: str) -> ParticipantResponse | None:
        """Return the 401 for a request that does not show the service's token where it has to; None for any other.

        `authorization` is the header Authorization, "" where there is none.
        """
        if not self._token or path in OPEN_PATHS:
            return None
        if hmac.compare_digest(authorization.encode(), f"Bearer {self._token}".encode()):
            return None
        message = "the header Authorization: Bearer … does not hold this service's SAGA_TOKEN"
        return error_response(401, message, headers={"WWW-Authenticate": "Bearer"})

    def invoke(self, request: ParticipantRequest) -> ParticipantResponse:
        """Answer a call of the action."""

        def act(call: CallHeaders, hooks: AttemptHooks) -> LocalOutcome:
            fields = parse_object(request.body)
            check_fields(self.schema, fields, self._participant.secret)
            if call.dry_run:
                return self._transactions.dry_run(call.saga_id, fields)
            return self._transactions.act(call.key(fields), fields, hooks)

        return self._answer_call(request, act)

    def compensate(self, request: ParticipantRequest) -> ParticipantResponse:
        """Answer a call of the compensation; its body may be empty, and its fields are not checked."""

        def undo(call: CallHeaders, hooks: AttemptHooks) -> LocalOutcome:
            fields = parse_object(request.body) if request.body.strip() else {}
            return self._transactions.compensate(call.key(fields), fields, hooks)

        return self._answer_call(request, undo)

    def records(self, saga_id: str) -> ParticipantResponse:
        """Return the business rows and the barrier rows of one saga."""
        return _answered(lambda: self._records(saga_id))

    def latest_records(self, limit: str = "50") -> ParticipantResponse:
        """Return the latest business rows, newest first; `limit` is as it was sent."""
        return _answered(lambda: self._latest_records(limit))

    def healthy(self) -> ParticipantResponse:
        """Return 200: the process serves."""
        return json_response(200, {"status": "ok"})

    def ready(self) -> ParticipantResponse:
        """Return 200 where the database answers, else 503."""
        try:
            with self._transactions.engine.begin() as connection:
                connection.execute(select(self._participant.table.c.id).limit(1))
        except SQLAlchemyError:
            return error_response(503, "the database does not answer")
        return json_response(200, {"status": "ready"})

    def _answer_call(
        self, request: ParticipantRequest, work: Callable[[CallHeaders, AttemptHooks], LocalOutcome]
    ) -> ParticipantResponse:
        """Return the response to a call. It names the saga in any case: who gave no id needs it to compensate."""
        saga: dict[str, str] = {}

        def answer() -> ParticipantResponse:
            call = CallHeaders.read(request.headers, self._participant.name)
            saga["Saga-Id"] = call.saga_id
            hooks = self._transactions.find_hooks(request.query, call.attempt)
            hooks.before()
            return _response(call, work(call, hooks))

        return _answered(answer, saga)

    def _records(self, saga_id: str) -> ParticipantResponse:
        check_saga_id(saga_id, "the saga id")
        table = self._participant.table
        with self._transactions.engine.begin() as connection:
            rows = connection.execute(select(table).where(table.c.saga_id == saga_id).order_by(table.c.id))
            shown = [self._shown(row) for row in rows.mappings()]
            found = connection.execute(select(saga_barrier).where(saga_barrier.c.saga_id == saga_id)).mappings().all()
        barriers = [
            {name: iso(value) if isinstance(value, float) else value for name, value in decodable(row).items()}
            for row in found
        ]
        barrier = mask(barriers, self._participant.secret)
        return json_response(200, {"saga_id": saga_id, "records": shown, "barrier": barrier})

    def _latest_records(self, limit: str) -> ParticipantResponse:
        if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= 500:
            raise BadInput(f"limit must be 1 to 500, not {limit!r}", "limit")
        table = self._participant.table
        with self._transactions.engine.begin() as connection:
            rows = connection.execute(select(table).order_by(table.c.id.desc()).limit(int(limit)))
            return json_response(200, {"records": [self._shown(row) for row in rows.mappings()]})

    def _shown(self, row: RowMapping) -> dict[str, Any]:
        shown: dict[str, Any] = mask(decodable(row), self._participant.secret)
        return shown


def check_saga_id(saga_id: str, what: str) -> None:
    """Raise BadInput, which calls it `what`, where this is no saga id."""
    if not re.fullmatch(r"[\x20-\x7e]{1,255}", saga_id):
        raise BadInput(f"{what} must be 1 to 255 printable ASCII characters", "Saga-Id")


def json_response(
    status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> ParticipantResponse:
    """Return a response with this JSON body, and a line's end after it for those who read it in a terminal."""
    return ParticipantResponse(status, f"{compact(body)}\n", headers or {})


def error_response(
    status: int, message: Any, field: str | None = None, headers: Mapping[str, str] | None = None
) -> ParticipantResponse:
    """Return a response with the contract's `{"error": "…"}`, and the name of the field that is wrong where one is."""
    return json_response(status, {"error": str(message), **({"field": field} if field else {})}, headers)


def _response(call: CallHeaders, outcome: LocalOutcome) -> ParticipantResponse:
    """Return the response that tells of a local transaction's outcome."""
    if outcome.error is not None:
        log_failure("call_failed", outcome.error)
    if outcome.garbled is not None:
        return ParticipantResponse(outcome.answer.status, outcome.garbled, content_type="text/html; charset=utf-8")
    body = {**outcome.answer.body, "saga_id": call.saga_id} if call.anonymous else outcome.answer.body
    effect = {"Saga-Effect": "none"} if outcome.certain else {}
    return ParticipantResponse(outcome.answer.status, compact(body), effect)


def failure_response(error: Exception) -> ParticipantResponse:
    """Log an error that nobody expected, and return the 500 for it, which says nothing of any effect.

    The errors of a local transaction do not come by here: LocalTransactions turns them into an outcome, which says what
    is known of its effect. Of any other error it is not known whether it came before or after the transaction.
    """
    log_failure("call_failed", error)
    message = failure_message(error) if isinstance(error, SQLAlchemyError) else "the service failed"
    return error_response(500, message)


def _answered(work: Callable[[], ParticipantResponse], headers: Mapping[str, str] | None = None) -> ParticipantResponse:
    """Return what `work` returns, or the response to its error, with the `headers` that it has filled in by then."""
    try:
        response = work()
    except BadInput as error:
        response = error_response(400, error, error.field)
    except Forbidden as error:
        response = error_response(403, error)
    except Exception as error:
        response = failure_response(error)
    return replace(response, headers={**response.headers, **headers}) if headers else response
