"""Settings that cannot work are refused, by the name of their variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from outbox import SettingsError
from outbox.huleedu.els.service import Els
from outbox.huleedu.els.settings import ElsSettings
from outbox.huleedu.ras import RasSettings

GOOD = {
    "ELS_DATABASE_URL": "postgresql+asyncpg://els:secret@localhost/huleedu?ssl=require",
    "ELS_KAFKA_BOOTSTRAP_SERVERS": "localhost:9092",
}


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_what_is_needed_is_enough_and_secrets_are_not_shown() -> None:
    settings = ElsSettings.load({**GOOD, "ELS_INBOX_RETENTION": "30d", "ELS_KAFKA_SASL_PASSWORD": "secret"})
    assert settings.inbox_retention == 30 * 86_400
    assert settings.notify_within_seconds == 60
    assert "secret" not in repr(settings)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"ELS_DATABASE_URL": "mysql://x"}, "ELS_DATABASE_URL=mysql://x: must look like postgresql://"),
        ({"ELS_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "needs ELS_KAFKA_SASL_USERNAME"),
        (
            {"ELS_KAFKA_SSL_CERT_FILE": "c.pem"},
            "ELS_KAFKA_SSL_CERT_FILE and ELS_KAFKA_SSL_KEY",
        ),
        ({"ELS_PORT": "70000"}, "ELS_PORT=70000: "),
        ({"ELS_KAFKA_BOOTSTRAP_SERVERS": ""}, "ELS_KAFKA_BOOTSTRAP_SERVERS: field required"),
    ],
)
def test_a_wrong_one_is_named(changed: dict[str, str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        ElsSettings.load({**GOOD, **changed})


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"RAS_INTERNAL_API_KEY": "short"}, r"RAS_INTERNAL_API_KEY=\*\*\*: must be at least 16"),
        ({"RAS_ALLOWED_SERVICE_IDS": " , "}, "RAS_ALLOWED_SERVICE_IDS= , : "),
    ],
)
def test_ras_lets_nobody_in_by_mistake(changed: dict[str, str], reason: str) -> None:
    good = {
        "RAS_DATABASE_URL": GOOD["ELS_DATABASE_URL"],
        "RAS_KAFKA_BOOTSTRAP_SERVERS": "localhost:9092",
        "RAS_INTERNAL_API_KEY": "a key that only services know",
        "RAS_ALLOWED_SERVICE_IDS": "a, b",
    }
    assert RasSettings.load(good).allowed_service_ids == ("a", "b")
    with pytest.raises(SettingsError, match=reason):
        RasSettings.load({**good, **changed})


async def test_authorities_that_are_not_there_are_told_at_once() -> None:
    settings = ElsSettings.load(
        {**GOOD, "ELS_KAFKA_SECURITY_PROTOCOL": "SSL", "ELS_KAFKA_SSL_CA_FILE": "/nowhere/ca.pem"}
    )
    with pytest.raises(SettingsError, match=r"ELS_KAFKA_SSL_CA_FILE=/nowhere/ca\.pem: FileNotFoundError"):
        Els(settings)
