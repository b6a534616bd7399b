"""The kit for a Flask service that takes part in sagas: the author writes two functions, the kit keeps the contract.

    def create_user(tx, fields):            # the action: in one local transaction with the barrier row
        made = tx.execute(users.insert(), {"saga_id": tx.saga_id, "username": fields["username"]})
        return {"user_id": made.inserted_primary_key[0]}

    def delete_user(tx, fields):            # its compensation; called only where the action took effect
        tx.execute(users.delete().where(users.c.saga_id == tx.saga_id))

Either raises Refused to say no. Being sent twice, late, or in the wrong order is the kit's business.
"""

from __future__ import annotations

import hmac
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import uuid_utils
from flask import Flask, Response, g, jsonify, request
from jsonschema import Draft202012Validator
from sqlalchemy import BigInteger, Column, Engine, Integer, MetaData, RowMapping, Table, select
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException

from saga import barrier
from saga.barrier import Answer, Key, Transaction
from saga.choreography import inbox, outbox
from saga.choreography.events import subscriptions_of
from saga.choreography.wiring import MessageEndpoint, attach_listener, load_valid_definitions
from saga.errors import BadInput, Forbidden, NotJson, OutcomeUnknown, Refused, SettingsError
from saga.faults.flags import Delay, Fault, FaultKind, check_enabled, parse_delay, parse_fault, waited
from saga.kits.flask_json import ExactJson
from saga.kits.metrics import Calls
from saga.kits.request_body import read_bodies
from saga.local_transaction import Function, LocalTransactions
from saga.payload import check_fields, compact, digest, iso, mask, parse_object, sayable, schema_of
from saga.process import server
from saga.process.settings import Settings, load_settings
from saga.storage.column_types import Token, decodable
from saga.storage.database import connect, create_tables
from saga.storage.database_errors import STATEMENT_REFUSED

__all__ = ["Participant", "Refused", "Settings", "Transaction", "business_table", "load_settings"]

BODY_AT_MOST = 1 << 20  # bytes
THREADS = 64  # requests served at once: an injected `lost` or `late` keeps one for 20 s


def business_table(name: str, *columns: Column[Any]) -> Table:
    """A service's own table: `id`, then `saga_id`, which is whose row it is, then its columns."""
    number = BigInteger().with_variant(Integer, "sqlite")
    saga_id = Column("saga_id", Token(255), nullable=False, index=True)
    return Table(name, MetaData(), Column("id", number, primary_key=True), saga_id, *columns)


@dataclass(frozen=True)
class Participant:
    """One service: its name (also its step's), its table, its two functions, and the JSON Schema of their fields."""

    name: str
    table: Table
    action: Function
    compensation: Function
    schema: Mapping[str, Any]
    secret: Sequence[str] = ()  # columns that /records masks

    def create_app(self, settings: Settings | None = None, exit: Callable[[int], Any] = os._exit) -> Flask:
        """The Flask app, with its database; tests pass their own settings, and `exit` for an injected crash."""
        settings = settings or load_settings()
        engine = connect(settings.service_db_url(self.name), pool_size=THREADS // 2)
        create_tables(engine, self.table.metadata)
        for metadata in (barrier.metadata, outbox.metadata, inbox.metadata):
            create_tables(engine, metadata)
        routes = _Routes(self, settings, engine, exit)
        routes.listen()
        return routes.app

    def serve(self, target: str) -> None:
        """Run the app that the factory `target` ("service_a.app:create_app") makes, until SIGTERM."""
        try:
            settings = load_settings()
            port = settings.service_port(self.name)
        except SettingsError as error:
            sys.exit(str(error))
        server.serve(target, host=settings.host, port=port, variable=f"SERVICE_{self.name}_PORT", threads=THREADS)


class _Routes:
    """The participant contract over HTTP."""

    def __init__(self, service: Participant, settings: Settings, engine: Engine, exit: Callable[[int], Any]):
        self.service = service
        self.settings = settings
        self.engine = engine
        Draft202012Validator.check_schema(service.schema)  # an author's slip stops the service, not its first call
        self.schema = schema_of(service.schema)
        self.closed = threading.Event()
        self.calls = Calls()
        hold = settings.fault_hold_seconds
        self.transactions = LocalTransactions(
            engine, service.action, service.compensation, exit, self.closed, hold, self.calls.count
        )
        self.app = app = Flask(service.name)
        app.json = ExactJson(app)
        self.message_endpoint: MessageEndpoint | None = None  # where choreographed sagas are known here
        app.close = self.close  # type: ignore[attr-defined]
        app.url_map.merge_slashes = False  # a saga's id may hold two
        app.before_request(self.check_token)
        read_bodies(app, BODY_AT_MOST)
        app.after_request(_name_saga)
        app.post("/invoke")(self.invoke)
        app.post("/compensate")(self.compensate)
        app.get("/records")(self.latest_records)
        app.get("/records/<path:saga_id>")(self.records)
        app.get("/healthz")(lambda: jsonify(status="ok"))
        app.get("/readyz")(self.ready)
        app.get("/metrics")(self.metrics)
        app.register_error_handler(BadInput, lambda error: _error(400, error, field=error.field))
        app.register_error_handler(Forbidden, lambda error: _error(403, error))
        app.register_error_handler(HTTPException, _http_error)
        app.register_error_handler(OutcomeUnknown, lambda error: _error(500, error))
        app.register_error_handler(Exception, self.failed)

    def listen(self) -> None:
        """Take part in the choreographed sagas that have a step of this name."""
        settings, service = self.settings, self.service
        if settings.nats_url is None or not settings.sagas_dir.is_dir():
            return
        if heard := subscriptions_of(service.name, load_valid_definitions(settings.sagas_dir, settings.environ)):
            self.message_endpoint = attach_listener(
                service.name, heard, self.transactions, self.schema, service.secret, settings
            )
            self.message_endpoint.open()

    def close(self) -> None:
        """End the holds, and listen to nothing more."""
        self.closed.set()
        if self.message_endpoint:
            self.message_endpoint.close()

    def invoke(self) -> Response:
        """The action."""
        faults, delays = self._faults()
        call = _Call(self.service.name)
        self._wait(delays, call)
        fields = self._fields()
        check_fields(self.schema, fields, self.service.secret)
        if call.dry_run:
            return call.answered(self._dry_run(call, fields))
        active_faults = {fault.kind for fault in faults if fault.strikes(call.attempt)}
        outcome = self.transactions.act(call.key(fields), fields, active_faults)
        if outcome.garbage:
            return Response("<garbage>", 200, mimetype="text/html")
        return call.answered(outcome.answer, outcome.certain)

    def compensate(self) -> Response:
        """The compensation."""
        faults, delays = self._faults()
        call = _Call(self.service.name)
        self._wait(delays, call)
        active_faults = {fault.kind for fault in faults if fault.strikes(call.attempt)}
        fields = {} if FaultKind.UNDO in active_faults else self._fields()
        outcome = self.transactions.compensate(call.key(fields), fields, active_faults)
        return call.answered(outcome.answer, outcome.certain)

    def _dry_run(self, call: _Call, fields: Mapping[str, Any]) -> Answer:
        """What the action would say now: its transaction is rolled back, the barrier untouched."""
        with self.engine.connect() as connection, connection.begin() as begun:
            try:
                result = self.service.action(Transaction(connection, call.saga_id), fields) or {}
                return Answer(200, sayable(result, "what the action returned")[0])
            except Refused as refusal:
                return Answer(409, {"error": str(refusal)})
            finally:
                begun.rollback()

    def records(self, saga_id: str) -> Response:
        """The rows of one saga, and its barrier rows."""
        _check_saga_id(saga_id, "the saga id")
        table = self.service.table
        with self.engine.begin() as connection:
            rows = connection.execute(select(table).where(table.c.saga_id == saga_id).order_by(table.c.id))
            shown = [self._shown(row) for row in rows.mappings()]
            guards = barrier.saga_barrier
            found = connection.execute(select(guards).where(guards.c.saga_id == saga_id)).mappings().all()
            barriers = [
                {name: iso(value) if isinstance(value, float) else value for name, value in decodable(row).items()}
                for row in found
            ]
        return jsonify(saga_id=saga_id, records=shown, barrier=mask(barriers, self.service.secret))

    def latest_records(self) -> Response:
        """The latest rows, newest first."""
        limit = request.args.get("limit", "50")
        if not re.fullmatch(r"[0-9]{1,3}", limit) or not 1 <= int(limit) <= 500:
            raise BadInput(f"limit must be 1 to 500, not {limit!r}", "limit")
        table = self.service.table
        with self.engine.begin() as connection:
            rows = connection.execute(select(table).order_by(table.c.id.desc()).limit(int(limit)))
            return jsonify(records=[self._shown(row) for row in rows.mappings()])

    def ready(self) -> Response:
        """Whether the database answers."""
        try:
            with self.engine.begin() as connection:
                connection.execute(select(self.service.table.c.id).limit(1))
        except SQLAlchemyError:
            return _error(503, "the database does not answer")
        return jsonify(status="ready")

    def metrics(self) -> Response:
        """Prometheus's text format."""
        return Response(self.calls.metrics(), mimetype="text/plain; version=0.0.4")

    def check_token(self) -> Response | None:
        """401 unless the caller shows SAGA_TOKEN, where one is set."""
        if not self.settings.token or request.path in ("/healthz", "/readyz"):
            return None
        shown = request.headers.get("Authorization", "")
        if hmac.compare_digest(shown.encode(), f"Bearer {self.settings.token}".encode()):
            return None
        response = _error(401, "the header Authorization: Bearer … does not hold this service's SAGA_TOKEN")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response

    def failed(self, error: Exception) -> Response:
        """Anything else was raised before the COMMIT: rolled back, so it certainly changed nothing."""
        if isinstance(error, NotJson):
            self.app.logger.error("call_failed: %s", error)
            return _nothing_done(f"the service failed, and rolled back: {error}")
        self.app.logger.error("call_failed: %s", type(error).__name__, exc_info=not isinstance(error, SQLAlchemyError))
        away = isinstance(error, SQLAlchemyError) and not isinstance(error, STATEMENT_REFUSED)
        return _nothing_done("the database does not answer" if away else "the service failed, and rolled back")

    def _fields(self) -> dict[str, Any]:
        body = request.get_data()
        return parse_object(body) if body.strip() or request.path == "/invoke" else {}

    def _faults(self) -> tuple[list[Fault], list[Delay]]:
        if not request.environ.get("QUERY_STRING"):
            return [], []
        fail, delay = request.args.getlist("fail"), request.args.getlist("delay")
        check_enabled(fail, delay, self.settings.faults)
        faults = [parse_fault(flag, f"fail={flag}") for flag in fail]
        return faults, [parse_delay(flag, f"delay={flag}") for flag in delay]

    def _wait(self, delays: Sequence[Delay], call: _Call) -> None:
        if wait := waited(delays, call.attempt):
            self.closed.wait(wait)

    def _shown(self, row: RowMapping) -> dict[str, Any]:
        shown: dict[str, Any] = mask(decodable(row), self.service.secret)
        return shown


class _Call:
    """What the contract's headers say; BadInput names the one that is wrong."""

    def __init__(self, own_step: str):
        said = request.environ  # as request.headers has them, without its copies of their names
        self.anonymous = "HTTP_SAGA_ID" not in said
        self.saga_id = str(uuid_utils.uuid7()) if self.anonymous else said["HTTP_SAGA_ID"]
        self.step = said.get("HTTP_SAGA_STEP", own_step)
        attempt = said.get("HTTP_SAGA_ATTEMPT", "1")
        _check_saga_id(self.saga_id, "the header Saga-Id")
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", self.step):
            raise BadInput("the header Saga-Step must be a name: a letter, then letters, digits, - and _", "Saga-Step")
        if not re.fullmatch(r"[1-9][0-9]{0,8}", attempt):
            raise BadInput(f"the header Saga-Attempt must be a number from 1 on, not {attempt!r}", "Saga-Attempt")
        self.attempt = int(attempt)
        g.saga_id = self.saga_id
        self.dry_run = said.get("HTTP_SAGA_DRY_RUN", "").lower() == "true"

    def key(self, fields: Mapping[str, Any]) -> Key:
        return Key(self.saga_id, self.step, digest(fields))

    def answered(self, answer: Answer, certain: bool = False) -> Response:
        """The answer over HTTP; `certain`: it is known that nothing was changed."""
        body = {**answer.body, "saga_id": self.saga_id} if self.anonymous else answer.body
        response = Response(compact(body), answer.status, content_type="application/json")
        if certain:
            response.headers["Saga-Effect"] = "none"
        return response


def _check_saga_id(saga_id: str, what: str) -> None:
    if not re.fullmatch(r"[\x20-\x7e]{1,255}", saga_id):
        raise BadInput(f"{what} must be 1 to 255 printable ASCII characters", "Saga-Id")


def _name_saga(response: Response) -> Response:
    """Every answer to a call names its saga, a failure's too: whoever gave no id needs it to compensate."""
    if "saga_id" in g:
        response.headers["Saga-Id"] = g.saga_id
    return response


def _http_error(error: HTTPException) -> Response:
    response = _error(error.code or 500, error.description)
    response.headers.extend([(name, value) for name, value in error.get_headers() if name != "Content-Type"])  # Allow
    return response


def _nothing_done(message: str) -> Response:
    response = _error(500, message)
    response.headers["Saga-Effect"] = "none"
    return response


def _error(status: int, message: Any, **more: Any) -> Response:
    response = jsonify({"error": str(message), **{key: value for key, value in more.items() if value}})
    response.status_code = status
    return response
