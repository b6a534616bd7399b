"""This module starts a process again when it dies, and lets a process die with its parent."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any, NoReturn

logger = logging.getLogger("saga")

RESTART_AFTER_SECONDS = 1.0  # seconds between two starts of a process that dies again and again


def restart_forever(work: Callable[[], None]) -> None:
    """Run `work` in a process of its own, again whenever it dies, until SIGTERM or SIGINT; then it gets a SIGTERM."""
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
            stopping.wait(max(0.0, began + RESTART_AFTER_SECONDS - time.monotonic()))


def _work(work: Callable[[], None]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent passes it on
    end_with_parent()
    work()


def exit_at_once() -> NoReturn:
    """End this process, in which everything is closed: an interpreter's usual end takes half a second, for nothing."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def end_with_parent() -> None:
    """Make this process die with its parent, even on kill -9: it would keep the port, and go on working unseen."""
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
