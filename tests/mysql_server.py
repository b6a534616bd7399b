"""A private MySQL for the tests: `python -m tests.mysql_server COMMAND …` runs COMMAND with TEST_MYSQL_URL set.

Takes the first there is of: TEST_MYSQL_URL itself, a mysqld or mariadbd on the PATH, Docker, and, as root on
Debian, an installation of mariadb-server. Where there is none, COMMAND runs without, and the tests say why they skip.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import mysql.connector

START_WITHIN = 120  # seconds
QUICK = [
    "--innodb-flush-log-at-trx-commit=0",
    "--skip-log-bin",
    "--max-connections=600",
    "--innodb-buffer-pool-size=128M",
]


def main(command: list[str]) -> int:
    """Run `command` beside a server; its exit code."""
    with server() as url:
        environ = {**os.environ, **({"TEST_MYSQL_URL": url} if url else {})}
        return subprocess.call(command, env=environ)


@contextlib.contextmanager
def server() -> Iterator[str | None]:
    """The administrator's URL of a running server, ended afterwards."""
    if url := os.environ.get("TEST_MYSQL_URL"):
        yield url
        return
    binary = _binary()
    if binary is None and shutil.which("docker") and _runs(["docker", "info"]):
        with _container() as url:
            yield url
        return
    if binary is None and os.geteuid() == 0 and shutil.which("apt-get"):
        say("installing mariadb-server for the tests")
        _runs(["apt-get", "update", "-qq"])
        _runs(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "mariadb-server"])
        binary = _binary()
    if binary is None:
        say("no MySQL: set TEST_MYSQL_URL, put mysqld or mariadbd on the PATH, or start Docker")
        yield None
        return
    with _process(binary) as url:
        yield url


def _binary() -> str | None:
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return shutil.which("mysqld", path=path) or shutil.which("mariadbd", path=path)


@contextlib.contextmanager
def _process(binary: str) -> Iterator[str]:
    """A server of our own on a free port, with its data in a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="saga-mysql-", ignore_cleanup_errors=True) as directory:
        data = Path(directory) / "data"
        user = ["--user=root"] if os.geteuid() == 0 else []
        if b"MariaDB" in subprocess.run([binary, "--version"], capture_output=True, check=True).stdout:
            installer = ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal"]
            subprocess.run([*installer, f"--datadir={data}", *user], check=True, capture_output=True)
        else:
            arguments = ["--no-defaults", "--initialize-insecure", f"--datadir={data}", *user]
            subprocess.run([binary, *arguments], check=True, capture_output=True)
        port = free_port()
        arguments = ["--no-defaults", f"--datadir={data}", f"--socket={directory}/s", f"--port={port}", *user, *QUICK]
        with (Path(directory) / "log").open("wb") as log:
            process = subprocess.Popen([binary, *arguments, "--bind-address=127.0.0.1"], stdout=log, stderr=log)
        try:
            yield _ready(port, "", lambda: process.poll() is None)
        finally:
            process.terminate()
            process.wait()


@contextlib.contextmanager
def _container() -> Iterator[str]:
    """A server in Docker, from the image that docker-compose.yml names."""
    say("starting MySQL in Docker for the tests")
    command = ["docker", "run", "--detach", "--rm", "--publish", "127.0.0.1::3306", "--env", "MYSQL_ROOT_PASSWORD=test"]
    run = subprocess.run([*command, "mysql:9.7", "mysqld", *QUICK], capture_output=True, text=True, check=True)
    container = run.stdout.strip()
    try:
        mapped = subprocess.run(["docker", "port", container, "3306/tcp"], capture_output=True, text=True, check=True)
        port = int(mapped.stdout.split()[0].rsplit(":", 1)[1])
        yield _ready(port, "test", lambda: _runs(["docker", "inspect", container]))
    finally:
        subprocess.run(["docker", "rm", "--force", "--volumes", container], capture_output=True, check=False)


def _ready(port: int, password: str, alive: object) -> str:
    deadline = time.monotonic() + START_WITHIN
    while True:
        try:
            mysql.connector.connect(host="127.0.0.1", port=port, user="root", password=password).close()
            return f"mysql+mysqlconnector://root:{password}@127.0.0.1:{port}"
        except mysql.connector.Error as error:
            if time.monotonic() > deadline or not alive():  # type: ignore[operator]
                raise RuntimeError(f"the tests' MySQL did not start: {error}") from error
            time.sleep(0.2)


def free_port() -> int:
    """A port that nobody listens on now."""
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
