from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outbox.errors import SettingsError
from outbox.settings import KafkaSettings, RedisSettings, Settings, SinkSettings, load, masked, read

NO_FILE = Path("/nonexistent/.env")


def loaded(**variables: str) -> Settings:
    return load({f"OUTBOX_{name}": value for name, value in variables.items()}, NO_FILE)


def test_nothing_set_is_the_defaults() -> None:
    assert loaded() == Settings()


def test_code_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_BATCH_SIZE", "7")
    monkeypatch.setenv("OUTBOX_KAFKA_CLIENT_ID", "mine")
    assert Settings().batch_size == 2_000
    assert KafkaSettings().client_id == "outbox-relay"
    assert load(env_file=NO_FILE).batch_size == 7


def test_environment_wins_over_the_file_and_empty_is_unset(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("OUTBOX_PUMPS=2\nOUTBOX_BATCH_SIZE=10\nOUTBOX_REDIS_URL=redis://file\nOTHER=1\n")
    reading = read({"OUTBOX_BATCH_SIZE": "20", "OUTBOX_REDIS_URL": ""}, file)
    assert (reading.settings.pumps, reading.settings.batch_size) == (2, 20)
    assert reading.settings.sink_names == ("redis",)
    assert reading.origins == {
        "OUTBOX_PUMPS": ".env",
        "OUTBOX_BATCH_SIZE": "environment",
        "OUTBOX_REDIS_URL": ".env",
    }


def test_sections_and_sinks() -> None:
    settings = loaded(
        DATABASE_URL="postgresql://db/x",
        KAFKA_BOOTSTRAP_SERVERS="kafka:9092",
        KAFKA_CLIENT_ID="els",
        REDIS_URL="redis://redis",
        REDIS_STREAM="true",
        MAX_RETRIES="3",
        REDIS_MAX_RETRIES="4",
        REDIS_ON_PARK="hold",
        SINKS="webhook=my.module:Sink",
        WEBHOOK_SEND_TIMEOUT_SECONDS="2",
        WEBHOOK_URL="https://example.org",
    )
    assert settings.sink_names == ("kafka", "redis", "webhook")
    assert settings.known_sinks == ("kafka", "redis", "webhook")
    assert settings.kafka == KafkaSettings(bootstrap_servers="kafka:9092", client_id="els")
    assert settings.redis.stream is True
    assert settings.sink("kafka") == SinkSettings(max_retries=3)
    assert settings.sink("redis") == SinkSettings(max_retries=4, on_park="hold")
    assert settings.sink("webhook") == SinkSettings(max_retries=3, send_timeout_seconds=2)
    assert settings.sink_options("webhook") == {"url": "https://example.org", "send_timeout_seconds": "2"}


def test_a_longer_sink_name_keeps_its_variables() -> None:
    settings = loaded(SINKS="eu=m:A,eu_west=m:B", EU_WEST_URL="west", EU_URL="eu")
    assert settings.sink_options("eu") == {"url": "eu"}
    assert settings.sink_options("eu_west") == {"url": "west"}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("30s", 30),
        ("15 m", 900),
        ("12h", 43_200),
        ("7d", 604_800),
        ("2w", 1_209_600),
        ("P7D", 604_800),
        ("PT1H30M", 5_400),
        ("P1DT0.5S", 86_400.5),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert loaded(RETENTION=text).retention == seconds


def test_a_duration_in_code_may_be_a_timedelta() -> None:
    assert Settings.model_validate({"retention": timedelta(days=1)}).retention == 86_400


@given(st.floats(min_value=0.001, max_value=1e9))
def test_a_number_of_seconds_reads_as_itself(seconds: float) -> None:
    assert loaded(RETENTION=f"{seconds:f}").retention == pytest.approx(float(f"{seconds:f}"))


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"PUMPS": "x"}, "OUTBOX_PUMPS=x: input should be a valid integer"),
        ({"PUMPS": "65"}, "OUTBOX_PUMPS=65: input should be less than or equal to 64"),
        (
            {"LOG_LEVEL": "loud"},
            "OUTBOX_LOG_LEVEL=loud: input should be 'debug', 'info', 'warning' or 'error'",
        ),
        ({"RETENTION": "soon"}, "OUTBOX_RETENTION=soon: must be seconds, or a number with a unit"),
        ({"RETENTION": "0"}, "OUTBOX_RETENTION=0: input should be greater than 0"),
        ({"REDIS_MAX_RETRIES": "0"}, "OUTBOX_REDIS_MAX_RETRIES=0: input should be greater than"),
        ({"MAX_RETRIES": "0"}, "OUTBOX_MAX_RETRIES=0: input should be greater than"),
        ({"KAFKA_MAX_BATCH_BYTES": "1"}, "OUTBOX_KAFKA_MAX_BATCH_BYTES=1: input should be greater than"),
        ({"DATABASE_URL": "mysql://u:geheim@h/d"}, "OUTBOX_DATABASE_URL=mysql://u:***@h/d: must look like"),
        ({"REDIS_URL": "geheim"}, "OUTBOX_REDIS_URL=***: must start with redis://"),
        ({"SINKS": "Mine=m:C"}, "OUTBOX_SINKS=Mine=m:C: 'Mine=m:C' is not name=module:Class"),
        ({"SINKS": "kafka=m:C"}, "OUTBOX_KAFKA_… are settings already"),
        ({"SINKS": "http=m:C"}, "OUTBOX_HTTP_… are settings already"),
        ({"KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}, "OUTBOX_KAFKA_SASL_USERNAME"),
        ({"REDIS_SSL_CERT_FILE": "/x"}, "OUTBOX_REDIS_SSL_KEY_FILE"),
        ({"POLL_SHORTEST_SECONDS": "9"}, "OUTBOX_POLL_INTERVAL_SECONDS"),
        ({"LEASE_SECONDS": "5", "REDIS_URL": "redis://h"}, "OUTBOX_LEASE_SECONDS=5 must be at least"),
    ],
)
def test_a_wrong_value_names_itself_and_what_is_allowed(variables: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as error:
        loaded(**variables)
    assert says in str(error.value)
    assert "geheim" not in str(error.value)
    assert "\n" not in str(error.value)


def test_each_wrong_value_has_its_line() -> None:
    with pytest.raises(SettingsError, match=r"(?s)OUTBOX_PUMPS=a.*\n.*OUTBOX_BATCH_SIZE=b|BATCH.*\n.*PUMPS"):
        loaded(PUMPS="a", BATCH_SIZE="b")


def test_unknown_variables_get_the_nearest_name() -> None:
    found = read({"OUTBOX_BATCHSIZE": "1", "OUTBOX_QQQ": "1", "OUTBOX_KAFKA_URL": "x"}, NO_FILE).warnings
    assert "OUTBOX_BATCHSIZE is not a setting; did you mean OUTBOX_BATCH_SIZE?" in found
    assert "OUTBOX_QQQ is not a setting" in found
    assert len(found) == 3


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().pumps = 3  # type: ignore[misc]  # as who has no checker does


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg", "postgresql+psycopg"])
def test_either_form_of_the_database_address(scheme: str) -> None:
    settings = loaded(DATABASE_URL=f"{scheme}://u:p%40@h:5433/d?sslmode=require")
    assert settings.asyncpg_dsn == "postgresql://u:p%40@h:5433/d?sslmode=require"
    assert settings.sqlalchemy_url == "postgresql+asyncpg://u:p%40@h:5433/d?ssl=require"


def test_a_missing_database_address_says_so() -> None:
    with pytest.raises(SettingsError, match="OUTBOX_DATABASE_URL is not set"):
        _ = Settings().asyncpg_dsn


def test_the_listing_has_everything_in_force_and_no_secret() -> None:
    reading = read(
        {
            "OUTBOX_DATABASE_URL": "postgresql://u:geheim%2F1@h/d?password=geheim",
            "OUTBOX_KAFKA_SASL_PASSWORD": "geheim",
            "OUTBOX_REDIS_URL": "redis://:geheim@h",
            "OUTBOX_REDIS_MAX_RETRIES": "2",
            "OUTBOX_SINKS": "hook=m:C",
            "OUTBOX_HOOK_TOKEN": "geheim",
            "OUTBOX_HOOK_URL": "https://u:geheim@h",
        },
        NO_FILE,
    )
    listing = {each.variable: each for each in reading.listing()}
    assert "geheim" not in repr(listing) + repr(reading.settings)
    assert listing["OUTBOX_DATABASE_URL"].value == "postgresql://u:***@h/d?password=***"
    assert listing["OUTBOX_REDIS_MAX_RETRIES"][1:3] == (2, "environment")
    assert listing["OUTBOX_MAX_RETRIES"][1:3] == (10, "default")
    assert listing["OUTBOX_HOOK_URL"].value == "https://u:***@h"
    assert "OUTBOX_KAFKA_MAX_RETRIES" not in listing


def test_every_setting_is_described() -> None:
    assert [each.variable for each in read({}, NO_FILE).listing() if not each.description] == []


def test_masking_leaves_text_without_passwords_alone() -> None:
    assert masked("see https://example.org/a:b and redis://h:6379") == (
        "see https://example.org/a:b and redis://h:6379"
    )
    assert masked("redis://:pw@h") == "redis://:***@h"


def test_code_may_build_everything() -> None:
    settings = Settings(
        redis=RedisSettings.model_validate({"url": "redis://h"}),
        every_sink=SinkSettings(max_retries=3),
        own={"redis": SinkSettings(on_park="hold")},
    )
    assert settings.sink("redis") == SinkSettings(max_retries=3, on_park="hold")
    with pytest.raises(ValidationError):
        Settings.model_validate({"pump": 3})
