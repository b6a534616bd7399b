"""What protects people who use the dashboard in a browser, against other sites and against what a page may hold.

Requests that a page of another site sends are refused (cross-site request forgery), and headers keep our pages from
running scripts of others, loading anything from elsewhere, and being shown in a frame.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Flask, Response, request

from saga.errors import Forbidden

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
SAFE = ("GET", "HEAD", "OPTIONS")


def protect(app: Flask) -> None:
    """Refuse requests that another site's page sends, and add the headers by which a browser protects its user."""
    app.before_request(_refuse_other_sites)
    app.after_request(_add_headers)


def _refuse_other_sites() -> None:
    """Refuse cross-site request forgery. Nobody logs in here, so all there is to check is where a request comes from.

    A browser says that in Sec-Fetch-Site (W3C Fetch Metadata), older ones in Origin (RFC 6454); other clients send
    neither, and cannot be talked into anything.
    """
    if request.method in SAFE:
        return
    site = request.headers.get("Sec-Fetch-Site")
    origin = request.headers.get("Origin")
    if site in ("cross-site", "same-site") or (
        site is None and origin is not None and urlsplit(origin).netloc != request.host
    ):
        raise Forbidden("this was sent by a page of another site")


def _add_headers(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if response.mimetype == "text/html":
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Referrer-Policy", "same-origin")
        response.headers.setdefault("Cache-Control", "no-store")
    return response
