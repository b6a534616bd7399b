"""The routes that start a saga, list sagas, and show one saga with its log."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, request

from orchestrator.attempt_lines import show_exchange
from orchestrator.definition_to_start import definition_to_start
from orchestrator.parts import Orchestrator
from orchestrator.request_arguments import (
    check_flags,
    idempotency_key,
    prefers_async,
    query_in,
    seconds_in,
    whole_number_in,
)
from orchestrator.status_codes import status_code_of_saga
from saga.errors import NoSuchSaga, SagaUnreadable
from saga.payload import parse_object
from saga.saga_row import SagaRow
from saga.unreadable import Unreadable
from saga.views.calls import lines_now
from saga.views.raw_export import raw_export
from saga.views.raw_rows import raw_rows
from saga.views.representation import represent, represent_lines

PAGE_BYTES = 8 << 20  # of input and results, in a page of sagas
LINES, LINES_AT_MOST = 1000, 10_000  # in a page of a saga's log
SEARCHES = 20  # for one page, while some of what was found turns out to be unreadable
LIST_FLAGS = (
    "status", "saga", "q", "limit", "before", "mode", "engine", "step", "kind", "since", "until", "sort", "now",
)  # fmt: skip
WAIT = 30.0  # seconds that POST /start waits for the saga's end
WAIT_AT_MOST = 300.0

blueprint = Blueprint("sagas", __name__)


@blueprint.post("/start")
def start(orchestrator: Orchestrator) -> Response:
    """Start a saga, and answer when it has ended or when `wait` seconds are over."""
    check_flags("saga", "mode", "wait", "fail", "delay")
    flags = request.args
    definition = definition_to_start(
        orchestrator, flags.get("saga"), flags.get("mode"), flags.getlist("fail"), flags.getlist("delay")
    )
    wait = 0.0 if prefers_async() else seconds_in("wait", WAIT, WAIT_AT_MOST)
    key = idempotency_key()
    body = parse_object(request.get_data())
    orchestrator.check_start(definition, key)
    saga = represent(orchestrator.starter.run(definition, body, key, wait))
    response = jsonify(saga)
    response.status_code = status_code_of_saga(saga)
    if response.status_code == 202:
        response.headers["Location"] = f"/sagas/{saga['saga_id']}"
    return response


@blueprint.get("/sagas")
def list_sagas(orchestrator: Orchestrator) -> Response:
    """Return a page of the latest sagas: as many as `limit` says, or fewer where they are large.

    Where no index finds what is asked for, `looked_at` says how many were looked at, and `looked_to` where to go on.
    """
    check_flags(*LIST_FLAGS)
    query = query_in(request.args, whole_number_in("limit", 50, 1, 500))
    for _ in range(SEARCHES):
        found = orchestrator.search.search(query)
        page = orchestrator.search.filled(found.sagas, PAGE_BYTES)
        if not query.readable or all(isinstance(saga, SagaRow) for saga in page):
            break  # else one of them was just found to be unreadable, which the next search knows
    shown = [saga for saga in page if not query.readable or isinstance(saga, SagaRow)]
    partly = {} if found.looked_at is None else {"looked_at": found.looked_at, "looked_to": found.looked_to}
    now = lines_now(orchestrator.log, shown, orchestrator.starter.deps.clock()) if request.args.get("now") else None
    return jsonify(sagas=[represent(saga) for saga in shown], **partly, **({} if now is None else {"now": now}))


@blueprint.get("/sagas/<saga_id>")
def show_saga(orchestrator: Orchestrator, saga_id: str) -> Response:
    """Return the representation of one saga."""
    return jsonify(represent(orchestrator.starter.read(saga_id)))


@blueprint.get("/sagas/<saga_id>/log")
def show_log(orchestrator: Orchestrator, saga_id: str) -> Response:
    """Return a page of one saga's log, the oldest lines first; `next` is the `after` of the following page."""
    check_flags("after", "limit")
    after, most = whole_number_in("after", 0, 0, 999_999_999), whole_number_in("limit", LINES, 1, LINES_AT_MOST)
    row = orchestrator.starter.read(saga_id)
    lines = orchestrator.log.lines(saga_id, after, most + 1)
    more = {"next": lines[most - 1].seq} if len(lines) > most else {}
    return jsonify(lines=represent_lines(lines[:most], row), **more)


@blueprint.get("/sagas/<saga_id>/attempts/<int:seq>")
def show_attempt(orchestrator: Orchestrator, saga_id: str, seq: int) -> Response:
    """One attempt: its line, and what was sent and answered, as far as it was kept."""
    row = orchestrator.starter.read(saga_id)
    if isinstance(row, Unreadable):
        raise SagaUnreadable(f"the saga {saga_id} cannot be read: {row.reason}")
    return jsonify(show_exchange(orchestrator.log, orchestrator.exchanges, row, seq))


@blueprint.get("/sagas/<saga_id>/export")
def export(orchestrator: Orchestrator, saga_id: str) -> Response:
    """Return one saga's row and lines as the database has them, whatever is in them."""
    found = raw_rows(orchestrator.log, saga_id)
    if found is None:
        raise NoSuchSaga(f"there is no saga {saga_id!r}")
    return jsonify(raw_export(*found))
