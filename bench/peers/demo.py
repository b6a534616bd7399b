"""The orchestrator of a typical demo: Flask's development server, `requests` without a session, a new database
connection for every line of its log, a loop that compensates in reverse. What dies with it stays half done.
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import mysql.connector
import requests
from flask import Flask, Response, jsonify, request
from sqlalchemy import make_url

from bench.peers.calls import ATTEMPTS, STEPS, Failed, post

TABLE = "CREATE TABLE saga_log (saga_id VARCHAR(64), step VARCHAR(8), event VARCHAR(32))"

app = Flask("demo")


@app.post("/start")
def start() -> tuple[Response, int]:
    """Run one saga."""
    saga_id, known, fail = str(uuid.uuid4()), dict(request.get_json()), request.args.get("fail", "")
    done: list[str] = []
    for step in STEPS:
        try:
            known |= _attempt(saga_id, step, "invoke", known, fail)
        except Failed as error:
            for earlier in reversed(done):
                _attempt(saga_id, earlier, "compensate", known)
            return jsonify(saga_id=saga_id, status="COMPENSATED", error=str(error)), 500
        done.append(step)
    return jsonify(saga_id=saga_id, status="COMPLETED"), 200


def _attempt(saga_id: str, step: str, verb: str, known: Mapping[str, Any], fail: str = "") -> dict[str, Any]:
    _write(saga_id, step, f"{verb}: started")
    for attempt in range(ATTEMPTS):
        try:
            answer = post(requests, saga_id, step, verb, known, fail)
        except Failed:
            if attempt == ATTEMPTS - 1:
                _write(saga_id, step, f"{verb}: failed")
                raise
        else:
            _write(saga_id, step, f"{verb}: done")
            return answer
    raise AssertionError("unreachable: the last attempt returns or raises")


def _write(saga_id: str, step: str, event: str) -> None:
    with closing(_connect()) as connection:
        mark = "?" if isinstance(connection, sqlite3.Connection) else "%s"
        cursor = connection.cursor()
        cursor.execute(f"INSERT INTO saga_log VALUES ({mark}, {mark}, {mark})", (saga_id, step, event))
        connection.commit()


def _connect() -> Any:
    url = make_url(os.environ["DB_URL"])
    if url.get_backend_name() == "sqlite":
        return sqlite3.connect(str(url.database), timeout=60)
    return mysql.connector.connect(
        host=url.host, port=url.port, user=url.username, password=url.password or "", database=url.database
    )


if __name__ == "__main__":
    with closing(_connect()) as made:
        made.cursor().execute(TABLE)
    app.run(host="127.0.0.1", port=int(os.environ["PORT"]), threaded=True)
