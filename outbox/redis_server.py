"""How Redis is reached, whoever asks: the server that a URL names, or the master that its Sentinels name.

`redis+sentinel://[user:password@]sentinel:26379,sentinel:26379/master[/db]`, or `rediss+sentinel://` for TLS,
names Sentinels and what they call the master. Each new connection asks all of them where that is now, and
believes the one with the newest configuration.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import unquote, urlsplit

from redis.asyncio import Connection, ConnectionPool, SSLConnection
from redis.asyncio.connection import parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from outbox.errors import describe

_ASK_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_BLIND_SECONDS = 10.0
"""No Sentinel answered: that took its time, and is not tried again soon."""
_SENTINEL_PORT = 26_379
_SENTINEL_SCHEMES = {"redis+sentinel": "redis", "rediss+sentinel": "rediss"}

P = TypeVar("P", bound=ConnectionPool)

NO_CLUSTER = (
    "it is a Redis Cluster, in which a channel and its log lie in two slots: "
    "name a single server, or Sentinels (redis+sentinel://)"
)
"""Why a Cluster is refused."""


class _TlsConnection(SSLConnection):
    """A connection that reads its files whenever it connects: a certificate may have been renewed."""

    def _connection_arguments(self) -> Mapping[str, Any]:
        self.ssl_context.context = None
        return super()._connection_arguments()


class Master(NamedTuple):
    """What a Sentinel says of a master."""

    epoch: int
    """The number of the configuration; each failover has a higher one."""
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The Sentinels of a master."""

    hosts: Sequence[tuple[str, int]]
    master: str
    """What they call it."""
    connection: type[Connection]
    options: Mapping[str, Any]
    """How they are connected to."""

    async def find(self) -> Master:
        """Returns where the master is. Raises redis-py's ConnectionError if no Sentinel says so."""
        answers = await asyncio.gather(*(self._ask(host, port) for host, port in self.hosts))
        if found := [answer for answer in answers if isinstance(answer, Master)]:
            return max(found)
        raise RedisConnectionError(f"no Sentinel tells where {self.master} is: {answers[0]}")

    async def _ask(self, host: str, port: int) -> Master | str:
        connection = self.connection(host=host, port=port, **self.options)
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                await connection.connect()
                await connection.send_command("SENTINEL", "MASTER", self.master)
                words = [word.decode() for word in await connection.read_response()]
            said = dict(zip(words[::2], words[1::2], strict=True))
            return Master(int(said["config-epoch"]), said["ip"], int(said["port"]))
        except (RedisError, OSError, TimeoutError) as error:
            return f"{host}:{port}: {describe(error)}"
        finally:
            await connection.disconnect(nowait=True)


class Whereabouts:
    """Where the master is, asked for now and then: the one before may still answer."""

    def __init__(self, sentinels: Sentinels) -> None:
        self._sentinels = sentinels
        self._known: Master | None = None
        self._next = 0.0

    async def have_changed(self, connection: Connection) -> bool:
        """Returns True if a connection leads to a master of the past."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOOK_SECONDS
            try:
                self._known = await self._sentinels.find()
            except RedisError:
                self._next = time.monotonic() + _BLIND_SECONDS
        return self._known is not None and self._known[1:] != (connection.host, connection.port)


class _ToMaster(Connection):
    """A connection to wherever the master is when it connects."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        self._sentinels = sentinels
        super().__init__(**options)

    async def _connect(self) -> None:
        _, self.host, self.port = await self._sentinels.find()
        await super()._connect()  # type: ignore[no-untyped-call]  # half of redis has no types


class _TlsToMaster(_ToMaster, _TlsConnection):
    pass


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A Redis as a URL names it."""

    options: Mapping[str, Any]
    """redis-py's, for each connection."""
    sentinels: Sentinels | None

    @classmethod
    def of(cls, url: str, **options: Any) -> Self:
        """Reads a URL; what stands in it wins over `options`. Raises ValueError where it cannot be read."""
        scheme = urlsplit(url).scheme
        if scheme in _SENTINEL_SCHEMES:
            return cls._by_sentinels(url, options)
        found = {**options, **parse_url(url)}
        if found.get("connection_class") is SSLConnection:
            found["connection_class"] = _TlsConnection
        return cls(found, None)

    @classmethod
    def _by_sentinels(cls, url: str, options: Mapping[str, Any]) -> Self:
        scheme, netloc, path, query, _ = urlsplit(url)
        login, at, hosts = netloc.rpartition("@")
        master, _, db = path.strip("/").partition("/")
        if not master or not hosts:
            raise ValueError("with Sentinels a URL is redis+sentinel://host:26379,host:26379/master")
        found: dict[str, Any] = {
            **options,
            **parse_url(f"{_SENTINEL_SCHEMES[scheme]}://{login}{at}master/{db or 0}?{query}"),
        }
        tls = found.pop("connection_class", None) is SSLConnection
        own = {name: found.pop(f"sentinel_{name}", None) for name in ("username", "password")}
        shared = {name: value for name, value in found.items() if name.startswith(("ssl_", "socket_"))}
        sentinels = Sentinels(
            [_host_and_port(host) for host in hosts.split(",")],
            unquote(master),
            _TlsConnection if tls else Connection,
            {"protocol": 2, **shared, **own},
        )
        kind = _TlsToMaster if tls else _ToMaster
        return cls({**found, "connection_class": kind, "sentinels": sentinels}, sentinels)

    def pool(self, kind: type[P] = ConnectionPool, **options: Any) -> P:  # type: ignore[assignment]  # the default is one of them
        """Makes a pool of connections to it."""
        return kind(**{**options, **self.options})


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError(f"{text!r} is no host:port of a Sentinel")
    return parts.hostname, parts.port or _SENTINEL_PORT


NO_MASTER = "it is a replica: what is published there reaches nobody else"
"""Why a replica is refused."""


def unfit(hello: Any) -> str | None:
    """Returns why a server that answers HELLO so cannot be used; None if it can, or is too old for HELLO."""
    words = list(hello) if isinstance(hello, list) else []
    said = dict(zip(words[::2], words[1::2], strict=False))
    if said.get(b"mode") == b"cluster":
        return NO_CLUSTER
    return None if said.get(b"role", b"master") == b"master" else NO_MASTER
