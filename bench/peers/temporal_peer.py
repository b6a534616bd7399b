"""Temporal: a workflow with an activity for each call, on its development server with its state in SQLite.

The worker, and the HTTP front that executes a workflow and waits for it, are one process on asyncio.
"""

from __future__ import annotations

import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ActivityError

with workflow.unsafe.imports_passed_through():
    import aiohttp
    from aiohttp import web
    from temporalio.testing import WorkflowEnvironment
    from temporalio.worker import Worker

    from bench.peers.calls import ATTEMPTS, STEPS, post_async

QUEUE = "signup"
TIMEOUT = timedelta(seconds=30)
ON_TIME = 'history.timerProcessorMaxTimeShift="1ms"'  # by default a retry comes 1 s late, and only that is measured
SHORTEST = timedelta(milliseconds=1)
FORWARD = RetryPolicy(initial_interval=SHORTEST, maximum_interval=SHORTEST, maximum_attempts=ATTEMPTS)


@dataclass
class Call:
    """What an activity is told."""

    saga_id: str
    step: str
    verb: str
    known: dict[str, Any]
    fail: str = ""


class Services:
    """The activities."""

    def __init__(self, http: aiohttp.ClientSession):
        self._http = http

    @activity.defn
    async def call(self, to: Call) -> dict[str, Any]:
        """One call to a service."""
        return await post_async(self._http, to.saga_id, to.step, to.verb, to.known, to.fail)


@workflow.defn
class Signup:
    """The saga."""

    @workflow.run
    async def run(self, known: dict[str, Any], fail: str) -> bool:
        """Whether it completed; else it was compensated."""
        saga_id = workflow.info().workflow_id
        done: list[str] = []
        for step in STEPS:
            forward = Call(saga_id, step, "invoke", known, fail)
            try:
                known = known | await workflow.execute_activity_method(
                    Services.call, forward, start_to_close_timeout=TIMEOUT, retry_policy=FORWARD
                )
            except ActivityError:
                for earlier in reversed(done):
                    back = Call(saga_id, earlier, "compensate", known)
                    await workflow.execute_activity_method(Services.call, back, start_to_close_timeout=TIMEOUT)
                return False
            done.append(step)
        return True


def binary() -> str | None:
    """The `temporal` command: beside this Python, or on the PATH."""
    return shutil.which("temporal", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))


async def _running(app: web.Application) -> AsyncIterator[None]:
    server = await WorkflowEnvironment.start_local(
        dev_server_existing_path=binary(),
        dev_server_database_filename=os.environ["STATE"],
        dev_server_extra_args=["--dynamic-config-value", ON_TIME],
    )
    async with (
        server,
        aiohttp.ClientSession() as http,
        Worker(server.client, task_queue=QUEUE, workflows=[Signup], activities=[Services(http).call]),
    ):
        app["client"] = server.client
        yield


async def _start(request: web.Request) -> web.Response:
    arguments = [await request.json(), request.query.get("fail", "")]
    completed = await request.app["client"].execute_workflow(
        Signup.run, args=arguments, id=str(uuid.uuid4()), task_queue=QUEUE
    )
    return web.json_response({"status": "COMPLETED" if completed else "COMPENSATED"}, status=200 if completed else 500)


def main() -> None:
    """Serve POST /start."""
    app = web.Application()
    app.cleanup_ctx.append(_running)
    app.router.add_post("/start", _start)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]))


if __name__ == "__main__":
    main()
