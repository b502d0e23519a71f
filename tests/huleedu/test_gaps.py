"""A browser that stays connected has no hole that nobody tells of."""

from __future__ import annotations

import asyncio
import json
from uuid import uuid4

from outbox import Settings
from outbox.huleedu.channels import channel_of
from outbox.huleedu.gateway import Gateway
from outbox.relay import Relay
from outbox.settings import RedisSettings, SinkSettings
from tests.support import sql
from tests.support.gateway import RESYNC, client, token
from tests.support.waiting import PATIENCE

LATE = """
    INSERT INTO outbox (message_id, type, sink, destination, key, payload, available_at, expires_at)
    VALUES (gen_random_uuid(), 't', 'redis', $1, $1, '{}', now() - interval '2 min', now() - interval '1 min')
"""


async def test_a_socket_that_stays_open_learns_of_what_expired(
    huleedu_database: str, redis_url: str, gateway: Gateway
) -> None:
    user = f"alice-{uuid4()}"
    relay = Settings(
        database_url=huleedu_database,
        redis=RedisSettings(url=redis_url, stream=True),
        own={"redis": SinkSettings(gap_note=json.dumps(RESYNC))},
    )
    async with client(gateway, token(user)) as socket, sql.connection(huleedu_database) as connection:
        await connection.execute(LATE, channel_of(user))
        async with Relay(relay), asyncio.timeout(PATIENCE):
            assert json.loads(await socket.recv()) == RESYNC
