"""What a check is given: a connection of its own to the database, the settings, and this host's clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.operate.integrity import run
from outbox.settings import Settings


@dataclass(frozen=True, slots=True)
class Patient:
    """The database that is examined."""

    connection: AsyncConnection
    settings: Settings
    clock: Callable[[], float]
    """This host's time, in seconds since 1970."""
    long_seconds: float
    """A transaction that is open for longer is told of."""

    async def ask(self, statement: str, *values: Any) -> list[Row[Any]]:
        """Returns the rows that a statement finds; its parameters are `$1`, `$2`."""
        return list(await run(self.connection, statement, *values))

    async def session(self) -> asyncpg.Connection:
        """Returns the session below SQLAlchemy."""
        return (await self.connection.get_raw_connection()).driver_connection
