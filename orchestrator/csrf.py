"""What a browser is told, and what is refused because a browser was talked into it by another site."""

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
    """Everything is served from here, and nothing of another site may run, frame it, or send its forms."""
    app.before_request(_refuse_other_sites)
    app.after_request(_tell)


def _refuse_other_sites() -> None:
    """Cross-site request forgery: nobody logs in here, so where a request comes from is all there is to check.

    A browser says so in Sec-Fetch-Site (W3C Fetch Metadata), older ones in Origin (RFC 6454); other clients send
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


def _tell(response: Response) -> Response:
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    if response.mimetype == "text/html":
        response.headers.setdefault("Content-Security-Policy", POLICY)
        response.headers.setdefault("Referrer-Policy", "same-origin")
        response.headers.setdefault("Cache-Control", "no-store")
    return response
