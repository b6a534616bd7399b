"""Reads a request's body to its end before anything else looks at it, and refuses one that is too large or cut short.

Werkzeug cuts a body without a Content-Length at the limit and hands out what it has; and where a server says that it
ends its input itself (`wsgi.input_terminated`, granian from 2.8.2 on; before, such bodies are empty to Werkzeug), it
does not notice that a body ends before its Content-Length either. So the server's input is read here.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from flask import Flask, request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

READ_AT_MOST = 1 << 16  # bytes at a time


def read_bodies(app: Flask, at_most: int) -> None:
    """Let every request of `app` with a body of more than `at_most` bytes be answered 413, and one cut short 400.

    The body counts, whether its length is told (Content-Length) or it comes in chunks, and also where no route would
    look at it. Handlers find it as usual. Of a chunked body it is not seen that its end is missing where all that comes
    before the end is there: granian tells nobody.
    """
    app.config["MAX_CONTENT_LENGTH"] = at_most

    @app.before_request
    def read_body() -> None:
        environ = request.environ
        if "HTTP_TRANSFER_ENCODING" in environ:
            environ.pop("CONTENT_LENGTH", None)  # RFC 9112, section 6.3: it is to be ignored
            _keep(environ, _read(environ["wsgi.input"], at_most + 1))
        elif environ.get("CONTENT_LENGTH") in (None, "", "0"):
            return
        if len(request.get_data()) > at_most:
            raise RequestEntityTooLarge
        if len(request.get_data()) < int(environ["CONTENT_LENGTH"]):
            raise BadRequest("The body ends before its Content-Length.")


def _read(stream: Any, most: int) -> bytes:
    body = bytearray()
    while len(body) < most and (part := stream.read(min(READ_AT_MOST, most - len(body)))):
        body += part
    return bytes(body)


def _keep(environ: dict[str, Any], body: bytes) -> None:
    """Let it look as if the body had come with its length."""
    environ.pop("HTTP_TRANSFER_ENCODING")
    environ.pop("wsgi.input_terminated", None)
    environ["CONTENT_LENGTH"], environ["wsgi.input"] = str(len(body)), BytesIO(body)
