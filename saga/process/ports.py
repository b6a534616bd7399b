"""This module says whether a port can be served on, and which process has it."""

from __future__ import annotations

import contextlib
import errno
import socket
import sys

import psutil

LOCAL = ("127.0.0.1", "localhost", "0.0.0.0", "::1", "::")  # noqa: S104  # where `localhost` is meant to reach us


def port_problem(host: str, port: int, variable: str) -> str | None:
    """Return why nobody can serve on `port`, and what to do about it; None where it is free."""
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
    """Return whether somebody answers on the port as `localhost`, which on IPv6 and on macOS may be another address."""
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
