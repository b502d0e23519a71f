"""Settings of any service: read as the outbox's own are, and undisturbed by what a cluster sets."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import SecretStr

from outbox.errors import SettingsError
from outbox.settings import Port, PostgresUrl, Seconds, ServiceSettings, Settings, Words
from tests.support.settings import every_settings, needed

NO_FILE = Path("/nonexistent/.env")
EVERY = every_settings()
PORTS = [
    (settings, f"{settings.prefix}{name}".upper())
    for settings in EVERY
    for name in settings.model_fields
    if name.endswith("port")
]


class Orders(ServiceSettings):
    """A service of somebody's."""

    prefix: ClassVar[str] = "ORDERS_"

    service_name: str = "orders"
    port: Port = 8000
    """Where it listens."""
    stock_service_host: str = "localhost"
    stock_service_port: Port = 8001
    database_url: PostgresUrl | None = None
    api_key: SecretStr = SecretStr("")
    timeout_seconds: Seconds = 5
    origins: Words = ()


def links(service: str) -> dict[str, str]:
    """Return what Kubernetes tells every container of a service with this name."""
    name, host = service.upper().replace("-", "_"), "10.96.0.7"
    return {
        f"{name}_SERVICE_HOST": host,
        f"{name}_SERVICE_PORT": "8080",
        f"{name}_SERVICE_PORT_HTTP": "8080",
        f"{name}_PORT": f"tcp://{host}:8080",
        f"{name}_PORT_8080_TCP": f"tcp://{host}:8080",
        f"{name}_PORT_8080_TCP_PROTO": "tcp",
        f"{name}_PORT_8080_TCP_PORT": "8080",
        f"{name}_PORT_8080_TCP_ADDR": host,
        f"{name}_PORT_53_UDP": f"udp://{host}:53",
        f"{name}_PORT_53_UDP_ADDR": host,
    }


def test_the_outbox_and_its_first_users_are_among_them() -> None:
    assert {each.prefix for each in EVERY} >= {"OUTBOX_", "ELS_", "RAS_", "GATEWAY_", "PAGE_"}
    assert len(PORTS) >= len(EVERY)


@pytest.mark.parametrize(("settings", "variable"), PORTS)
@pytest.mark.parametrize("address", ["tcp://10.96.0.7:8080", "udp://[fd00::7]:53"])
def test_a_service_starts_on_its_default_port_and_says_so(
    settings: type[ServiceSettings], variable: str, address: str
) -> None:
    good = needed(settings)
    reading = settings.read({**good, variable: address}, NO_FILE)
    assert reading.settings == settings.read(good, NO_FILE).settings
    (warning,) = reading.warnings
    default = settings.model_fields[variable.removeprefix(settings.prefix).lower()].default
    assert warning.startswith(f"{variable}={address} is a cluster's link to a service, not a port")
    assert f": {default} is in force" in warning
    assert variable not in reading.origins


@pytest.mark.parametrize("settings", EVERY)
@pytest.mark.parametrize("suffix", ["", "http", "kafka", "redis-eu", "service", "port"])
def test_links_are_no_settings_and_no_mistakes(settings: type[ServiceSettings], suffix: str) -> None:
    good = needed(settings)
    service = f"{settings.prefix.lower().replace('_', '-')}{suffix}".rstrip("-")
    reading = settings.read({**good, **links(service)}, NO_FILE)
    assert reading.settings == settings.read(good, NO_FILE).settings
    assert {warning.partition("=")[0] for warning in reading.warnings} <= {name for _, name in PORTS}


@pytest.mark.parametrize(("settings", "variable"), PORTS)
def test_a_port_that_was_chosen_counts_beside_the_links(
    settings: type[ServiceSettings], variable: str, tmp_path: Path
) -> None:
    name = variable.removeprefix(settings.prefix).lower()
    found = {**needed(settings), **links(variable.removesuffix("_PORT"))}
    chosen = settings.read({**found, variable: "9000"}, NO_FILE)
    assert getattr(chosen.settings, name) == 9000
    assert chosen.warnings == ()
    file = tmp_path / ".env"
    file.write_text(f"{variable}=9001\n")
    in_file = settings.read(found, file)
    assert getattr(in_file.settings, name) == 9001
    assert in_file.origins[variable] == ".env"
    assert ": 9001 is in force" in in_file.warnings[0]


def test_what_only_looks_like_a_link_is_a_mistake() -> None:
    warnings = Settings.read({"OUTBOX_SERVICE_PORT": "80", "OUTBOX_HTTPPORT": "80"}, NO_FILE).warnings
    assert [warning.partition(" ")[0] for warning in warnings] == ["OUTBOX_SERVICE_PORT", "OUTBOX_HTTPPORT"]


def test_a_setting_may_be_named_like_a_link() -> None:
    found = {"ORDERS_STOCK_SERVICE_HOST": "stock", "ORDERS_STOCK_SERVICE_PORT": "80"}
    settings = Orders.load(found, NO_FILE)
    assert (settings.stock_service_host, settings.stock_service_port) == ("stock", 80)


def test_links_are_no_options_of_a_sink() -> None:
    found = {"OUTBOX_SINKS": "mqtt=m:C", "OUTBOX_MQTT_TOPIC": "t", **links("outbox-mqtt")}
    reading = Settings.read(found, NO_FILE)
    assert reading.settings.sink_options("mqtt") == {"topic": "t"}
    assert reading.warnings == ()


@pytest.mark.parametrize("settings", EVERY)
def test_a_misspelt_variable_gets_a_guess(settings: type[ServiceSettings]) -> None:
    name = f"{settings.prefix}LOGLEVEL"
    reading = settings.read({**needed(settings), name: "debug", "OTHER_LOGLEVEL": "x"}, NO_FILE)
    assert reading.warnings == (f"{name} is not a setting; did you mean {settings.prefix}LOG_LEVEL?",)


@pytest.mark.parametrize("settings", EVERY)
def test_every_duration_may_have_a_unit(settings: type[ServiceSettings]) -> None:
    good = {**needed(settings), "OUTBOX_POLL_INTERVAL_SECONDS": "1m"}
    durations = [each.name for each in settings.variables({}) if each.name.endswith(("SECONDS", "RETENTION"))]
    for name in durations:
        listing = settings.read({**good, name: "1m"}, NO_FILE).listing()
        assert [each.value for each in listing if each.variable == name] == [60]


@pytest.mark.parametrize("settings", EVERY)
def test_every_setting_is_described_and_no_secret_shown(settings: type[ServiceSettings]) -> None:
    good = needed(settings)
    listing = list(settings.read(good, NO_FILE).listing())
    assert [each.variable for each in listing if not each.description] == []
    assert {each.variable for each in listing if each.origin == "environment"} == good.keys()
    assert "a key that" not in repr(listing)
    assert "a secret of" not in repr(listing)


def test_settings_of_a_service_of_ones_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / ".env"
    file.write_text("ORDERS_TIMEOUT_SECONDS=500ms\nOUTBOX_PUMPS=2\nORDERS_PORT=1\n")
    found = {"ORDERS_PORT": "8002", "ORDERS_ORIGINS": "a, b", "ORDERS_ORIGIN": "c", "ORDERS_API_KEY": "x://y"}
    with caplog.at_level(logging.WARNING):
        settings = Orders.load(found, file)
    assert settings == Orders(port=8002, timeout_seconds=0.5, origins=("a", "b"), api_key=SecretStr("x://y"))
    assert settings.timeout_seconds == 0.5
    assert caplog.messages == ["ORDERS_ORIGIN is not a setting; did you mean ORDERS_ORIGINS?"]
    listing = {each.variable: each for each in Orders.read(found, file).listing()}
    assert listing["ORDERS_PORT"] == ("ORDERS_PORT", 8002, "environment", "Where it listens.")
    assert listing["ORDERS_TIMEOUT_SECONDS"][1:3] == (0.5, ".env")
    assert listing["ORDERS_ORIGINS"].value == "a, b"
    assert listing["ORDERS_API_KEY"].value == "***"
    assert next(iter(listing)) == "ORDERS_SERVICE_NAME"


def test_wrong_values_of_a_service_of_ones_own() -> None:
    found = {"ORDERS_PORT": "high", "ORDERS_DATABASE_URL": "mysql://u:secret@h/d", "ORDERS_LOG_LEVEL": "loud"}
    with pytest.raises(SettingsError) as error:
        Orders.load(found, NO_FILE)
    assert {line.partition(": ")[0] for line in str(error.value).splitlines()} == {
        "ORDERS_PORT=high",
        "ORDERS_DATABASE_URL=mysql://u:***@h/d",
        "ORDERS_LOG_LEVEL=loud",
    }
