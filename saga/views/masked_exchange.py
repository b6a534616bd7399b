"""Makes of one attempt's request and response what may be kept and shown of them: masked first, then cut. Pure.

Never kept: the values of headers that hold credentials or cookies, of the fields that the definition calls secret, and
any text that repeats one of these, whichever field, header or message it stands in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any
from urllib.parse import quote, quote_plus

from saga.call import Exchange
from saga.payload import MASK, compact, mask, readable, secret_texts, stored
from saga.progress import secrets_of
from saga.saga_row import SagaRow
from saga.urls import credentials, masked

KEPT_AT_MOST = 4096  # bytes of a body, and of all headers together, after masking
SHORT = 4  # characters: a secret text that is shorter is masked only where it stands alone

_CREDENTIALS = re.compile(
    "authorization|authenticat|cookie|token|secret|password|credential|session|signature|api-?key", re.I
)
_NEVER_SHOWN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f]")  # a text has none of these

Masking = Callable[[str], str]
Kept = dict[str, Any]


def masked_exchange(row: SagaRow, exchange: Exchange) -> tuple[Kept, Kept]:
    """Return what may be kept of the request, and of the response.

    The request has `method, url, headers, body, bytes, cut`, the response `status, headers, body, bytes, cut, failure,
    message`. `bytes` is the size of the whole body, and `cut` says that `body` is only its beginning. A body that is no
    text is None.
    """
    request, answer = exchange.request, exchange.answer
    sent = {**request.headers, "Saga-Attempt": str(exchange.attempt.number)}
    names = frozenset(row.definition.secret)
    hide = _masking(
        {
            *secrets_of(row),
            *(text for body in (request.body, answer.body) for text in secret_texts(_json(body), names)),
            *_credentials_in(sent),
            *_credentials_in(answer.headers),
            *_credentials_in({"Authorization": _own_credentials(request.url)}),
        }
    )
    asked = {"method": "POST", "url": hide(_without_named(masked(request.url), names))}
    failure = {"failure": str(answer.failure) if answer.failure else None, "message": hide(answer.message) or None}
    received = {"status": answer.status, "headers": _headers(answer.headers, hide)}
    return (
        {**asked, "headers": _headers(sent, hide), **_body(request.body, names, hide)},
        {**received, **_body(answer.body, names, hide), **failure},
    )


def _own_credentials(url: str) -> str:
    """Return the Authorization that the URL's own user and password stand for; empty where it has none."""
    try:
        return credentials(url) or ""
    except ValueError:
        return ""


def _credentials_in(headers: Mapping[str, str]) -> set[str]:
    """Return the values of the headers that hold credentials, also without their scheme: `Bearer x` and `x`."""
    values = [value for name, value in headers.items() if _CREDENTIALS.search(name)]
    return {part.strip() for value in values for part in (value, value.partition(" ")[2]) if part.strip()}


def _masking(secrets: Iterable[str]) -> Masking:
    """Return the function that masks these texts wherever they stand in another, also as JSON and URLs write them."""
    forms = {
        form
        for text in secrets
        if text
        for form in (text, compact(text)[1:-1], *(made(text, errors="replace") for made in (quote, quote_plus)))
    }
    found = re.compile("|".join(_alone_if_short(form) for form in sorted(forms, key=len, reverse=True)))
    return lambda text: found.sub(MASK, text) if forms else text


def _alone_if_short(text: str) -> str:
    return re.escape(text) if len(text) >= SHORT else rf"(?<!\w){re.escape(text)}(?!\w)"


def _headers(headers: Mapping[str, str], hide: Masking) -> dict[str, str]:
    """Return the headers with their credentials masked, the first of them up to KEPT_AT_MOST bytes."""
    kept: dict[str, str] = {}
    left = KEPT_AT_MOST
    for name, value in headers.items():
        shown = MASK if _CREDENTIALS.search(name) else hide(_text(value))
        left -= len(name.encode("utf-8", "replace")) + len(shown.encode())
        if left < 0:
            kept["…"] = f"{len(headers) - len(kept)} more, left out"
            break
        kept[_text(name)] = shown
    return kept


def _body(body: bytes, names: Collection[str], hide: Masking) -> Kept:
    """Return a body that is masked, and then cut."""
    size = {"bytes": len(body)}
    value = _json(body)
    if value is not None:
        whole = hide(_text(readable(mask(value, names))))
    else:
        whole = body.decode("utf-8", "replace")
        if _NEVER_SHOWN.search(whole):
            return {"body": None, **size, "cut": False}
        whole = hide(_without_named(whole, names))
    kept = whole.encode()[:KEPT_AT_MOST].decode("utf-8", "ignore")
    return {"body": kept, **size, "cut": len(kept) < len(whole)}


def _without_named(text: str, names: Collection[str]) -> str:
    """Return a text that is no JSON without what follows a secret field's name: in a form, a URL, XML, broken JSON."""
    if not names:
        return text
    name = "|".join(re.escape(each) for each in sorted(names, key=len, reverse=True))
    value = r"""("(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|[^\s&;,<>}\]]+)"""
    text = re.sub(rf"""(?<![\w-])((?:{name})["']?\s*[:=]\s*){value}""", rf"\g<1>{MASK}", text)
    return re.sub(rf"(<(?:{name})(?:\s[^>]*)?>)[^<]*", rf"\g<1>{MASK}", text)


def _json(body: bytes) -> Any:
    """Return the JSON value that a body is; None where it is none, or null."""
    try:
        return stored(body.decode())
    except ValueError:
        return None


def _text(text: str) -> str:
    """Return a text that any database can store: without half a surrogate pair."""
    return text.encode("utf-8", "replace").decode()
