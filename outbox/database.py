"""How the database is reached: every part of this package, and who writes messages, reads its address alike.

The relay, the command line and migrations have settings of their own for their sessions, since what a role or
a database has set is meant for services. An engine of `outbox.create_engine` leaves those in force.
"""

from __future__ import annotations

import random
import re
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import asyncpg
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from outbox.settings import Address, Host, Settings

_CONNECT_SECONDS = 10.0
"""For all hosts of an address together; its own `connect_timeout` is for each."""

_OWN = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "standard_conforming_strings": "on",
    # Where times pass through text, none may come back as another.
    "datestyle": "ISO",
    "work_mem": "16MB",
    # Rows that a policy hides are an error, not a table that looks empty.
    "row_security": "off",
}
_UNLESS_SAID = ("statement_timeout", "lock_timeout")
"""Those of our own that count only where the address does not set them in its `options`."""
_TRANSACTION_TIMEOUT_SINCE = 17
_ROLLBACK_SECONDS = 1.0

# What SQLAlchemy must know where a statement that was prepared is not there any more in the next transaction:
# without a name it is prepared anew each time, and nothing of it stays in a connection that others use next.
_UNPREPARED = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}


@dataclass(frozen=True, slots=True)
class Session:
    """What a connection is for."""

    name: str | None = None
    """Its application_name, unless the address has one."""
    pooled: bool = False
    """Whether a pooler in transaction mode stands before PostgreSQL."""
    command_timeout: float | None = None
    """Seconds until a statement is given up."""
    own: bool = False
    """Whether to put aside what a role or a database has set and our statements do not bear."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Further settings of the server, whatever a role, a database or the address says."""


def engine_of(settings: Settings, session: Session, **options: Any) -> AsyncEngine:
    """Makes an engine whose connections are for this session."""

    async def dial_now() -> asyncpg.Connection:
        return await dial(settings.address, session)

    def creator() -> Any:
        adapted: Any = engine.sync_engine.dialect.dbapi
        return adapted.connect(async_creator_fn=dial_now, **_UNPREPARED if session.pooled else {})

    engine = create_async_engine("postgresql+asyncpg://", creator=creator, **options)
    return engine


async def dial(address: Address, session: Session) -> asyncpg.Connection:
    """Connects to the first host that answers and is what the address asks for, each within its time."""
    hosts = list(address.hosts)
    if address.options.get("load_balance_hosts") == "random":
        random.shuffle(hosts)
    wanted = address.options.get("target_session_attrs", "any")
    failed: dict[Host, Exception] = {}
    for target in ("standby", "any") if wanted == "prefer-standby" else (wanted,):
        for host in hosts:
            try:
                return await _connect(address, host, target, session)
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched) as error:
                failed[host] = error
    errors = list(failed.values())
    if len(errors) == 1 and isinstance(errors[0], (OSError, asyncpg.PostgresError)):
        raise errors[0]
    raise OSError("; ".join(f"{host.name}:{host.port}: {error}" for host, error in failed.items()))


async def _connect(address: Address, host: Host, target: str, session: Session) -> asyncpg.Connection:
    seconds = address.number("connect_timeout", 0)
    timeout = seconds if seconds > 0 else _CONNECT_SECONDS / len(address.hosts)
    local = host.name is not None and host.name.startswith("/")
    own = _own(address, session, target)
    try:
        connection = await asyncpg.connect(
            "postgresql://?" + urlencode(address.for_asyncpg(tls=not local)),
            host=host.name,
            port=host.port,
            user=address.options.get("user"),
            password=address.password(host),
            database=address.options.get("dbname"),
            ssl=False if local else _system_authorities(address),
            target_session_attrs=target,
            timeout=timeout,
            command_timeout=session.command_timeout,
            statement_cache_size=0 if session.pooled else 100,
            server_settings=_startup(address, session) | ({} if session.pooled else own),
            connection_class=_Pooled if session.pooled else asyncpg.Connection,
        )
    except TimeoutError:
        raise TimeoutError(f"no answer within {timeout:g} s") from None
    try:
        if not local:
            _keep_alive(connection, address)
        await _put_aside(connection, session, own)
    except BaseException:
        connection.terminate()
        raise
    return connection


def _own(address: Address, session: Session, target: str) -> dict[str, str]:
    """Returns the settings that a session must have, whatever the role or the database says."""
    if not session.own:
        return dict(session.settings)
    said = {name.replace("-", "_") for name in _SAID.findall(address.options.get("options", ""))}
    # Where the address asks for a server by what it lets us do, it is not for us to change that first.
    kept = {"default_transaction_read_only"} if target in ("read-write", "read-only") else set()
    kept |= said.intersection(_UNLESS_SAID)
    return {name: value for name, value in _OWN.items() if name not in kept} | dict(session.settings)


_SAID = re.compile(r"(?:^|\s)(?:-c\s*|--)([\w.-]+)=")


def _startup(address: Address, session: Session) -> dict[str, str]:
    """Returns what the server, or a provider's proxy before it, is told of the address."""
    given = address.options
    name = given.get("application_name") or given.get("fallback_application_name") or session.name
    told = {"application_name": name, "options": given.get("options")}
    return {option: value for option, value in told.items() if value}


def _system_authorities(address: Address) -> ssl.SSLContext | None:
    """Returns a context that trusts whom the system trusts, where the address asks for it."""
    given = address.options
    if given.get("sslrootcert") != "system":
        return None
    context = ssl.create_default_context()
    if certificate := given.get("sslcert"):
        context.load_cert_chain(certificate, given.get("sslkey"), given.get("sslpassword", ""))
    if newest := given.get("ssl_max_protocol_version"):
        context.maximum_version = ssl.TLSVersion[newest.replace(".", "_")]
    if oldest := given.get("ssl_min_protocol_version"):
        context.minimum_version = ssl.TLSVersion[oldest.replace(".", "_")]
    return context


_KEEP_ALIVE = {
    "keepalives_idle": "TCP_KEEPIDLE",
    "keepalives_interval": "TCP_KEEPINTVL",
    "keepalives_count": "TCP_KEEPCNT",
    "tcp_user_timeout": "TCP_USER_TIMEOUT",
}


def _keep_alive(connection: asyncpg.Connection, address: Address) -> None:
    """Lets the kernel notice a dead peer, as libpq does by default; asyncpg does not."""
    connected = connection._transport.get_extra_info("socket")  # noqa: SLF001 - there is no public way
    if address.number("keepalives", 1) == 0:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, name in _KEEP_ALIVE.items():
        value = address.number(option, 0)
        if value > 0 and hasattr(socket, name):  # Not every system has all of them.
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def _put_aside(connection: asyncpg.Connection, session: Session, own: Mapping[str, str]) -> None:
    """Does what must be done by a statement, and not when connecting."""
    # A server refuses a connection that names a setting that it does not know.
    limited = session.own and connection.get_server_version().major >= _TRANSACTION_TIMEOUT_SINCE
    if session.pooled:
        connection.for_each_transaction = _local({**own, **({"transaction_timeout": "0"} if limited else {})})
    elif limited:
        await connection.execute("SET transaction_timeout = 0")


def _local(own: Mapping[str, str]) -> str:
    """Returns the statements by which one transaction alone has these settings."""
    mode = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE, NOT DEFERRABLE; "
    local = {name: value for name, value in own.items() if not name.startswith("default_transaction_")}
    begun = mode if len(local) < len(own) else ""
    return begun + " ".join(f"SET LOCAL {name} = '{value}';" for name, value in local.items())


class _Pooled(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Has its settings in each transaction, since behind a pooler a session belongs to nobody."""

    for_each_transaction = ""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109
        if query.startswith("BEGIN"):
            return str(await super().execute(f"{query.rstrip(';')}; {self.for_each_transaction}"))
        async with self._in_transaction():
            return str(await super().execute(query, *args, timeout=timeout))

    async def fetch(self, query: str, *args: Any, **options: Any) -> list[Any]:
        async with self._in_transaction():
            found: list[Any] = await super().fetch(query, *args, **options)
            return found

    async def fetchrow(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._in_transaction():
            return await super().fetchrow(query, *args, **options)

    async def fetchval(self, query: str, *args: Any, **options: Any) -> Any:
        async with self._in_transaction():
            return await super().fetchval(query, *args, **options)

    @asynccontextmanager
    async def _in_transaction(self) -> AsyncIterator[None]:
        if self.is_in_transaction() or not self.for_each_transaction:
            yield
            return
        # Not by asyncpg's own, which a BEGIN that is cancelled leaves believing in it.
        try:
            await super().execute(f"BEGIN; {self.for_each_transaction}")
            yield
            await super().execute("COMMIT")
        except BaseException:
            await self._roll_back()
            raise

    async def _roll_back(self) -> None:
        try:
            await super().execute("ROLLBACK", timeout=_ROLLBACK_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            self.terminate()
