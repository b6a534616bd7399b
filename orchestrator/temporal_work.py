"""The worker of sagas on Temporal: it runs their workflows, and makes their calls. It needs the extra `[temporal]`."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta

from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from orchestrator.bootstrap import CONNECTIONS, temporal_client
from orchestrator.telemetry import log_line
from saga.http_client import new_transport
from saga.process.settings import Settings, load_settings
from saga.saga_log import SagaLog
from saga.storage import log_tables
from saga.storage.database import connect, create_tables
from saga.temporal.activities import Activities, ActivityDeps
from saga.temporal.connection import connect as connect_temporal
from saga.temporal.projection import Projector
from saga.temporal.workflow import SagaWorkflow

logger = logging.getLogger("saga")

CALLS = 192  # at a time
GRACE = 10.0  # seconds that an attempt under way has to end, once the worker is stopped
AGAIN = 1.0  # seconds between two tries to connect
HEARTBEAT = timedelta(milliseconds=50)  # at the most between two: an attempt is to be known before the next one


def work() -> None:
    """Run workflows and make calls until SIGTERM."""
    asyncio.run(_work(load_settings()))


async def _work(settings: Settings) -> None:
    stopping, stopped = threading.Event(), asyncio.Event()  # for the threads that make calls; for this one
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: [flag.set() for flag in (stopping, stopped)])
    database = connect(settings.saga_log_url, pool_size=CONNECTIONS, plain=settings.plain)
    create_tables(database, log_tables.metadata)
    saga_log = SagaLog(database)
    activities = Activities(_activity_deps(settings, saga_log, stopping))
    client = await _connected(settings, stopped)
    if client is None:
        return
    temporal_client(settings, saga_log).open()  # starts workflows that the orchestrator had no time to start
    worker = Worker(
        client,
        task_queue=settings.temporal.task_queue,
        workflows=[SagaWorkflow],
        activities=[activities.call, activities.project],
        max_concurrent_activities=CALLS,
        graceful_shutdown_timeout=timedelta(seconds=GRACE),
        max_heartbeat_throttle_interval=HEARTBEAT,
        default_heartbeat_throttle_interval=HEARTBEAT,
        sticky_queue_schedule_to_start_timeout=timedelta(seconds=2),  # after which another takes over
    )
    async with worker:
        logger.info("event=working task_queue=%s", settings.temporal.task_queue)
        await stopped.wait()


def _activity_deps(settings: Settings, saga_log: SagaLog, stopping: threading.Event) -> ActivityDeps:
    return ActivityDeps(
        projector=Projector(saga_log, log_line),
        transport=new_transport(settings.plain),
        executor=ThreadPoolExecutor(CALLS + CONNECTIONS),
        clock=time.time,
        random=random.random,
        stopping=stopping,
        exit=os._exit,
        token=settings.token,
    )


async def _connected(settings: Settings, stopped: asyncio.Event) -> Client | None:
    """Return a client, as soon as Temporal answers; None where the worker is stopped before that."""
    while not stopped.is_set():
        try:
            return await connect_temporal(settings.temporal, lazy=False)
        except (RuntimeError, RPCError) as error:
            logger.warning("event=temporal_away: %s", str(error).partition("\n")[0])
        with suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), AGAIN)
    return None
