"""The server around an app, as a real process: how it starts, how it ends, and what a crash costs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from tests.support.stack import ROOT, alive, eventually, free_port

APP = """
import os, signal, sys, time
from pathlib import Path
from flask import Flask

def create_app():
    time.sleep(float(os.environ.get("SLOW_START", "0")))
    if os.environ.get("CRASHES"):
        Path(os.environ["CLOSED"]).open("a").write("made ")
        os._exit(17)
    app = Flask("app")
    app.add_url_rule("/pid", "pid", lambda: str(os.getpid()))
    app.add_url_rule("/exit", "exit", lambda: os._exit(17))
    app.close = lambda: Path(os.environ["CLOSED"]).open("a").write("closed ")
    return app

if __name__ == "__main__":
    if os.environ.get("START_METHOD"):
        import multiprocessing
        multiprocessing.set_start_method(os.environ["START_METHOD"])
    from saga.process.server import serve
    serve("the_app:create_app", host="127.0.0.1", port=int(sys.argv[1]), variable="THE_PORT", threads=4,
          plain=bool(os.environ.get("PLAIN")))
"""


class Served:
    """The app above, served by a process of its own."""

    def __init__(self, directory: Path, port: int, **environ: str):
        self.url = f"http://127.0.0.1:{port}"
        self.closed = directory / "closed"
        (directory / "the_app.py").write_text(APP)
        path = os.pathsep.join([str(directory), str(ROOT)])
        self.process = subprocess.Popen(
            [sys.executable, str(directory / "the_app.py"), str(port)],
            env={**os.environ, "PYTHONPATH": path, "CLOSED": str(self.closed), **environ},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def worker(self) -> int:
        """The process that answers now."""
        return int(eventually(self._worker))

    def _worker(self) -> str | None:
        try:
            return requests.get(f"{self.url}/pid", timeout=5).text
        except requests.ConnectionError:
            return None

    def stop(self, signum: int = signal.SIGTERM) -> int:
        """The exit code; less than the 5 s after which a worker is killed are enough for a clean end."""
        self.process.send_signal(signum)
        return self.process.wait(4)


Serve = Callable[..., Served]


@pytest.fixture(params=[{}, {"PLAIN": "1"}], ids=["granian", "plain"])
def serve(tmp_path: Path, ports: Iterator[int], request: pytest.FixtureRequest) -> Iterator[Serve]:
    made: list[Served] = []

    def make(port: int | None = None, **environ: str) -> Served:
        made.append(Served(tmp_path, port or free_port(ports), **request.param, **environ))
        return made[-1]

    yield make
    for served in made:
        served.process.kill()
        served.process.wait()
        assert served.process.stderr
        served.process.stderr.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])  # of Linux, of macOS
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_and_closes_the_app_once(serve: Serve, signum: int, method: str) -> None:
    served = serve(START_METHOD=method)
    worker = psutil.Process(served.worker())
    assert served.stop(signum) == 0
    assert not alive(worker)
    assert served.closed.read_text() == "closed "


def test_a_signal_to_the_whole_group_is_a_clean_end_too(serve: Serve) -> None:
    served = serve()
    os.kill(served.worker(), signal.SIGTERM)
    assert served.stop() == 0


def test_a_signal_while_the_app_is_still_being_made_ends_it_at_once(serve: Serve) -> None:
    served = serve(SLOW_START="60")
    eventually(lambda: psutil.Process(served.process.pid).children())
    assert served.stop() == 0
    assert not served.closed.exists()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_worker_dies_with_a_killed_parent_and_the_port_is_free_again(serve: Serve, method: str) -> None:
    served = serve(START_METHOD=method)
    worker = psutil.Process(served.worker())
    served.stop(signal.SIGKILL)
    eventually(lambda: not alive(worker), within=10)
    again = serve(int(served.url.rsplit(":", 1)[1]))
    assert again.worker() != worker.pid


def test_a_worker_that_crashes_is_replaced_however_often(serve: Serve) -> None:
    served = serve()
    seen = {served.worker()}
    for _ in range(4):
        with pytest.raises(requests.ConnectionError):
            requests.get(f"{served.url}/exit", timeout=5)
        eventually(lambda: served.worker() not in seen)
        seen.add(served.worker())
    assert served.process.poll() is None
    assert served.stop() == 0


def test_a_signal_is_not_lost_while_the_app_crashes_again_and_again(serve: Serve) -> None:
    served = serve(CRASHES="1")
    eventually(lambda: served.closed.exists() and served.closed.read_text().count("made") > 2)
    assert served.stop() == 0


def test_pitfall_28_a_taken_port_is_said_by_whom_and_how_to_move(serve: Serve) -> None:
    """Pitfall 28: port 5000 is taken, and the first command says so."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        served = serve(port)
        _, said = served.process.communicate(timeout=20)
    assert served.process.returncode == 1
    assert f"Port {port} is taken by" in said
    assert f"pid {os.getpid()}" in said
    assert f"THE_PORT={port + 100}" in said


def test_a_port_that_somebody_has_on_ipv6_is_taken_too(serve: Serve) -> None:
    """`localhost` is ::1 first: a browser would reach the other program, and not us."""
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with socket.socket(socket.AF_INET6) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::1", 0))
        taken.listen()
        served = serve(taken.getsockname()[1])
        _, said = served.process.communicate(timeout=20)
    assert "is taken by" in said
