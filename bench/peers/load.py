"""The load of `bench.load` with clients that connect anew where a server closes: Flask's development server does."""

from __future__ import annotations

import subprocess
import sys

from bench import load


class Connection(load.Connection):
    """A connection that is made again once an answer has said that it is closed."""

    def __init__(self, url: str):
        super().__init__(url)
        self._url = url
        self._closed = False

    def exchange(self, request: bytes) -> tuple[int, bytes]:
        """One request, whose answer has a Content-Length."""
        if self._closed:
            self._socket.close()
            super().__init__(self._url)
            self._closed = False
        return super().exchange(request)

    def _receive(self) -> bytes:
        received = super()._receive()
        self._closed = self._closed or b"\r\nconnection: close\r\n" in received.lower()
        return received


class Load(load.Load):
    """A process that puts load on the stack and its peers."""

    def __init__(self) -> None:
        command = [sys.executable, "-m", "bench.peers.load"]
        self._process = subprocess.Popen(
            command, cwd=load.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )


if __name__ == "__main__":
    load.Connection = Connection
    load.main()
