"""`serve` serves an app in production: one process answers requests, and is started again whenever it dies.

Three participants served 486 sagas a second under Granian and 353 under servers in Python (2 cores); that is what
`granian_worker.py` buys. `plain_server.py` is the plain version, on Werkzeug (`SAGA_PLAIN=1`);
tests/integration/test_server.py runs both.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from typing import Any

from saga.process.ports import port_problem
from saga.process.restarting import RESTART_AFTER_SECONDS

logger = logging.getLogger("saga")


def serve(target: str, *, host: str, port: int, variable: str, threads: int, plain: bool = False) -> None:
    """Serve the app that the factory `target` ("package.module:function") makes, until SIGTERM or SIGINT.

    `threads` requests are served at once. The app's `close()`, if it has one, is called once at a clean end.
    `variable` is the setting that moves the port: exits with 1 and a message that names it where the port is taken.
    `plain`: by Werkzeug's server, which has a thread for each request.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    _leave_at_signals()
    problem = port_problem(host, port, variable)
    if problem:
        sys.exit(problem)
    if plain:
        from saga.process.plain_server import serve_plainly

        serve_plainly(target, host, port)
        return
    from saga.process.granian_worker import serve_with_granian

    while True:
        began = time.monotonic()
        if serve_with_granian(target, host, port, threads):
            return
        _leave_at_signals()  # Granian's own handlers would only tell the server that has ended
        logger.warning("event=worker_died")
        time.sleep(max(0.0, began + RESTART_AFTER_SECONDS - time.monotonic()))


def _leave_at_signals() -> None:
    """Exit with 0 when told to stop while no server runs that could be stopped."""

    def leave(signum: int, frame: Any) -> None:
        sys.exit(0)

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, leave)
