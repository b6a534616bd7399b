"""A `Setting` is a variable of the environment with a default, a reader that checks it, and a sentence about it."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar
from urllib.parse import urlsplit

from saga.errors import SettingsError
from saga.urls import masked

BROKERS_OWN = ("saga", "dead", "_INBOX")  # how subjects begin without a prefix, and the broker's own
ENGINES = ("builtin", "temporal")
BODIES = ("errors", "all", "none")

T = TypeVar("T")


@dataclass(frozen=True)
class Setting(Generic[T]):
    """A variable that may be set; one that is empty counts as not set.

    `default`: what is read where it is not set, given or made from the other variables; "" stands for none. `parse`
    takes the variable's name and its text, and raises SettingsError, which names the variable, where it is unusable.
    """

    name: str
    default: str | Callable[[Mapping[str, str]], str]
    parse: Callable[[str, str], T]
    sentence: str  # for docs/settings.md

    def read(self, environ: Mapping[str, str]) -> T:
        """Return the value in `environ`, else the default. Raises SettingsError where it is unusable."""
        return self.parse(self.name, environ.get(self.name) or self.default_in(environ))

    def default_in(self, environ: Mapping[str, str]) -> str:
        """Return the text that is read where the variable itself is not set, but perhaps others are."""
        return self.default if isinstance(self.default, str) else self.default(environ)


def text(name: str, value: str) -> str:
    """Return the text as it is."""
    return value


def secret(name: str, value: str) -> str | None:
    """Return the text as it is; None where it is empty."""
    return value or None


def path(name: str, value: str) -> Path:
    """Return the path of a file or a directory, which need not be there."""
    return Path(value)


def port(name: str, value: str) -> int:
    """Return the number of a port, 1 to 65535. Raises SettingsError for anything else."""
    if not re.fullmatch(r"\d{1,5}", value) or not 1 <= int(value) <= 65535:
        raise SettingsError(f"{name} must be a port, 1 to 65535, not {value!r}", name)
    return int(value)


def seconds(name: str, value: str) -> float:
    """Return a length of time in seconds, above 0 and at most a day. Raises SettingsError for anything else."""
    try:
        number = float(value)
    except ValueError:
        number = -1
    if not 0 < number <= 86_400:
        raise SettingsError(f"{name} must be a number of seconds above 0 and at most 86400, not {value!r}", name)
    return number


def on_or_off(name: str, value: str) -> bool:
    """Return whether the text is `on`. Raises SettingsError unless it is `on` or `off`."""
    if value.lower() not in ("on", "off"):
        raise SettingsError(f"{name} must be on or off, not {value.lower()!r}", name)
    return value.lower() == "on"


def one_or_zero(name: str, value: str) -> bool:
    """Return whether the text is `1`. Raises SettingsError unless it is `1` or `0`."""
    if value not in ("1", "0"):
        raise SettingsError(f"{name} must be 1 or 0, not {value!r}", name)
    return value == "1"


def url(name: str, value: str) -> str:
    """Return the URL of an HTTP server, without a slash at its end. Raises SettingsError where it is not one."""
    value = value.rstrip("/")
    if not re.match(r"https?://[^/]", value):
        raise SettingsError(f"{name} must be an http:// or https:// URL, not {masked(value)!r}", name)
    return value


def database(name: str, value: str) -> str:
    """Return the URL of a database. Raises SettingsError, which does not quote it, since it may hold a password."""
    if not value.startswith(("sqlite:///", "mysql+mysqlconnector://")):
        raise SettingsError(f"{name} must begin with sqlite:/// or mysql+mysqlconnector://", name)
    return value


def brokers(name: str, value: str) -> str | None:
    """Return the URLs of one broker or of a cluster; None for `off`.

    Raises SettingsError, which does not quote them.
    """
    if value.lower() == "off":
        return None
    urls = [each.strip().rstrip("/") for each in value.split(",")]
    if not all(map(_is_broker, urls)):
        raise SettingsError(f"{name} must be off, or nats:// or tls:// URLs with commas between them", name)
    return ",".join(urls)


def _is_broker(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return bool(re.fullmatch(r"(nats|tls)://\S+", value) and parts.hostname and parts.port != 0 and not parts.path)
    except ValueError:  # a port that is none
        return False


def prefix(name: str, value: str) -> str:
    """Return what names at the broker begin with. Raises SettingsError where no name may begin so."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", value):
        raise SettingsError(f"{name} must be at most 64 letters, digits, - and _, not {value!r}", name)
    if value in BROKERS_OWN:
        raise SettingsError(f"{name} must not be {value!r}: names that begin so are used already", name)
    return value


def engine(name: str, value: str) -> str:
    """Return the name of the engine that drives new sagas: one of ENGINES. Raises SettingsError for another."""
    if value.lower() not in ENGINES:
        raise SettingsError(f"{name} must be {' or '.join(ENGINES)}, not {value.lower()!r}", name)
    return value.lower()


def kept_bodies(name: str, value: str) -> str:
    """Of which attempts the bodies are kept."""
    if value.lower() not in BODIES:
        raise SettingsError(f"{name} must be errors, all or none, not {value.lower()!r}", name)
    return value.lower()


def host_and_port(name: str, value: str) -> str:
    """Return an address, `host:port`, as Temporal's clients take it. Raises SettingsError where it is not one."""
    host, colon, number = value.rpartition(":")
    if not (host and colon and re.fullmatch(r"[^\s/@]+", host) and number.isdecimal() and 1 <= int(number) <= 65535):
        raise SettingsError(f"{name} must be host:port, not {value!r}", name)
    return value


def file(name: str, value: str) -> Path | None:
    """Return the path of a file that can be read; None where there is no name. Raises SettingsError where it cannot."""
    found = Path(value) if value else None
    try:
        if found:
            found.open("rb").close()
    except OSError as error:
        message = f"{name} must be a file that can be read, not {value!r}: {error.strerror}"
        raise SettingsError(message, name) from None
    return found


def codec_key(name: str, value: str) -> bytes | None:
    """Return the 32 bytes of a key in base64; None where there is none.

    Raises SettingsError, which does not quote it.
    """
    if not value:
        return None
    try:
        key = base64.b64decode(value, validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise SettingsError(f"{name} must be 32 bytes in base64: openssl rand -base64 32", name)
    return key


def token(name: str, value: str) -> str | None:
    """Return a secret that can stand in a header; None where there is none.

    Raises SettingsError, which does not quote it.
    """
    if value and not re.fullmatch(r"[\x21-\x7e]+", value):
        raise SettingsError(f"{name} must be printable ASCII without spaces", name)
    return value or None
