"""Serves a Flask app in production: Granian with one worker process, which is started again when it dies."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

import psutil
from granian import Granian, _signals
from granian.constants import Interfaces
from granian.log import LogLevels

logger = logging.getLogger("saga")

LOCAL = ("127.0.0.1", "localhost", "0.0.0.0", "::1", "::")  # noqa: S104  # where `localhost` is meant to reach us
RESTART_AFTER = 1.0  # seconds between two starts, where a worker dies again and again


def serve(target: str, *, host: str, port: int, variable: str, threads: int) -> None:
    """Serve the app that the factory `target` ("package.module:function") makes, until SIGTERM or SIGINT.

    `threads` requests are served at once. The app's `close()`, if it has one, is called once at a clean end.
    `variable` is the setting that moves the port: exits with 1 and a message naming it where the port is taken.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _leave)
    problem = port_problem(host, port, variable)
    if problem:
        sys.exit(problem)
    while True:
        began = time.monotonic()
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
            _exit()
        except SystemExit as leaving:  # Granian's answer to a worker that died twice within seconds
            if server.interrupt_signal or leaving.code == 0:  # or we were told to stop meanwhile
                return
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, _leave)  # Granian's own handlers would only tell the server that has ended
            logger.warning("event=worker_died")
            time.sleep(max(0.0, began + RESTART_AFTER - time.monotonic()))


def restart_forever(work: Callable[[], None]) -> None:
    """Run `work` in a process of its own, again where it dies, until SIGTERM or SIGINT; it gets a SIGTERM then."""
    stopping = threading.Event()
    running: list[BaseProcess] = []

    def stop(signum: int, frame: Any) -> None:
        stopping.set()
        for process in running:
            process.terminate()

    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, stop)
    while not stopping.is_set():
        began = time.monotonic()
        process = multiprocessing.get_context("spawn").Process(target=_work, args=(work,))
        process.start()
        running[:] = [process]
        if stopping.is_set():  # between the two
            process.terminate()
        process.join()
        if not stopping.is_set():
            logger.warning("event=worker_died code=%s", process.exitcode)
            stopping.wait(max(0.0, began + RESTART_AFTER - time.monotonic()))


def _work(work: Callable[[], None]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on
    _end_with_parent()
    work()


def _leave(signum: int, frame: Any) -> None:
    """Told to stop while no server runs that could be stopped."""
    sys.exit(0)


def port_problem(host: str, port: int, variable: str) -> str | None:
    """Why `port` cannot be served on, and what to do; None where it is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
            probe.listen(1)
        if host not in LOCAL or not _answered(port):
            return None
    except PermissionError:
        return f"Port {port} is not allowed to this user: set {variable} to one above 1023."
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            return f"Cannot listen on {host}:{port}: {error.strerror}. HOST says where to listen."
    other = port + 100 if port + 100 <= 65535 else port - 100
    return f"Port {port} is taken{_taken_by(port)}. Set {variable} to a free one, for example {variable}={other}."


def _answered(port: int) -> bool:
    """Whether somebody has the port as `localhost`, which a free 127.0.0.1 does not rule out: on IPv6, and on macOS."""
    for address in ("127.0.0.1", "::1"):
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=0.5):
            return True
    return False


def _taken_by(port: int) -> str:
    for process in psutil.process_iter():  # one by one: whose connections we may not see is left out
        with contextlib.suppress(psutil.Error, OSError, RuntimeError):
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,):
                    command = " ".join(process.cmdline())[:80] or process.name()
                    return f" by {command} (pid {process.pid})"
    if sys.platform == "darwin" and port == 5000:
        return ", probably by AirPlay Receiver"
    return ""


def _load(target: str) -> Any:
    """In the worker: make the app."""
    module, _, factory = target.partition(":")
    app = getattr(import_module(module), factory)()
    _worker_state.append(getattr(app, "close", lambda: None))
    gc.collect()
    gc.freeze()  # what is here now stays: not to be looked through again and again
    return app


_worker_state: list[Callable[[], None]] = []  # the app's close(), in the worker process


def _worker(*args: Any, **kwargs: Any) -> None:
    """In the worker process: Granian's own worker, which ends with its parent and closes the app first."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # not in the format: not found out
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # while the app is made: nothing to close yet
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on
    _end_with_parent()
    set_signals = _signals.set_sync_signals

    def set_signals_and_close() -> Any:
        stopped = set_signals()

        def close() -> None:
            try:
                for close_app in _worker_state:
                    close_app()
            finally:
                stopped.set()

        def handle(signum: int, frame: Any) -> None:
            threading.Thread(target=close, daemon=True).start()

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return stopped

    _signals.set_sync_signals = set_signals_and_close
    Granian._spawn_wsgi_worker(*args, **kwargs)
    _exit()


def _exit() -> NoReturn:
    """All is closed: end now. To take the interpreter down in good order would cost half a second, and save nothing."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _end_with_parent() -> None:
    """A worker without its parent would keep the port, and go on working unseen: die with it, even on kill -9."""
    made_by = multiprocessing.parent_process()  # asked of the system now, it may be whoever adopted us
    parent = made_by.pid if made_by else os.getppid()
    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        return

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
