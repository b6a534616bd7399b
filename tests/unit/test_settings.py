"""Settings: defaults that work, and errors that name the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from saga.errors import SettingsError
from saga.process.settings import load_settings
from saga.temporal import require_temporal


def test_the_defaults_are_the_documented_ones() -> None:
    settings = load_settings({})
    assert (settings.host, settings.orchestrator_port) == ("127.0.0.1", 5000)
    assert settings.service_ports == {"A": 5001, "B": 5002, "C": 5003}
    assert settings.saga_log_url == "sqlite:///var/orchestrator.db"
    assert settings.service_db_urls["B"] == "sqlite:///var/service_b.db"
    assert (settings.nats_url, settings.nats_port) == ("nats://127.0.0.1:4222", 4222)
    assert settings.sagas_dir == Path("orchestrator/sagas")
    assert (settings.faults, settings.fault_hold_seconds) == (True, 20)
    assert (settings.lease_seconds, settings.recovery_interval) == (10, 1)
    assert (settings.stall_base_seconds, settings.stall_max_seconds) == (1, 300)
    assert settings.environ["SERVICE_C_URL"] == "http://127.0.0.1:5003"


def test_a_services_address_follows_its_port_unless_it_is_set() -> None:
    settings = load_settings({"SERVICE_A_PORT": "6001", "SERVICE_B_URL": "https://b.example/base/"})
    assert settings.environ["SERVICE_A_URL"] == "http://127.0.0.1:6001"
    assert settings.environ["SERVICE_B_URL"] == "https://b.example/base"


@pytest.mark.parametrize(
    ("host", "found"), [("0.0.0.0", "127.0.0.1"), ("10.1.2.3", "10.1.2.3"), ("::1", "[::1]"), ("::", "127.0.0.1")]
)
def test_a_services_address_follows_where_it_listens(host: str, found: str) -> None:
    assert load_settings({"HOST": host}).environ["SERVICE_A_URL"] == f"http://{found}:5001"


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"NATS_PORT": "4300"}, "nats://127.0.0.1:4300"),
        ({"HOST": "0.0.0.0"}, "nats://127.0.0.1:4222"),
        ({"HOST": "::1", "NATS_PORT": "4300"}, "nats://[::1]:4300"),
        ({"NATS_URL": ""}, "nats://127.0.0.1:4222"),
        ({"NATS_URL": "nats://n.example", "NATS_PORT": "4300"}, "nats://n.example"),
        ({"NATS_URL": "nats://one:4222, tls://u:p@[::1]:4223/"}, "nats://one:4222,tls://u:p@[::1]:4223"),
        ({"NATS_URL": "off"}, None),
        ({"NATS_URL": "Off"}, None),
    ],
)
def test_the_broker_is_on_its_port_or_elsewhere_or_off(environ: dict[str, str], url: str | None) -> None:
    assert load_settings(environ).nats_url == url


@pytest.mark.parametrize("prefix", ["", "team1", "a-b_C", "1", "x" * 64])
def test_a_prefix_is_letters_digits_hyphens_and_underscores(prefix: str) -> None:
    assert load_settings({"NATS_PREFIX": prefix}).nats_prefix == prefix


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ORCHESTRATOR_PORT", "http"),
        ("SERVICE_A_PORT", "0"),
        ("SERVICE_C_PORT", "65536"),
        ("SERVICE_B_URL", "b:5002"),
        ("SAGA_LOG_URL", "postgres://u:hunter2@h/d"),
        ("SERVICE_A_DB_URL", "a.db"),
        ("NATS_PORT", "0"),
        ("NATS_URL", "localhost:4222"),
        ("NATS_URL", "http://u:hunter2@h:4222"),
        ("NATS_URL", "nats://one:4222,"),
        ("NATS_URL", "nats://one:4222,two:4222"),
        ("NATS_URL", "nats://u:hunter2@one two:4222"),
        ("NATS_URL", "nats://u:hunter2@"),
        ("NATS_URL", "nats://u:hunter2@h:port"),
        ("NATS_URL", "nats://u:hunter2@h:65536"),
        ("NATS_URL", "nats://u:hunter2@h:0"),
        ("NATS_URL", "nats://u:hunter2@h/path"),
        ("NATS_URL", "nats://[::1"),
        ("NATS_URL", "none"),
        ("NATS_PREFIX", "two words"),
        ("NATS_PREFIX", "team.one"),
        ("NATS_PREFIX", "team>"),
        ("NATS_PREFIX", "tëam"),
        ("NATS_PREFIX", "x" * 65),
        ("NATS_PREFIX", "saga"),
        ("NATS_PREFIX", "dead"),
        ("NATS_PREFIX", "_INBOX"),
        ("ENGINE", "temprl"),
        ("TEMPORAL_PORT", "0"),
        ("TEMPORAL_ADDRESS", "temporal.example"),
        ("TEMPORAL_ADDRESS", "http://temporal.example:7233"),
        ("TEMPORAL_ADDRESS", "temporal.example:0"),
        ("TEMPORAL_ADDRESS", ":7233"),
        ("TEMPORAL_TLS", "yes"),
        ("TEMPORAL_TLS_CERT", "/nowhere/cert.pem"),
        ("TEMPORAL_TLS_KEY", "/nowhere/key.pem"),
        ("TEMPORAL_TLS_CA", "/nowhere/ca.pem"),
        ("TEMPORAL_TLS_CA", "/"),
        ("TEMPORAL_TLS_CA", "/" + 300 * "x"),
        ("TEMPORAL_CODEC_KEY", "hunter2"),
        ("TEMPORAL_CODEC_KEY", "c2hvcnQ="),
        ("FAULTS", "yes"),
        ("FAULT_HOLD_SECONDS", "x"),
        ("LEASE_SECONDS", "0"),
        ("RECOVERY_INTERVAL", "-1"),
        ("STALL_BASE_SECONDS", "nan"),
        ("STALL_MAX_SECONDS", "0.5"),
        ("SAGA_TOKEN", "two words"),
        ("SAGA_PLAIN", "yes"),
    ],
)
def test_an_unusable_value_is_refused_by_the_variables_name(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable) as caught:
        load_settings({variable: value})
    assert caught.value.field == variable
    assert "hunter2" not in str(caught.value)


def test_secrets_are_not_printed() -> None:
    urls = {"SAGA_LOG_URL": "mysql+mysqlconnector://u:hunter3@h/d", "NATS_URL": "nats://u:hunter4@h"}
    temporal = {"TEMPORAL_API_KEY": "hunter5", "TEMPORAL_CODEC_KEY": "hunter6" + 35 * "A" + "A="}
    settings = load_settings({"SAGA_TOKEN": "hunter2", **urls, **temporal})
    assert settings.temporal.codec_key
    assert "hunter" not in repr(settings)
    assert str(settings.temporal.codec_key) not in repr(settings)


def test_temporal_is_where_make_up_starts_it_unless_it_is_elsewhere() -> None:
    settings = load_settings({"TEMPORAL_PORT": "7300", "HOST": "0.0.0.0"})
    assert (settings.engine, settings.temporal.address, settings.temporal.tls) == ("builtin", "127.0.0.1:7300", False)
    assert (settings.temporal.namespace, settings.temporal.task_queue) == ("default", "saga-stack")
    assert not settings.temporal_elsewhere
    settings = load_settings({"ENGINE": "Temporal", "TEMPORAL_ADDRESS": "acme.tmprl.cloud:7233"})
    assert (settings.engine, settings.temporal.address) == ("temporal", "acme.tmprl.cloud:7233")
    assert settings.temporal_elsewhere


def test_a_key_of_temporals_is_shown_to_nobody_without_tls(tmp_path: Path) -> None:
    assert load_settings({"TEMPORAL_API_KEY": "hunter2"}).temporal.tls
    with pytest.raises(SettingsError, match="TEMPORAL_TLS must be on") as caught:
        load_settings({"TEMPORAL_API_KEY": "hunter2", "TEMPORAL_TLS": "off"})
    assert "hunter2" not in str(caught.value)
    (tmp_path / "cert.pem").write_text("a certificate")
    with pytest.raises(SettingsError, match="TEMPORAL_TLS_KEY is missing"):
        load_settings({"TEMPORAL_TLS_CERT": str(tmp_path / "cert.pem")})
    both = {f"TEMPORAL_TLS_{name}": str(tmp_path / "cert.pem") for name in ("CERT", "KEY", "CA")}
    assert load_settings(both).temporal.tls


def test_without_the_extra_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_temporal()
    monkeypatch.setattr("saga.temporal.find_spec", lambda name: None)
    with pytest.raises(SettingsError, match="make setup ENGINE=temporal") as caught:
        require_temporal()
    assert caught.value.field == "ENGINE"
