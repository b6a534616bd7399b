"""A URL may hold a user and a password: this module turns them into an Authorization, and masks them."""

from __future__ import annotations

import re
from base64 import b64encode
from functools import lru_cache
from urllib.parse import unquote_to_bytes, urlsplit

from saga.payload import MASK

# It matches what stands between `://` and the last `@` of the authority. A password that holds a `/`, a `?` or a `#`
# without percent-encoding breaks the authority: then it matches what stands before the last `@` of the whole URL.
_USERINFO = re.compile(
    r"""(?<=://)(?: [^\s/?#"'<>]* | (?!\[)[^\s/?#:"'<>]* :(?!\d*(?:[/?#\s"'<>]|$)) [^\s"'<>]* )@""", re.VERBOSE
)


def masked(text: str) -> str:
    """Return `text` with the user and the password of every URL in it masked, as in `http://***@host/path`."""
    return _USERINFO.sub(f"{MASK}@", text) if "@" in text else text


def credentials(url: str) -> str | None:
    """Return the Authorization that a URL's `user:password@` stands for (Basic, RFC 7617); None where it has none.

    Both parts are percent-decoded. Raises ValueError where `url` is not a URL.
    """
    return _credentials(url) if "@" in url else None


@lru_cache(maxsize=1024)
def _credentials(url: str) -> str | None:
    parts = urlsplit(url)
    if not parts.username and not parts.password:
        return None
    user, password = (unquote_to_bytes(part or "") for part in (parts.username, parts.password))
    return f"Basic {b64encode(user + b':' + password).decode('ascii')}"
