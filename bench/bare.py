"""The smallest durable service there can be, for comparison: Flask, the driver, one INSERT, and no kit.

Served by the same server with as many threads as our services, so that the ratio to it is the kit's own price.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Any

import mysql.connector
from flask import Flask, Response, jsonify, request
from sqlalchemy import make_url

from saga.kits.flask import REQUEST_THREADS
from saga.process import server

COLUMNS = {"A": ("username",), "B": ("user_id", "address"), "C": ("user_id", "payment")}

_local = threading.local()


def create_app() -> Flask:
    """Return the app, which has one route: POST /invoke."""
    url, name = make_url(os.environ["DB_URL"]), os.environ["SERVICE"]
    connect, mark = (_sqlite(url), "?") if url.get_backend_name() == "sqlite" else (_mysql(url), "%s")
    columns = ("saga_id", *COLUMNS[name])
    statement = f"INSERT INTO TABLE_{name} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"
    one_at_a_time = threading.Lock()  # SQLite has one writer: threads that queue for it beat those that poll for it
    app = Flask("bare")

    @app.post("/invoke")
    def invoke() -> Response:
        fields = request.get_json()
        values = (request.headers["Saga-Id"], *(fields.get(column) for column in COLUMNS[name]))
        if not hasattr(_local, "connection"):
            _local.connection = connect()
        if mark == "?":
            with one_at_a_time:
                return jsonify(user_id=_insert(_local.connection, statement, values))
        return jsonify(user_id=_insert(_local.connection, statement, values))

    return app


def _insert(connection: Any, statement: str, values: tuple[Any, ...]) -> int:
    cursor = connection.cursor()
    cursor.execute(statement, values)
    connection.commit()
    made = cursor.lastrowid
    cursor.close()
    return int(made)


def _mysql(url: Any) -> Callable[[], Any]:
    return lambda: mysql.connector.connect(
        host=url.host, port=url.port, user=url.username, password=url.password, database=url.database
    )


def _sqlite(url: Any) -> Callable[[], Any]:
    def connect() -> Any:
        connection = sqlite3.connect(url.database, timeout=30)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    return connect


if __name__ == "__main__":
    port = int(os.environ["PORT"])
    server.serve("bench.bare:create_app", host="127.0.0.1", port=port, variable="PORT", threads=REQUEST_THREADS)
