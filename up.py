"""The program behind `make up`: it checks the ports, then becomes the supervisor of all processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from urllib.request import urlopen

from saga.choreography import require_nats
from saga.definition import TEMPORAL
from saga.definition_file import load_definitions
from saga.errors import BadInput
from saga.process.ports import port_problem
from saga.process.settings import Settings, broker_url, load_settings, reachable
from saga.temporal import require_temporal

READY_WITHIN = 60  # seconds


def main() -> None:
    """Say what is wrong at once, or start everything."""
    os.chdir(Path(__file__).parent)
    try:
        settings = load_settings()
        load_definitions(settings.sagas_dir, settings.environ)
        if settings.engine == TEMPORAL:
            require_temporal()
        if settings.nats_url:
            require_nats()
    except BadInput as error:
        sys.exit(f"make up: {error}")
    ports = {f"SERVICE_{name}_PORT": port for name, port in settings.service_ports.items()}
    ports["ORCHESTRATOR_PORT"] = settings.orchestrator_port
    own_broker = settings.nats_url == broker_url(settings.host, settings.nats_port)  # not set to another, nor to off
    if own_broker:
        ports["NATS_PORT"] = settings.nats_port
    own_temporal = settings.engine == TEMPORAL and not settings.temporal_elsewhere
    if own_temporal:
        ports |= {"TEMPORAL_PORT": settings.temporal_port, "TEMPORAL_UI_PORT": settings.temporal_ui_port}
    problems = [port_problem(settings.host, port, variable) for variable, port in ports.items()]
    if any(problems):
        sys.exit("\n".join(f"make up: {problem}" for problem in problems if problem))
    Path("var").mkdir(exist_ok=True)
    os.environ["SAGA_PYTHON"] = sys.executable
    os.environ.update(HOST=settings.host, NATS_PORT=str(settings.nats_port), SAGA_NATS=str(own_broker).lower())
    os.environ["SAGA_NATS_SERVER"] = str(Path(sysconfig.get_path("scripts"), "nats-server"))
    os.environ.setdefault("SAGA_NATS_STORE", "var/nats")  # the tests have their own
    _prepare_temporal(settings, own_temporal)
    subprocess.Popen([sys.executable, __file__, "--announce"])  # noqa: S603  # prints while the supervisor runs
    root = ["--user", "root"] if os.geteuid() == 0 else []  # said outright, the supervisor does not warn of it
    os.execv(sys.executable, [sys.executable, "-m", "supervisor.supervisord", "-c", "supervisord.conf", *root])  # noqa: S606


def _prepare_temporal(settings: Settings, own: bool) -> None:
    """Set the variables about Temporal that the supervisor's file needs, whether or not Temporal is used."""
    os.environ.update(SAGA_TEMPORAL=str(own).lower(), SAGA_WORKER=str(settings.engine == TEMPORAL).lower())
    os.environ.update(TEMPORAL_PORT=str(settings.temporal_port), TEMPORAL_UI_PORT=str(settings.temporal_ui_port))
    os.environ["TEMPORAL_NAMESPACE"] = settings.temporal.namespace
    os.environ["SAGA_TEMPORAL_SERVER"] = str(Path(sysconfig.get_path("scripts"), "temporal"))
    os.environ.setdefault("SAGA_TEMPORAL_FILE", "var/temporal.db")  # the tests have their own
    os.environ.setdefault("USER", "saga")  # the server will not start without one


def announce(settings: Settings) -> None:
    """Print the dashboard's address once all four processes are ready."""
    host = reachable(settings.host).replace("127.0.0.1", "localhost")
    urls = [f"http://{host}:{port}" for port in (settings.orchestrator_port, *settings.service_ports.values())]
    deadline = time.monotonic() + READY_WITHIN
    while not all(_ready(url) for url in urls):
        if time.monotonic() > deadline or os.getppid() == 1:
            return
        time.sleep(0.2)
    sys.stdout.write(f"\nThe dashboard is at {urls[0]}/\n")
    sys.stdout.write("This terminal stays with it: Ctrl-C stops everything, which takes two seconds.\n")
    if os.environ.get("SAGA_TEMPORAL") == "true":
        sys.stdout.write(f"Temporal's own pages are at http://{host}:{settings.temporal_ui_port}/\n")
    sys.stdout.write("\n")


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz", timeout=2) as answer:  # noqa: S310  # our own address
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C before it was ready
        announce(load_settings()) if "--announce" in sys.argv else main()
