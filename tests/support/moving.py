"""Ways by which a database gets elsewhere: PostgreSQL's own programs, and a subscription."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.engine import make_url

from outbox.devstack import Postgres
from outbox.devstack.postgres import wheel_binaries
from tests.support.sql import connection
from tests.support.waiting import until


async def run(program: str, *arguments: str, fails: bool = False) -> str:
    """Run one of PostgreSQL's programs; returns what it complained of."""
    binaries = wheel_binaries()
    assert binaries is not None
    process = await asyncio.create_subprocess_exec(
        binaries / program, *arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    _, said = await process.communicate()
    assert bool(process.returncode) is fails, said.decode()
    return said.decode()


async def dump(url: str, folder: Path, *options: str) -> str:
    """Dump a database; returns the file."""
    file = str(folder / "outbox.dump")
    await run("pg_dump", "--format=custom", f"--file={file}", f"--dbname={url}", *options)
    return file


async def restore(url: str, file: str, *options: str, fails: bool = False) -> str:
    """Restore a dump; returns what was complained of."""
    return await run("pg_restore", f"--dbname={url}", *options, file, fails=fails)


@asynccontextmanager
async def subscribed(publisher: str, subscriber: str, *tables: str) -> AsyncIterator[None]:
    """These tables of one database are copied to another, and kept the same, within the block."""
    source = make_url(publisher)
    conninfo = " ".join(
        f"{name}={value}"
        for name, value in {
            "host": source.host,
            "port": source.port,
            "user": source.username,
            "password": source.password,
            "dbname": source.database,
        }.items()
    )
    async with connection(publisher) as there, connection(subscriber) as here:
        await there.execute(f"CREATE PUBLICATION moving FOR TABLE {', '.join(tables)}")
        await here.execute(f"CREATE SUBSCRIPTION moving CONNECTION '{conninfo}' PUBLICATION moving")
        try:
            yield
        finally:
            await here.execute("DROP SUBSCRIPTION moving")
            await there.execute("DROP PUBLICATION moving")


async def caught_up(publisher: str, subscriber: str) -> None:
    """Return once the subscriber has all that the publisher committed before."""
    async with connection(publisher) as there, connection(subscriber) as here:
        written = await there.fetchval("SELECT pg_current_wal_lsn()::text")

        async def has_it() -> bool:
            copied: bool = await here.fetchval("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
            confirmed: bool | None = await there.fetchval(
                "SELECT confirmed_flush_lsn >= $1::text::pg_lsn FROM pg_replication_slots"
                " WHERE slot_name = 'moving'",
                written,
            )
            return bool(copied and confirmed)

        await until(has_it)


async def upgrade(old: Postgres, new: Postgres) -> None:
    """Bring what is in a stopped server to another version, which is started, by pg_upgrade."""
    await new.prepare()
    password = new.home / "password"
    password.write_text((old.home / "password").read_text())
    for server in (old, new):
        rules = server.home / "data" / "pg_hba.conf"
        rules.write_text(f"local all all trust\n{rules.read_text()}")
    # The newer one has them by itself.
    await old.run([str(old.binaries / "pg_checksums"), "--enable", "-D", str(old.home / "data")])
    places = {
        "--old-bindir": old.binaries,
        "--new-bindir": new.binaries,
        "--old-datadir": old.home / "data",
        "--new-datadir": new.home / "data",
    }
    options = [f"{name}={path}" for name, path in places.items()]
    upgraded = await new.run([str(new.binaries / "pg_upgrade"), "--username=postgres", *options])
    assert upgraded, new.log.read_text()
    await new.start()
