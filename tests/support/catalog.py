"""Writes down what the migrations make, for `outbox doctor` to compare a database with; a test compares.

After a migration: `python -m tests.support.catalog`
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

from outbox.devstack import Postgres
from outbox.devstack.postgres import wheel_binaries
from outbox.schema.catalog import _EXPECTED, definitions
from tests.support import servers, sql
from tests.support.postgres import Cluster


def written(found: Mapping[str, str]) -> str:
    """The file that says so: a line for each, so that what several add merges."""
    return json.dumps(dict(sorted(found.items())), indent=1, ensure_ascii=False) + "\n"


async def _write() -> None:
    async with Postgres(binaries=wheel_binaries(), settings=servers.POSTGRES_SETTINGS) as server:
        cluster = Cluster(server.url)
        async with sql.connection(cluster.url_of(await cluster.template())) as connection:
            _EXPECTED.write_text(written(await definitions(connection)))


if __name__ == "__main__":
    asyncio.run(_write())
