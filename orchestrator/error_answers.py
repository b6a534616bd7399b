"""The answers to errors: JSON from the API, and a page to a browser that asked for a page."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException
from werkzeug.http import HTTP_STATUS_CODES

from orchestrator.status_codes import status_code_of
from saga.errors import SagaError

RETRY_AFTER = 5  # seconds, in the header of a 503


def answer_errors(app: Flask) -> None:
    """Let every error of saga/errors.py, and every one of Flask's own, be answered with its status code."""
    app.register_error_handler(SagaError, _saga_error)
    app.register_error_handler(HTTPException, _http_error)


def _saga_error(error: SagaError) -> Response:
    code = status_code_of(error)
    headers = {"Retry-After": str(RETRY_AFTER)} if code == 503 else {}
    return _answer(code, str(error), headers, getattr(error, "field", None))


def _http_error(error: HTTPException) -> Response:
    """Answer what Flask refuses: an unknown address, a body that is too large, a method that Allow does not name."""
    headers = dict(error.get_headers(request.environ)) if error.response is None else {}
    kept = {name: value for name, value in headers.items() if name in ("Allow", "Retry-After")}
    return _answer(error.code or 500, str(error.description), kept)


def _answer(code: int, message: str, headers: Mapping[str, str], field: str | None = None) -> Response:
    if is_page(request.path):
        title = HTTP_STATUS_CODES.get(code, "Error")
        response = Response(render_template("error.html", title=title, message=f"{message.rstrip('.')}."))
    else:
        response = jsonify({"error": message, **({"field": field} if field else {})})
    response.status_code = code
    response.headers.update(headers)
    return response


def is_page(path: str) -> bool:
    """Tell whether a path is one of the dashboard's."""
    return path in ("/", "/ui") or path.startswith("/ui/")
