"""The only reader of the environment: every setting, its default, and a clear error where one is unusable."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from saga.errors import SettingsError
from saga.urls import masked

SERVICES = ("A", "B", "C")
BROKERS_OWN = ("saga", "dead", "_INBOX")  # how subjects begin without a prefix, and the broker's own
ENGINES = ("builtin", "temporal")


@dataclass(frozen=True)
class TemporalSettings:
    """Where Temporal is, and what it asks for."""

    address: str  # host:port
    namespace: str
    task_queue: str
    api_key: str | None = field(repr=False)
    tls: bool
    tls_cert: Path | None  # the client's own,
    tls_key: Path | None
    tls_ca: Path | None  # and who has signed the server's; None: one of the system's
    codec_key: bytes | None = field(repr=False)  # 32 bytes that encrypt what is in Temporal's histories


@dataclass(frozen=True)
class Settings:
    """What the processes of the stack are told from outside. Times are in seconds."""

    host: str
    orchestrator_port: int
    orchestrator_url: str  # where the command line finds it
    service_ports: Mapping[str, int]
    saga_log_url: str = field(repr=False)  # may hold a password
    service_db_urls: Mapping[str, str] = field(repr=False)
    nats_url: str | None = field(repr=False)  # one or more, with commas; None: no broker, no choreography
    nats_prefix: str  # of all names at the broker, so that several stacks share one; "": none
    nats_port: int  # where `make up` starts a broker
    engine: str  # of new sagas
    temporal: TemporalSettings
    temporal_port: int  # where `make up` starts a server,
    temporal_ui_port: int  # and its own pages
    temporal_elsewhere: bool  # TEMPORAL_ADDRESS is set, be it only for sagas that were started there
    sagas_dir: Path
    faults: bool
    fault_hold_seconds: float
    lease_seconds: float
    recovery_interval: float
    stall_base_seconds: float
    stall_max_seconds: float
    token: str | None = field(repr=False)
    environ: Mapping[str, str] = field(repr=False)  # what ${VAR} in a saga's YAML is expanded from

    def service_port(self, name: str) -> int:
        """Where the service called `name` listens: SERVICE_<NAME>_PORT."""
        variable = f"{_variable(name)}_PORT"
        if name not in self.service_ports and not self.environ.get(variable):
            raise SettingsError(f"{variable} is not set: the port that the service {name} listens on", variable)
        return self.service_ports.get(name) or _port(self.environ, variable, 0)

    def service_db_url(self, name: str) -> str:
        """The database of the service called `name`: SERVICE_<NAME>_DB_URL, else a SQLite file in var/."""
        default = f"sqlite:///var/{_variable(name).lower()}.db"
        return self.service_db_urls.get(name) or _database(self.environ, f"{_variable(name)}_DB_URL", default)


def _variable(service: str) -> str:
    return f"SERVICE_{service.upper().replace('-', '_')}"


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings in `environ` (the process's own by default); SettingsError names the variable."""
    source = dict(os.environ if environ is None else environ)
    host = source.get("HOST") or "127.0.0.1"
    ports = {name: _port(source, f"SERVICE_{name}_PORT", 5001 + index) for index, name in enumerate(SERVICES)}
    for name, port in ports.items():
        source[f"SERVICE_{name}_URL"] = _url(source, f"SERVICE_{name}_URL", f"http://{reachable(host)}:{port}")
    port = _port(source, "ORCHESTRATOR_PORT", 5000)
    nats_port = _port(source, "NATS_PORT", 4222)
    temporal_port = _port(source, "TEMPORAL_PORT", 7233)
    settings = Settings(
        orchestrator_url=_url(source, "ORCHESTRATOR_URL", f"http://{reachable(host)}:{port}"),
        host=host,
        orchestrator_port=port,
        service_ports=ports,
        saga_log_url=_database(source, "SAGA_LOG_URL", "sqlite:///var/orchestrator.db"),
        service_db_urls={
            name: _database(source, f"SERVICE_{name}_DB_URL", f"sqlite:///var/service_{name.lower()}.db")
            for name in SERVICES
        },
        nats_url=_brokers(source, "NATS_URL", broker_url(host, nats_port)),
        nats_prefix=_prefix(source, "NATS_PREFIX"),
        nats_port=nats_port,
        engine=_engine(source),
        temporal=_temporal(source, f"{reachable(host)}:{temporal_port}"),
        temporal_port=temporal_port,
        temporal_ui_port=_port(source, "TEMPORAL_UI_PORT", 8233),
        temporal_elsewhere=bool(source.get("TEMPORAL_ADDRESS")),
        sagas_dir=Path(source.get("SAGAS_DIR") or "orchestrator/sagas"),
        faults=_switch(source, "FAULTS", True),
        fault_hold_seconds=_seconds(source, "FAULT_HOLD_SECONDS", 20),
        lease_seconds=_seconds(source, "LEASE_SECONDS", 10),
        recovery_interval=_seconds(source, "RECOVERY_INTERVAL", 1),
        stall_base_seconds=_seconds(source, "STALL_BASE_SECONDS", 1),
        stall_max_seconds=_seconds(source, "STALL_MAX_SECONDS", 300),
        token=_token(source),
        environ=source,
    )
    if settings.stall_max_seconds < settings.stall_base_seconds:
        raise SettingsError("STALL_MAX_SECONDS must not be less than STALL_BASE_SECONDS", "STALL_MAX_SECONDS")
    return settings


def reachable(host: str) -> str:
    """The host of a URL that reaches a process on this machine which listens on `host`."""
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def broker_url(host: str, port: int) -> str:
    """Where the broker is that listens on `host`: NATS_URL's default."""
    return f"nats://{reachable(host)}:{port}"


def _port(source: Mapping[str, str], name: str, default: int) -> int:
    text = source.get(name) or str(default)
    if not re.fullmatch(r"\d{1,5}", text) or not 1 <= int(text) <= 65535:
        raise SettingsError(f"{name} must be a port, 1 to 65535, not {text!r}", name)
    return int(text)


def _seconds(source: Mapping[str, str], name: str, default: float) -> float:
    text = source.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value <= 86_400:
        raise SettingsError(f"{name} must be a number of seconds above 0 and at most 86400, not {text!r}", name)
    return value


def _switch(source: Mapping[str, str], name: str, default: bool) -> bool:
    text = (source.get(name) or ("on" if default else "off")).lower()
    if text not in ("on", "off"):
        raise SettingsError(f"{name} must be on or off, not {text!r}", name)
    return text == "on"


def _url(source: Mapping[str, str], name: str, default: str) -> str:
    text = (source.get(name) or default).rstrip("/")
    if not re.match(r"https?://[^/]", text):
        raise SettingsError(f"{name} must be an http:// or https:// URL, not {masked(text)!r}", name)
    return text


def _database(source: Mapping[str, str], name: str, default: str) -> str:
    text = source.get(name) or default
    if not text.startswith(("sqlite:///", "mysql+mysqlconnector://")):
        raise SettingsError(f"{name} must begin with sqlite:/// or mysql+mysqlconnector://", name)  # unquoted
    return text


def _brokers(source: Mapping[str, str], name: str, default: str) -> str | None:
    text = source.get(name) or default
    if text.lower() == "off":
        return None
    urls = [url.strip().rstrip("/") for url in text.split(",")]
    if not all(map(_is_broker, urls)):
        raise SettingsError(f"{name} must be off, or nats:// or tls:// URLs with commas between them", name)  # unquoted
    return ",".join(urls)


def _prefix(source: Mapping[str, str], name: str) -> str:
    text = source.get(name) or ""
    if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", text):
        raise SettingsError(f"{name} must be at most 64 letters, digits, - and _, not {text!r}", name)
    if text in BROKERS_OWN:
        raise SettingsError(f"{name} must not be {text!r}: names that begin so are used already", name)
    return text


def _is_broker(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(re.fullmatch(r"(nats|tls)://\S+", url) and parts.hostname and parts.port != 0 and not parts.path)
    except ValueError:  # a port that is none
        return False


def _engine(source: Mapping[str, str]) -> str:
    engine = (source.get("ENGINE") or ENGINES[0]).lower()
    if engine not in ENGINES:
        raise SettingsError(f"ENGINE must be {' or '.join(ENGINES)}, not {engine!r}", "ENGINE")
    return engine


def _temporal(source: Mapping[str, str], default: str) -> TemporalSettings:
    address = source.get("TEMPORAL_ADDRESS") or default
    host, colon, port = address.rpartition(":")
    if not (host and colon and re.fullmatch(r"[^\s/@]+", host) and port.isdecimal() and 1 <= int(port) <= 65535):
        raise SettingsError(f"TEMPORAL_ADDRESS must be host:port, not {address!r}", "TEMPORAL_ADDRESS")
    api_key = source.get("TEMPORAL_API_KEY") or None
    cert, key = _file(source, "TEMPORAL_TLS_CERT"), _file(source, "TEMPORAL_TLS_KEY")
    ca = _file(source, "TEMPORAL_TLS_CA")
    secure = any((api_key, cert, key, ca))
    tls = _switch(source, "TEMPORAL_TLS", secure)
    if secure and not tls:
        raise SettingsError("TEMPORAL_TLS must be on where there is an API key or a certificate", "TEMPORAL_TLS")
    if bool(cert) != bool(key):
        missing = "TEMPORAL_TLS_KEY" if cert else "TEMPORAL_TLS_CERT"
        raise SettingsError(f"{missing} is missing: a certificate and its key go together", missing)
    return TemporalSettings(
        address=address,
        namespace=source.get("TEMPORAL_NAMESPACE") or "default",
        task_queue=source.get("TEMPORAL_TASK_QUEUE") or "saga-stack",
        api_key=api_key,
        tls=tls,
        tls_cert=cert,
        tls_key=key,
        tls_ca=ca,
        codec_key=_codec_key(source),
    )


def _file(source: Mapping[str, str], name: str) -> Path | None:
    path = Path(source[name]) if source.get(name) else None
    try:
        if path:
            path.open("rb").close()
    except OSError as error:
        raise SettingsError(
            f"{name} must be a file that can be read, not {str(path)!r}: {error.strerror}", name
        ) from None
    return path


def _codec_key(source: Mapping[str, str]) -> bytes | None:
    text = source.get("TEMPORAL_CODEC_KEY")
    if not text:
        return None
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) != 32:
        raise SettingsError(
            "TEMPORAL_CODEC_KEY must be 32 bytes in base64: openssl rand -base64 32", "TEMPORAL_CODEC_KEY"
        )
    return key


def _token(source: Mapping[str, str]) -> str | None:
    token = source.get("SAGA_TOKEN") or None
    if token and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise SettingsError("SAGA_TOKEN must be printable ASCII without spaces", "SAGA_TOKEN")
    return token
