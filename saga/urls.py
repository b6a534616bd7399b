"""URLs that may hold a user and a password: how those are sent, and that they are never shown."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import lru_cache
from urllib.parse import unquote_to_bytes, urlsplit

from saga.payload import MASK

# What stands between `://` and the last `@` of the authority. Where the authority is broken, because a password holds
# a `/`, a `?` or a `#` that is not percent-encoded, it is what stands before the last `@` of the whole URL.
_USERINFO = re.compile(
    r"""(?<=://)(?: [^\s/?#"'<>]* | (?!\[)[^\s/?#:"'<>]* :(?!\d*(?:[/?#\s"'<>]|$)) [^\s"'<>]* )@""", re.VERBOSE
)


def masked(text: str) -> str:
    """`text` with the user and the password of every URL in it replaced by `***`: `http://***@host/path`."""
    return _USERINFO.sub(f"{MASK}@", text) if "@" in text else text


def credentials(url: str) -> str | None:
    """The value of Authorization that a URL's `user:password@` stands for (Basic, RFC 7617); None where it has none.

    Both parts are percent-decoded. Raises ValueError where `url` is no URL.
    """
    return _credentials(url) if "@" in url else None


@lru_cache(maxsize=1024)
def _credentials(url: str) -> str | None:
    parts = urlsplit(url)
    if not parts.username and not parts.password:
        return None
    user, password = (unquote_to_bytes(part or "") for part in (parts.username, parts.password))
    return f"Basic {b64encode(user + b':' + password).decode('ascii')}"
