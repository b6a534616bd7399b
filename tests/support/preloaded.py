"""Starts our processes by forking an interpreter that has imported everything already.

`python -m service_a` spends more than a second of CPU on imports before it does anything, and a stack is four to seven
such processes. A copy of this interpreter runs the same module as `__main__`, in a session of its own, with the
environment and the log that it is given: what follows the imports is the same. The plain commands are run by the
tests of `make up`, of the docs and of the server.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = (  # whatever a process of the stack imports
    "orchestrator.app", "orchestrator.temporal_work", "saga.cli.main", "saga.process.granian_worker",
    "saga.process.server", "service_a.app", "service_b.app", "service_c.app", "granian.server", "granian._loops",
)  # fmt: skip
MESSAGE = 1 << 17  # bytes: one environment


class Process:
    """A process that was started by the template; what subprocess.Popen offers of it."""

    def __init__(self, reply: socket.socket):
        self._reply = reply
        self._reply.settimeout(60)
        told = self._reply.recv(16)
        if not told:
            raise RuntimeError("the template of our processes has ended: what it said is above")
        self.pid = int(told)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that killed it; None while it runs."""
        with contextlib.suppress(BlockingIOError, subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises subprocess.TimeoutExpired where that takes longer than `timeout` seconds."""
        if self.returncode is None:
            self._reply.settimeout(timeout)
            try:
                self.returncode = int(self._reply.recv(16))
            except TimeoutError:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
            self._reply.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send it a SIGKILL, if it still runs."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send it a SIGTERM, if it still runs."""
        self.send_signal(signal.SIGTERM)


def start(module: str, environ: Mapping[str, str], log: Path) -> Process:
    """Start `python -m module` in the project's folder; what it says is appended to `log`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        request = json.dumps({"module": module, "environ": dict(environ), "log": str(log)}).encode()
        socket.send_fds(_template(), [request], [theirs.fileno()])
    return Process(ours)


@functools.cache
def _template() -> socket.socket:
    """Return the address at which this process's template takes requests; it ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", "tests.support.preloaded", str(theirs.fileno())]
        subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    return ours


def _serve(requests: socket.socket) -> dict[str, str | Mapping[str, str]] | None:
    """Fork for each request; gives the request in the process that is to do it, and None once nobody asks any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the keepers are nobody's to wait for
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, MESSAGE, 1)
        if not request:
            return None
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            with socket.socket(fileno=descriptors[0]) as reply:
                if _keep(reply):
                    return dict(json.loads(request))
        os.close(descriptors[0])


def _keep(reply: socket.socket) -> bool:
    """True in a new process; the one that made it says its id, waits for its end, says how it ended, and ends."""
    pid = os.fork()
    if pid == 0:
        return True
    reply.send(str(pid).encode())
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):  # nobody wants to know any more
        reply.send(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def _become(module: str, environ: Mapping[str, str], log: str) -> None:
    """Run the module as `python -m` does."""
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.environ.clear()
    os.environ.update(environ)
    sys.argv = [module]
    # A worker is a fork too. Python does so by itself up to 3.13; newer ones, and `spawn`, would import all anew.
    multiprocessing.set_start_method("fork")
    forked = multiprocessing.get_context("fork")
    multiprocessing.get_context = lambda method=None: forked  # type: ignore[assignment]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def main(words: Sequence[str]) -> None:
    """Import everything, then do what is asked over the socket whose number is the only argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests, which end us
    for module in MODULES:
        import_module(module)
    gc.collect()
    gc.freeze()
    request = _serve(socket.socket(fileno=int(words[0])))
    if request:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _become(**request)


if __name__ == "__main__":
    main(sys.argv[1:])
