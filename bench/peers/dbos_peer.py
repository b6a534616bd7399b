"""DBOS: a durable workflow with a step for each call, its state in SQLite, behind the server that ours has."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

import requests
from dbos import DBOS
from flask import Flask, Response, jsonify, request

from bench.peers.calls import ATTEMPTS, STEPS, post
from saga.kits.flask import REQUEST_THREADS
from saga.process import server

_local = threading.local()


@DBOS.step(retries_allowed=True, max_attempts=ATTEMPTS, interval_seconds=0)
def call(step: str, verb: str, known: Mapping[str, Any], fail: str = "") -> dict[str, Any]:
    """One call to a service."""
    if not hasattr(_local, "session"):
        _local.session = requests.Session()
    return post(_local.session, str(DBOS.workflow_id), step, verb, known, fail)


@DBOS.workflow()
def signup(known: dict[str, Any], fail: str) -> bool:
    """Whether it completed; else it was compensated."""
    done: list[str] = []
    for step in STEPS:
        try:
            known = known | call(step, "invoke", known, fail)
        except Exception:
            for earlier in reversed(done):
                call(earlier, "compensate", known)
            return False
        done.append(step)
    return True


def create_app() -> Flask:
    """One route: POST /start."""
    DBOS(config={"name": "peer", "system_database_url": f"sqlite:///{os.environ['STATE']}"})
    DBOS.launch()
    app = Flask("dbos_peer")

    @app.post("/start")
    def start() -> tuple[Response, int]:
        completed = signup(request.get_json(), request.args.get("fail", ""))
        return jsonify(status="COMPLETED" if completed else "COMPENSATED"), 200 if completed else 500

    return app


if __name__ == "__main__":
    port = int(os.environ["PORT"])
    target = "__main__:create_app"  # imported by its name, the workflow would be registered twice
    server.serve(target, host="127.0.0.1", port=port, variable="PORT", threads=REQUEST_THREADS)
