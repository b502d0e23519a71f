"""Do the rows of the tables fit together? A look at a bounded number of them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CursorResult
from sqlalchemy.ext.asyncio import AsyncConnection

from outbox.schema import in_schema
from outbox.schema.integrity import BY_INDEX, LOOK, Amiss


async def look(connection: AsyncConnection) -> Amiss:
    """Returns what is amiss among the newest messages, in the queue, and where relays found something."""
    await run(connection, BY_INDEX)
    found = await run(connection, LOOK)
    return Amiss(*tuple(found.one()))


async def run(connection: AsyncConnection, statement: str, *values: Any) -> CursorResult[Any]:
    """Runs a statement that names its parameters `$1`, `$2`, in the schema that the connection works in."""
    options = await connection.run_sync(lambda made: made.get_execution_options())
    schema = options.get("schema_translate_map", {}).get(None)
    return await connection.exec_driver_sql(in_schema(statement, schema), values or None)
