"""The plain server is Werkzeug's: `SAGA_PLAIN=1` uses it in place of Granian and our hooks into it.

Each request has a thread and a connection of its own, however many there are. At SIGTERM the app is closed; requests
that are still being answered are cut off.
"""

from __future__ import annotations

import logging
import signal
import threading
from functools import partial
from importlib import import_module
from typing import Any

from werkzeug.serving import make_server

from saga.process.restarting import exit_at_once, restart_forever


def serve_plainly(target: str, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, in a process that is started again when it dies."""
    restart_forever(partial(_serve, target, host, port))


def _serve(target: str, host: str, port: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # while the app is made: nothing to close yet
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # no line for each request
    module, _, factory = target.partition(":")
    app = getattr(import_module(module), factory)()
    server = make_server(host, port, app, threaded=True)

    def close() -> None:
        try:
            getattr(app, "close", lambda: None)()
        finally:
            server.shutdown()

    def stop(signum: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once
        threading.Thread(target=close, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    server.serve_forever()
    exit_at_once()
