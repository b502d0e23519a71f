"""What can be set: plain frozen models with every default.

In code, `Settings(…)` is what it is given and defaults, whatever the environment says; a wrong
value raises pydantic's `ValidationError`.

`OUTBOX_BATCH_SIZE`, `OUTBOX_KAFKA_CLIENT_ID`; what all sinks have may be set for all
(`OUTBOX_MAX_RETRIES`) or for one (`OUTBOX_REDIS_MAX_RETRIES`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo

from outbox.errors import SettingsError
from outbox.settings.address import Address
from outbox.settings.environment import Section, ServiceSettings, Variable, variables_of
from outbox.settings.sinks import KafkaSettings, RedisSettings, SinkSettings
from outbox.settings.values import Identifier, Port, PostgresUrl, Seconds


class Settings(ServiceSettings):
    """The settings of the outbox."""

    prefix: ClassVar[str] = "OUTBOX_"

    service_name: str = "outbox-relay"
    """`service.name` in the logs."""

    database_url: PostgresUrl | None = None
    """`postgresql://user:password@host:port/database`; SQLAlchemy's `postgresql+asyncpg://` works too."""
    database_schema: Identifier | None = None
    """The schema of the outbox's tables; unset means the connection's first schema (`public`)."""
    database_pooler: Literal["none", "transaction"] = "none"
    """`transaction` behind PgBouncer in transaction mode."""
    sinks: str = ""
    """More sinks: `name=module:Class`, several separated by commas."""

    poll_interval_seconds: Seconds = 0.1
    """The longest wait between two looks of a pump while idle, and between two looks for all of them at what
    was written, unless a writer wakes the relay."""
    poll_shortest_seconds: Seconds = 0.001
    """The shortest wait, right after something was found."""
    batch_size: int = Field(2_000, ge=1, le=50_000)
    """Rows a pump fetches at once, at the most."""
    batch_bytes: int = Field(4_000_000, ge=1_000)
    """Payload bytes a pump fetches at once, at the most (but always one row)."""
    pumps: int = Field(4, ge=1, le=64)
    """Concurrent pumps per sink in this relay."""
    lease_seconds: Annotated[Seconds, Field(ge=1)] = 20.0
    """A dead relay's lanes are free after this time."""
    heartbeat_seconds: Seconds = 2.0
    """How often a relay renews its leases and looks for its share of the lanes."""
    shutdown_grace_seconds: Seconds = 25.0
    """From SIGTERM to exit, at the most."""
    retention: Seconds = 7 * 86_400.0
    """How long delivered rows are kept before they are pruned: seconds, or `7d`, `12h`, `P7D`."""
    prune_interval_seconds: Seconds = 60.0
    """The time between two rounds of pruning."""

    act_hook: str = ""
    """`module:function` that hears of each act of an operator: a `Recorded` of `outbox.operate`."""

    http_host: str = "127.0.0.1"
    """The address of `/livez`, `/readyz` and `/metrics`; `0.0.0.0` lets others reach them, a kubelet say."""
    http_port: Port = 8081
    """The port of `/livez`, `/readyz` and `/metrics`; 0 takes a free one, told by `http.listening`."""
    stall_after_seconds: Seconds = 60.0
    """Not ready when nothing came of all that was tried for this long, with a sink that is up."""

    every_sink: SinkSettings = Field(default_factory=SinkSettings)
    """What sinks have where they have nothing of their own."""
    own: Mapping[str, SinkSettings] = Field(default_factory=dict)
    """What a sink has of its own, by its name; only what is set in it counts."""
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    redis: RedisSettings = Field(default_factory=RedisSettings)
    options: Mapping[str, Mapping[str, str]] = Field(default_factory=dict, repr=False)
    """The options of each sink that `sinks` brings."""

    @classmethod
    def variables(cls, found: Mapping[str, str]) -> Iterator[Variable]:
        """Gives every variable that may be set; `OUTBOX_SINKS` among those that are brings its sinks' own."""
        sinks = _names_in(found.get(f"{cls.prefix}SINKS", ""))
        yield from (each for each in super().variables(found) if each.place[0] not in _COMPOUND)
        yield from variables_of(SinkSettings, cls.prefix, ("every_sink",))
        for name, section in _SECTIONS.items():
            yield from variables_of(section, f"{cls.prefix}{name}_", (name,))
        for name in (*_SECTIONS, *sinks):
            yield from variables_of(SinkSettings, f"{cls.prefix}{name}_", ("own", name), always=False)
        for variable in found:
            option = variable.removeprefix(cls.prefix).lower()
            if sink := next((sink for sink in sinks if option.startswith(f"{sink}_")), None):
                yield _option(variable, sink, option.removeprefix(f"{sink}_"))

    @field_validator("sinks")
    @classmethod
    def _are_names_and_classes(cls, value: str) -> str:
        for item in filter(None, map(str.strip, value.split(","))):
            name, _, path = item.partition("=")
            module, _, attribute = path.partition(":")
            if not (re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) and module and attribute):
                raise ValueError(f"{item!r} is not name=module:Class with a lower-case name")
            if any(f"{field}_".startswith(f"{name}_") for field in cls.model_fields):
                raise ValueError(f"{name!r} is taken: OUTBOX_{name.upper()}_… are settings already")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.poll_shortest_seconds > self.poll_interval_seconds:
            raise ValueError(
                "OUTBOX_POLL_SHORTEST_SECONDS must not be more than OUTBOX_POLL_INTERVAL_SECONDS"
            )
        for name in self.sink_names:
            send = self.sink(name).send_timeout_seconds
            if self.lease_seconds < send + 2 * self.heartbeat_seconds:
                raise ValueError(
                    f"OUTBOX_LEASE_SECONDS={self.lease_seconds:g} must be at least the send timeout of "
                    f"{name} ({send:g}) plus two heartbeats ({2 * self.heartbeat_seconds:g}), or a relay "
                    "could still be sending when another owns its lanes"
                )
        return self

    @property
    def sqlalchemy_url(self) -> str:
        """The database's URL for SQLAlchemy's asyncpg dialect; holds the password.

        It carries neither several hosts nor most of libpq's options: `outbox.create_engine` does.
        """
        return "postgresql+asyncpg://" + re.sub(r"(?<=[?&])sslmode=", "ssl=", self._after_scheme)

    @property
    def asyncpg_dsn(self) -> str:
        """The database's URL for psql, psycopg, or plain asyncpg; holds the password."""
        mode = re.sub(r"(?<=[?&])ssl=true(?=&|$)", "sslmode=require", self._after_scheme)
        return "postgresql://" + re.sub(r"(?<=[?&])ssl=", "sslmode=", mode)

    @property
    def address(self) -> Address:
        """The database's address, with what a service file and libpq's variables say now."""
        try:
            return Address.of(self.asyncpg_dsn)
        except ValueError as error:
            raise SettingsError(f"OUTBOX_DATABASE_URL: {error}") from None

    @property
    def _after_scheme(self) -> str:
        if self.database_url is None:
            raise SettingsError(
                "OUTBOX_DATABASE_URL is not set; example: postgresql://user:password@localhost:5432/database"
            )
        return self.database_url.get_secret_value().partition("://")[2]

    @property
    def extra_sinks(self) -> dict[str, str]:
        """`OUTBOX_SINKS` as name → `module:Class`."""
        items = (item.partition("=") for item in map(str.strip, self.sinks.split(",")) if item)
        return {name: path for name, _, path in items}

    @property
    def sink_names(self) -> tuple[str, ...]:
        """The names of the sinks that this relay serves."""
        built_in = (("kafka", self.kafka.bootstrap_servers), ("redis", self.redis.url))
        return tuple(name for name, there in built_in if there) + tuple(self.extra_sinks)

    @property
    def known_sinks(self) -> tuple[str, ...]:
        """The names of the sinks that a writer may name, whether or not it could reach them itself."""
        return ("kafka", "redis", *self.extra_sinks)

    def sink(self, name: str) -> SinkSettings:
        """Returns the policy and limits of one sink: its own where set, else those for all."""
        own = self.own.get(name, SinkSettings())
        return self.every_sink.model_copy(update={key: getattr(own, key) for key in own.model_fields_set})

    def sink_options(self, name: str) -> Mapping[str, str]:
        """Returns what `OUTBOX_<NAME>_…` holds, for a sink that `OUTBOX_SINKS` brought."""
        return self.options.get(name, {})


_SECTIONS: Mapping[str, type[Section]] = {"kafka": KafkaSettings, "redis": RedisSettings}
_COMPOUND = ("every_sink", "own", "options", *_SECTIONS)
_SECRET_WORDS = ("password", "secret", "token", "key", "credential")


def _names_in(sinks: str) -> list[str]:
    """Returns the names in OUTBOX_SINKS, longest first: `eu_west` has its own before `eu` claims them."""
    names = {item.partition("=")[0].strip() for item in sinks.split(",") if "=" in item}
    return sorted(names, key=len, reverse=True)


def _option(variable: str, sink: str, option: str) -> Variable:
    kind = SecretStr if any(word in option for word in _SECRET_WORDS) else str
    field = FieldInfo(annotation=kind, description=f"For {sink}.")
    return Variable(variable, ("options", sink, option), field, Settings)


load = Settings.load
read = Settings.read


@cache
def loaded() -> Settings:
    """Returns what `load()` gave when it was first asked for: what writers and consumers go by."""
    return load()
