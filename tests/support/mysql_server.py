"""A private MySQL for the tests: `python -m tests.support.mysql_server COMMAND …` runs COMMAND with TEST_MYSQL_URL set.

Takes the first there is of: TEST_MYSQL_URL itself, a mysqld or mariadbd on the PATH, Docker, and, as root on
Debian, an installation of mariadb-server. Where there is none, COMMAND runs without, and the tests say why they skip.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import mysql.connector
from sqlalchemy import create_engine, make_url

from tests.support.private_server import PrivateServer

START_WITHIN = 120  # seconds
INIT_SQL = Path(__file__).parents[2] / "db" / "init.sql"
PASSWORD = "test"
DATABASES = ("orchestrator", "service_a", "service_b", "service_c")
QUICK = [
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-log-bin",
    "--max-connections=600",
    "--innodb-buffer-pool-size=128M",
]


def main(command: list[str]) -> int:
    """Run `command` beside a server; its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the server ends with us
    with server() as url:
        environ = {**os.environ, **({"TEST_MYSQL_URL": url} if url else {})}
        return subprocess.call(command, env=environ)


@contextlib.contextmanager
def server() -> Iterator[str | None]:
    """Yield the administrator's URL of a running server, which is ended afterwards; None where there is none."""
    if url := os.environ.get("TEST_MYSQL_URL"):
        yield url
        return
    made = private(QUICK)
    try:
        yield made.url if made else None
    finally:
        if made:
            made.close()


def private(options: list[str]) -> Process | Container | None:
    """Start a server of our own, and return it; None where there is none to start."""
    binary = _binary()
    if binary is None and shutil.which("docker") and _runs(["docker", "info"]):
        return Container(options)
    if binary is None and os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing mariadb-server for the tests")
        _runs(["apt-get", "update", "-qq"])
        _runs(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "mariadb-server"])
        binary = _binary()
    if binary is None:
        say("no MySQL: set TEST_MYSQL_URL, put mysqld or mariadbd on the PATH, or start Docker")
        return None
    return Process(binary, options)


def _binary() -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which("mysqld", path=path) or shutil.which("mariadbd", path=path)


class Process(PrivateServer):
    """A mysqld or mariadbd on a free port, with its data in a temporary directory."""

    def __init__(self, binary: str, options: list[str]):
        port = free_port()
        self.url = f"mysql+mysqlconnector://root:@127.0.0.1:{port}"
        super().__init__("MySQL", partial(_installed, binary, port, options), lambda: _refusal(self.url) is None)


def _installed(binary: str, port: int, options: list[str], directory: Path) -> list[str]:
    """Make an empty data directory, and return the command that starts a server on it."""
    data = directory / "data"
    user = ["--user=root"] if os.geteuid() == 0 else []
    if b"MariaDB" in subprocess.run([binary, "--version"], capture_output=True, check=True).stdout:
        installer = ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal"]
        subprocess.run([*installer, f"--datadir={data}", *user], check=True, capture_output=True)
        options = [*options, "--skip-name-resolve"]  # its anonymous user, of localhost, would come before ours
    else:
        arguments = ["--no-defaults", "--initialize-insecure", f"--datadir={data}", *user]
        subprocess.run([binary, *arguments], check=True, capture_output=True)
    place = [f"--datadir={data}", f"--socket={directory}/s", f"--port={port}", "--bind-address=127.0.0.1"]
    return [binary, "--no-defaults", *place, *user, *options]


class Container:
    """A server in Docker, from the image that docker-compose.yml names."""

    def __init__(self, options: list[str]):
        say("starting MySQL in Docker for the tests")
        port = free_port()
        place = ["--publish", f"127.0.0.1:{port}:3306", "--env", "MYSQL_ROOT_PASSWORD=test"]
        command = ["docker", "run", "--detach", *place, "mysql:9.7", "mysqld", *options]
        self._id = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        self.url = f"mysql+mysqlconnector://root:test@127.0.0.1:{port}"
        _await(self.url, lambda: _runs(["docker", "inspect", self._id]))

    def send(self, number: int) -> None:
        """Send it a signal."""
        if number in (signal.SIGSTOP, signal.SIGCONT):  # docker's own way to make it stand still
            _runs(["docker", "pause" if number == signal.SIGSTOP else "unpause", self._id])
        else:
            _runs(["docker", "kill", f"--signal={number}", self._id])

    def restart(self) -> None:
        """Wait until it is dead, and start it again."""
        _runs(["docker", "wait", self._id])
        _runs(["docker", "start", self._id])
        _await(self.url, lambda: _runs(["docker", "inspect", self._id]))

    def close(self) -> None:
        """Kill it, and delete its data."""
        _runs(["docker", "rm", "--force", "--volumes", self._id])


def mysql_schemas(mysql_admin: str, prefix: str) -> dict[str, str]:
    """Run db/init.sql with a prefix before every name: the URL of each process's database and user."""
    names = r"\b(orchestrator|service_[abc])\b"
    script = re.sub(names, lambda match: prefix + match[1], re.sub(r"--[^\n]*", "", INIT_SQL.read_text()))
    admin = create_engine(mysql_admin, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        for statement in filter(None, (part.strip() for part in re.split(r";\s*\n", script))):
            connection.exec_driver_sql(statement)
        for name in DATABASES:
            connection.exec_driver_sql(f"ALTER USER {prefix}{name} IDENTIFIED BY '{PASSWORD}' ACCOUNT UNLOCK")
    admin.dispose()
    url = make_url(mysql_admin)
    return {
        name: url.set(username=prefix + name, password=PASSWORD, database=prefix + name).render_as_string(False)
        for name in DATABASES
    }


def _await(url: str, alive: Callable[[], bool]) -> None:
    """Wait until the server answers. Raises RuntimeError where it has died or takes too long."""
    deadline = time.monotonic() + START_WITHIN
    while error := _refusal(url):
        if time.monotonic() > deadline or not alive():
            raise RuntimeError(f"the tests' MySQL did not start: {error}") from error
        time.sleep(0.2)


def _refusal(url: str) -> mysql.connector.Error | None:
    """Try to log in, and return the error where that fails."""
    parts = urlsplit(url)
    try:
        mysql.connector.connect(
            host=parts.hostname, port=parts.port, user=parts.username, password=parts.password or "",
            connection_timeout=5,
        ).close()  # fmt: skip
    except mysql.connector.Error as error:
        return error
    return None


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _runs(command: list[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def say(text: str) -> None:
    """Tell the person who runs the tests."""
    sys.stderr.write(f"tests: {text}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
