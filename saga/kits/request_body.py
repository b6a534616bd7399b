"""This module reads a request's body to its end before anything else does, and refuses one that is too large or cut.

Werkzeug does not do so in all cases. It cuts a body without a Content-Length at the limit and hands out what it has.
Where the server says that it ends its input itself (`wsgi.input_terminated`, which granian says from 2.8.2 on; before
that, Werkzeug sees such bodies as empty), it does not notice either that a body ends before its Content-Length. So the
server's input is read here.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

from flask import Flask, request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

BYTES_PER_READ = 1 << 16  # bytes that are read at a time


def read_bodies(app: Flask, at_most: int) -> None:
    """Let `app` answer 413 to every request with a body of more than `at_most` bytes, and 400 to one that is cut short.

    This holds for bodies with a Content-Length and for bodies in chunks, and for paths whose handler ignores the body.
    Handlers find the body where they always do. One case is not noticed: a chunked body of which only the closing chunk
    is missing, since granian does not say so.
    """
    app.config["MAX_CONTENT_LENGTH"] = at_most

    @app.before_request
    def read_body() -> None:
        environ = request.environ
        if "HTTP_TRANSFER_ENCODING" in environ:
            # RFC 9112, section 6.3: a Content-Length is ignored beside a Transfer-Encoding.
            environ.pop("CONTENT_LENGTH", None)
            _keep(environ, _read(environ["wsgi.input"], at_most + 1))
        elif environ.get("CONTENT_LENGTH") in (None, "", "0"):
            return
        if len(request.get_data()) > at_most:
            raise RequestEntityTooLarge
        if len(request.get_data()) < int(environ["CONTENT_LENGTH"]):
            raise BadRequest("The body ends before its Content-Length.")


def _read(stream: Any, most: int) -> bytes:
    body = bytearray()
    while len(body) < most and (part := stream.read(min(BYTES_PER_READ, most - len(body)))):
        body += part
    return bytes(body)


def _keep(environ: dict[str, Any], body: bytes) -> None:
    """Make the request look as if the body had come with a Content-Length."""
    environ.pop("HTTP_TRANSFER_ENCODING")
    environ.pop("wsgi.input_terminated", None)
    environ["CONTENT_LENGTH"], environ["wsgi.input"] = str(len(body)), BytesIO(body)
