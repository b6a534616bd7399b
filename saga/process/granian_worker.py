"""This module runs Granian with one worker process, which closes the app at SIGTERM and dies with its parent.

Only this file touches private parts of Granian (`_signals`, `_spawn_wsgi_worker`); it was checked with 2.8.7.
"""

from __future__ import annotations

import gc
import logging
import signal
import threading
from importlib import import_module
from typing import Any

from granian import Granian, _signals
from granian.constants import Interfaces
from granian.log import LogLevels

from saga.process.restarting import end_with_parent, exit_at_once


def serve_with_granian(target: str, host: str, port: int, threads: int) -> bool:
    """Serve until SIGTERM or SIGINT, then exit or return True; return False where Granian gives up its worker.

    Granian itself starts a dead worker again, at once; it gives up when one dies twice within seconds.
    """
    server = Granian(
        target,
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        blocking_threads=threads,
        backpressure=threads + 1024,
        respawn_failed_workers=True,
        respawn_interval=0.01,  # a caller who tries again half a second later should find it
        workers_kill_timeout=5,
        log_level=LogLevels.error,
    )
    try:
        server.serve(spawn_target=_worker, target_loader=_load)
    except SystemExit as leaving:
        stopped = bool(server.interrupt_signal) or leaving.code == 0
    else:
        exit_at_once()
    return stopped


def _worker(*args: Any, **kwargs: Any) -> None:
    """Run Granian's own worker, in a process that is prepared for it."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not in the format: not found out
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # while the app is made: nothing to close yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on
    end_with_parent()
    Granian._spawn_wsgi_worker(*args, **kwargs)
    exit_at_once()


def _load(target: str) -> Any:
    """Make the app, in the worker; Granian asks for its signal handlers afterwards."""
    module, _, factory = target.partition(":")
    app = getattr(import_module(module), factory)()
    _close_at_sigterm(getattr(app, "close", lambda: None))
    gc.collect()
    gc.freeze()  # what is here now stays: not to be looked through again and again
    return app


def _close_at_sigterm(close_app: Any) -> None:
    """Put a handler in the place of Granian's that closes the app before it stops the worker."""
    set_signals = _signals.set_sync_signals

    def set_signals_and_close() -> Any:
        stopped = set_signals()

        def close() -> None:
            try:
                close_app()
            finally:
                stopped.set()

        signal.signal(signal.SIGTERM, lambda signum, frame: threading.Thread(target=close, daemon=True).start())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return stopped

    _signals.set_sync_signals = set_signals_and_close
