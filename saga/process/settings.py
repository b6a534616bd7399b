"""This module has the settings of the stack, each with its default and a sentence; nothing else reads the environment.

docs/settings.md is made from what is declared here: `python -m saga.process.settings_page`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saga.errors import SettingsError
from saga.process import setting
from saga.process.setting import Setting

SERVICES = ("A", "B", "C")


def _variable(service: str) -> str:
    return f"SERVICE_{service.upper().replace('-', '_')}"


def reachable(host: str) -> str:
    """Return the host of a URL that reaches a process on this machine which listens on `host`."""
    if host in ("0.0.0.0", "::"):  # noqa: S104
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def broker_url(host: str, port: int) -> str:
    """Return the URL of the broker that `make up` starts: NATS_URL's default."""
    return f"nats://{reachable(host)}:{port}"


# What is said of a service holds for those of one's own, too: NAME is the service's, in capitals.


def service_port(name: str, default: str = "") -> Setting[int]:
    """Return the setting that says where a service listens."""
    return Setting(f"{_variable(name)}_PORT", default, setting.port, f"The port that service {name} listens on.")


def service_db_url(name: str) -> Setting[str]:
    """Return the setting that says which database a service has."""
    default = f"sqlite:///var/{_variable(name).lower()}.db"
    return Setting(f"{_variable(name)}_DB_URL", default, setting.database, f"The database of service {name}.")


def _service_url(name: str) -> Setting[str]:
    def default(environ: Mapping[str, str]) -> str:
        return f"http://{reachable(HOST.read(environ))}:{SERVICE_PORTS[name].read(environ)}"

    return Setting(f"{_variable(name)}_URL", default, setting.url, f"Where the orchestrator finds service {name}.")


def _temporal_tls(environ: Mapping[str, str]) -> str:
    return "on" if any(environ.get(each.name) for each in TEMPORAL_SECRETS) else "off"


HOST = Setting("HOST", "127.0.0.1", setting.text, "The address that every process listens on.")
ORCHESTRATOR_PORT = Setting(
    "ORCHESTRATOR_PORT", "5000", setting.port, "The port of the orchestrator and its dashboard."
)
SERVICE_PORTS = {name: service_port(name, str(5001 + index)) for index, name in enumerate(SERVICES)}
SERVICE_URLS = {name: _service_url(name) for name in SERVICES}
ORCHESTRATOR_URL = Setting(
    "ORCHESTRATOR_URL",
    lambda environ: f"http://{reachable(HOST.read(environ))}:{ORCHESTRATOR_PORT.read(environ)}",
    setting.url,
    "Where the `saga` command finds the orchestrator.",
)
SAGA_LOG_URL = Setting(
    "SAGA_LOG_URL",
    "sqlite:///var/orchestrator.db",
    setting.database,
    "The saga log's database: a SQLite file, or `mysql+mysqlconnector://user:password@host/database`.",
)
SERVICE_DB_URLS = {name: service_db_url(name) for name in SERVICES}
SAGAS_DIR = Setting(
    "SAGAS_DIR", "orchestrator/sagas", setting.path, "The directory in which every `*.yaml` file is a saga."
)
SAGA_TOKEN = Setting(
    "SAGA_TOKEN", "", setting.token, "A secret that the orchestrator sends, and that the services then ask for."
)
FAULTS = Setting("FAULTS", "on", setting.on_or_off, "`off` refuses every `fail=` and `delay=`.")
FAULT_HOLD_SECONDS = Setting(
    "FAULT_HOLD_SECONDS", "20", setting.seconds, "How long the injected faults `lost` and `late` hold an answer back."
)
LEASE_SECONDS = Setting(
    "LEASE_SECONDS", "10", setting.seconds, "How long an orchestrator may be silent before its sagas are taken over."
)
RECOVERY_INTERVAL = Setting(
    "RECOVERY_INTERVAL", "1", setting.seconds, "The seconds between two looks for sagas that are due."
)
STALL_BASE_SECONDS = Setting("STALL_BASE_SECONDS", "1", setting.seconds, "The first rest of a stalled saga.")
STALL_MAX_SECONDS = Setting("STALL_MAX_SECONDS", "300", setting.seconds, "The longest rest of a stalled saga.")
SAGA_PLAIN = Setting(
    "SAGA_PLAIN",
    "0",
    setting.one_or_zero,
    "`1` runs the stack on plain libraries alone (requests, SQLAlchemy, Werkzeug), without the code that is there for "
    "speed: slower, for comparing and for finding faults.",
)
KEEP_BODIES = Setting(
    "KEEP_BODIES",
    "errors",
    setting.kept_bodies,
    "What was sent and answered in an attempt is kept in the saga log, masked and cut at 4 KiB, for the dashboard: of "
    "those that were not done (`errors`), of `all`, or of `none`.",
)
NATS_PORT = Setting(
    "NATS_PORT",
    "4222",
    setting.port,
    "The port on which `make up` starts a broker, [NATS JetStream](https://docs.nats.io/nats-concepts/jetstream).",
)
NATS_URL = Setting(
    "NATS_URL",
    lambda environ: broker_url(HOST.read(environ), NATS_PORT.read(environ)),
    setting.brokers,
    "Another broker, or a cluster: `nats://one:4222,nats://two:4222`; `off` for none.",
)
NATS_PREFIX = Setting(
    "NATS_PREFIX",
    "",
    setting.prefix,
    "What all names at the broker begin with, so that several stacks share one: letters, digits, `-` and `_`.",
)
ENGINE = Setting("ENGINE", "builtin", setting.engine, "`temporal`: new sagas are driven by [Temporal](temporal.md).")
TEMPORAL_PORT = Setting(
    "TEMPORAL_PORT", "7233", setting.port, "The port on which `make up ENGINE=temporal` starts a development server."
)
TEMPORAL_UI_PORT = Setting("TEMPORAL_UI_PORT", "8233", setting.port, "The port of that server's own pages.")
TEMPORAL_ADDRESS = Setting(
    "TEMPORAL_ADDRESS",
    lambda environ: f"{reachable(HOST.read(environ))}:{TEMPORAL_PORT.read(environ)}",
    setting.host_and_port,
    "Another Temporal server.",
)
TEMPORAL_NAMESPACE = Setting("TEMPORAL_NAMESPACE", "default", setting.text, "The namespace at that server.")
TEMPORAL_TASK_QUEUE = Setting("TEMPORAL_TASK_QUEUE", "saga-stack", setting.text, "The task queue of the workers.")
TEMPORAL_API_KEY = Setting("TEMPORAL_API_KEY", "", setting.secret, "The API key that the server asks for.")
TEMPORAL_TLS_CERT = Setting("TEMPORAL_TLS_CERT", "", setting.file, "The file of the client's own certificate.")
TEMPORAL_TLS_KEY = Setting("TEMPORAL_TLS_KEY", "", setting.file, "The file of that certificate's key.")
TEMPORAL_TLS_CA = Setting(
    "TEMPORAL_TLS_CA", "", setting.file, "The file of who signed the server's certificate; by default the system's."
)
TEMPORAL_SECRETS = (TEMPORAL_API_KEY, TEMPORAL_TLS_CERT, TEMPORAL_TLS_KEY, TEMPORAL_TLS_CA)
TEMPORAL_TLS = Setting(
    "TEMPORAL_TLS",
    _temporal_tls,
    setting.on_or_off,
    "Whether the connection is encrypted; `on` where there is an API key or a certificate.",
)
TEMPORAL_CODEC_KEY = Setting(
    "TEMPORAL_CODEC_KEY", "", setting.codec_key, "32 bytes in base64 that encrypt what Temporal stores."
)

GROUPS: Mapping[str, tuple[Setting[Any], ...]] = {
    "Where the processes are": (
        HOST,
        ORCHESTRATOR_PORT,
        *SERVICE_PORTS.values(),
        *SERVICE_URLS.values(),
        ORCHESTRATOR_URL,
    ),
    "Databases and sagas": (SAGA_LOG_URL, *SERVICE_DB_URLS.values(), SAGAS_DIR, SAGA_TOKEN, KEEP_BODIES),
    "How sagas are driven": (
        LEASE_SECONDS,
        RECOVERY_INTERVAL,
        STALL_BASE_SECONDS,
        STALL_MAX_SECONDS,
        FAULTS,
        FAULT_HOLD_SECONDS,
        SAGA_PLAIN,
    ),
    "Choreography": (NATS_PORT, NATS_URL, NATS_PREFIX),
    "Temporal": (
        ENGINE,
        TEMPORAL_PORT,
        TEMPORAL_UI_PORT,
        TEMPORAL_ADDRESS,
        TEMPORAL_NAMESPACE,
        TEMPORAL_TASK_QUEUE,
        TEMPORAL_TLS,
        *TEMPORAL_SECRETS,
        TEMPORAL_CODEC_KEY,
    ),
}


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
    keep_bodies: str  # of which attempts: errors, all, none
    faults: bool
    fault_hold_seconds: float
    lease_seconds: float
    recovery_interval: float
    stall_base_seconds: float
    stall_max_seconds: float
    token: str | None = field(repr=False)
    plain: bool  # without our own speed: on requests, SQLAlchemy and Werkzeug alone
    environ: Mapping[str, str] = field(repr=False)  # what ${VAR} in a saga's YAML is expanded from

    def service_port(self, name: str) -> int:
        """Return the port of the service called `name`: SERVICE_<NAME>_PORT.

        Raises SettingsError where it is not set.
        """
        setting = service_port(name)
        if name not in self.service_ports and not self.environ.get(setting.name):
            raise SettingsError(f"{setting.name} is not set: the port that the service {name} listens on", setting.name)
        return self.service_ports.get(name) or setting.read(self.environ)

    def service_db_url(self, name: str) -> str:
        """Return the database of the service called `name`: SERVICE_<NAME>_DB_URL, else a SQLite file in var/."""
        return self.service_db_urls.get(name) or service_db_url(name).read(self.environ)


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Return the settings in `environ` (by default the process's own).

    Raises SettingsError, which names the variable.
    """
    source = dict(os.environ if environ is None else environ)
    source |= {each.name: each.read(source) for each in SERVICE_URLS.values()}
    settings = Settings(
        host=HOST.read(source),
        orchestrator_port=ORCHESTRATOR_PORT.read(source),
        orchestrator_url=ORCHESTRATOR_URL.read(source),
        service_ports={name: each.read(source) for name, each in SERVICE_PORTS.items()},
        saga_log_url=SAGA_LOG_URL.read(source),
        service_db_urls={name: each.read(source) for name, each in SERVICE_DB_URLS.items()},
        nats_url=NATS_URL.read(source),
        nats_prefix=NATS_PREFIX.read(source),
        nats_port=NATS_PORT.read(source),
        engine=ENGINE.read(source),
        temporal=_temporal(source),
        temporal_port=TEMPORAL_PORT.read(source),
        temporal_ui_port=TEMPORAL_UI_PORT.read(source),
        temporal_elsewhere=bool(source.get(TEMPORAL_ADDRESS.name)),
        sagas_dir=SAGAS_DIR.read(source),
        keep_bodies=KEEP_BODIES.read(source),
        faults=FAULTS.read(source),
        fault_hold_seconds=FAULT_HOLD_SECONDS.read(source),
        lease_seconds=LEASE_SECONDS.read(source),
        recovery_interval=RECOVERY_INTERVAL.read(source),
        stall_base_seconds=STALL_BASE_SECONDS.read(source),
        stall_max_seconds=STALL_MAX_SECONDS.read(source),
        token=SAGA_TOKEN.read(source),
        plain=SAGA_PLAIN.read(source),
        environ=source,
    )
    if settings.stall_max_seconds < settings.stall_base_seconds:
        raise SettingsError("STALL_MAX_SECONDS must not be less than STALL_BASE_SECONDS", "STALL_MAX_SECONDS")
    return settings


def _temporal(source: Mapping[str, str]) -> TemporalSettings:
    address, api_key = TEMPORAL_ADDRESS.read(source), TEMPORAL_API_KEY.read(source)
    cert, key, ca = TEMPORAL_TLS_CERT.read(source), TEMPORAL_TLS_KEY.read(source), TEMPORAL_TLS_CA.read(source)
    tls = TEMPORAL_TLS.read(source)
    if any((api_key, cert, key, ca)) and not tls:
        raise SettingsError("TEMPORAL_TLS must be on where there is an API key or a certificate", "TEMPORAL_TLS")
    if bool(cert) != bool(key):
        missing = "TEMPORAL_TLS_KEY" if cert else "TEMPORAL_TLS_CERT"
        raise SettingsError(f"{missing} is missing: a certificate and its key go together", missing)
    return TemporalSettings(
        address=address,
        namespace=TEMPORAL_NAMESPACE.read(source),
        task_queue=TEMPORAL_TASK_QUEUE.read(source),
        api_key=api_key,
        tls=tls,
        tls_cert=cert,
        tls_key=key,
        tls_ca=ca,
        codec_key=TEMPORAL_CODEC_KEY.read(source),
    )
