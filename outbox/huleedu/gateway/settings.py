"""The gateway's settings: `GATEWAY_REDIS_URL`, `GATEWAY_JWT_SECRET` and so on.

Durations are seconds, or a number with a unit (`500ms`, `30s`, `15m`, `12h`).
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field, SecretStr, field_validator

from outbox.huleedu.gateway.addresses import networks_of
from outbox.huleedu.token_settings import TokenSettings
from outbox.redis_server import RedisServer
from outbox.settings import Delay, Port, Seconds, Words


class GatewaySettings(TokenSettings):
    """The settings of the WebSocket gateway."""

    prefix: ClassVar[str] = "GATEWAY_"

    service_name: str = "websocket-gateway"
    """`service.name` in the logs."""

    host: str = "127.0.0.1"
    """The address that `/ws`, `/livez`, `/readyz` and `/metrics` are served on."""
    port: Port = 8080
    """The port of `/ws`, `/livez`, `/readyz` and `/metrics`; 0 takes a free one."""
    allowed_origins: Words = ()
    """Origins whose pages may connect, separated by commas, as `https://app.example.com`; `*` is
    all. Programs that are no browsers send no Origin and may connect in any case."""

    redis_url: SecretStr
    """`redis://[user:password@]host:port/db`, or `rediss://` for TLS; with Sentinels
    `redis+sentinel://[user:password@]host:26379,host:26379/master/db`, or `rediss+sentinel://`. redis-py's
    options may follow, as in `?ssl_ca_certs=/etc/ca.pem`, and `sentinel_username` and `sentinel_password`."""
    redis_timeout_seconds: Seconds = 5.0
    """Redis counts as gone when it does not answer for this long."""
    redis_ping_seconds: Seconds = 5.0
    """The time between two looks whether what is published still arrives."""
    redis_clock_leeway_seconds: Annotated[Delay, Field(le=300)] = 10.0
    """How far the clocks of Redis servers may differ: for so long after a failover logs are not believed, and
    who resumes is told to load the state."""
    redis_grace_seconds: Seconds = 3.0
    """When Redis stays away for longer, sockets are closed with 1013, so that browsers fall back."""

    connections: int = Field(10_000, ge=1)
    """Open sockets of this process, at the most; one more is closed with 1013. The process raises its limit
    on open files as far as it may; where that is too low it takes fewer, and says so when it starts."""
    connections_per_user: int = Field(5, ge=1)
    """Open sockets of one user in this process, at the most. One more makes those give way that do not answer
    a ping within 2 s, as after a laptop's sleep; if all answer it is closed with 4429."""
    unauthenticated: int = Field(2_000, ge=1)
    """Connections that nobody has been let in on yet, at the most, counted from accept; one more takes the
    place of the oldest on which no request came."""
    unauthenticated_per_address: int = Field(500, ge=1)
    """The same of one client's address."""
    trusted_proxies: Words = ()
    """Addresses and networks of proxies before the gateway, separated by commas, as `10.0.0.0/8`: what these
    write into `X-Forwarded-For` is the client's address, in logs and limits."""
    messages_per_second: Annotated[float, Field(gt=0)] = 100.0
    """What one user may be sent in the long run."""
    messages_burst: int = Field(200, ge=1)
    """What one user may be sent at once."""
    resync_seconds: Seconds = 1.0
    """Above the rate, everything within this time is folded into one `resync_required`. After an
    outage of Redis these are spread over twice the time."""
    queue_messages: int = Field(256, ge=1)
    """Messages that wait for one socket; a reader that lags by more is closed with 1013."""
    frame_bytes: int = Field(4_096, ge=126)
    """The largest message a client may send; a larger one closes the socket with 1009."""
    frames_per_second: Annotated[float, Field(gt=0)] = 10.0
    """Frames, pings among them, that a client may send in the long run; more close it with 1008."""
    frames_burst: int = Field(50, ge=1)
    """Frames that a client may send at once."""

    open_timeout_seconds: Seconds = 10.0
    """How long the opening handshake may take."""
    ping_interval_seconds: Seconds = 20.0
    """The time between two pings to a client."""
    ping_timeout_seconds: Seconds = 20.0
    """A client that does not answer a ping in time is closed with 4408."""
    close_timeout_seconds: Seconds = 5.0
    """How long a client may take to answer a close, and a slow one to read what waits before it."""
    drain_seconds: Delay = 5.0
    """After SIGTERM sockets are closed with 1001 at random times within this long; what is still there two
    seconds later is cut off."""

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr) -> SecretStr:
        RedisServer.of(value.get_secret_value())
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        networks_of(value)
        return value
