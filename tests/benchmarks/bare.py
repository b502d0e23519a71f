"""What one would write first: consume an upload, insert a row, publish on Redis, pass it on to a WebSocket.

A process that `notify` compares the outbox's way with: the same hops, by the same libraries, without inbox,
slots, outbox, relay, tokens and limits. What fails in it is lost.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer
from redis.asyncio import Redis
from websockets.asyncio.server import ServerConnection, serve

from tests.support.waiting import until

TOPIC = "bare.uploads"
TABLE = "CREATE TABLE bare_uploads (file_upload_id text PRIMARY KEY, batch_id text, said jsonb)"
INSERT = "INSERT INTO bare_uploads VALUES ($1, $2, $3)"


async def consume(kafka: AIOKafkaConsumer, database: asyncpg.Connection, redis: Redis) -> None:
    async for record in kafka:
        data = json.loads(record.value)["data"]
        await database.execute(INSERT, data["file_upload_id"], data["entity_id"], json.dumps(data))
        notice = {"event": "essay_slot_assigned", "data": data}
        await redis.publish(f"bare:{record.key.decode()}", json.dumps(notice))


async def pass_on(redis: Redis, sockets: dict[str, ServerConnection]) -> None:
    async with redis.pubsub() as pubsub:
        await pubsub.psubscribe("bare:*")
        async for said in pubsub.listen():
            if said["type"] == "pmessage" and (socket := sockets.get(said["channel"].decode())):
                await socket.send(said["data"].decode())


async def has_partitions(kafka: AIOKafkaConsumer) -> bool:
    return bool(kafka.assignment())


async def run(database_url: str, bootstrap: str, redis_url: str) -> None:
    """Print the port once everything is connected, and work until standard input ends."""
    sockets: dict[str, ServerConnection] = {}

    async def attend(socket: ServerConnection) -> None:
        assert socket.request
        sockets[f"bare:{socket.request.path.removeprefix('/')}"] = socket
        await socket.wait_closed()

    database = await asyncpg.connect(database_url)
    await database.execute(TABLE)
    kafka = AIOKafkaConsumer(
        TOPIC, bootstrap_servers=bootstrap, group_id="bare", auto_offset_reset="earliest"
    )
    await kafka.start()
    async with Redis.from_url(redis_url) as redis, serve(attend, "127.0.0.1", 0, compression=None) as server:
        working = asyncio.gather(consume(kafka, database, redis), pass_on(redis, sockets))
        await until(lambda: has_partitions(kafka))
        print(json.dumps({"port": next(iter(server.sockets)).getsockname()[1]}), flush=True)
        ended = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        await asyncio.wait((working, ended), return_when=asyncio.FIRST_COMPLETED)
        working.cancel()
        with suppress(asyncio.CancelledError):
            await working
    await kafka.stop()
    await database.close()


if __name__ == "__main__":
    values: dict[str, Any] = json.loads(sys.argv[1])
    asyncio.run(run(**values))
