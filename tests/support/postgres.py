"""A PostgreSQL server for a test run: a template database, migrated once and cloned for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
from sqlalchemy.engine import make_url

from outbox.migrate import upgrade
from outbox.settings import Settings

Migration = Callable[[Settings], None]


class Cluster:
    """Databases in one server; `url` is that of a superuser's database in it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._templates: dict[tuple[Migration, ...], str] = {}

    def url_of(self, database: str) -> str:
        """The URL of a database there."""
        return make_url(self.url).set(database=database).render_as_string(hide_password=False)

    async def execute(self, statement: str) -> None:
        """Run a statement outside any transaction."""
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @asynccontextmanager
    async def database(self, *, template: str = "template0") -> AsyncIterator[str]:
        """The URL of a new database, dropped afterwards whoever is still in it."""
        name = f"test_{uuid4().hex[:12]}"
        connection = await asyncpg.connect(self.url)
        # By files and not page by page through the log, which takes twice as long; 14 knows nothing else.
        how = "STRATEGY file_copy" if connection.get_server_version() >= (15,) else ""
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} {how}")
        try:
            yield self.url_of(name)
        finally:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
            await connection.close()

    async def template(self, *also: Migration) -> str:
        """The name of a migrated database; `also` are migrations beside the outbox's own."""
        if also not in self._templates:
            name = f"template_{uuid4().hex[:12]}"
            await self.execute(f"CREATE DATABASE {name} TEMPLATE template0")
            for each in (upgrade, *also):
                await migrate(self.url_of(name), each)
            self._templates[also] = name
        return self._templates[also]

    async def close(self) -> None:
        """Drop the templates, in case the server is not ours."""
        for name in self._templates.values():
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def migrate(url: str, migration: Migration = upgrade) -> None:
    """Bring a database to the newest schema."""
    await asyncio.to_thread(migration, Settings(database_url=url))
