"""What is read from Redis for one socket: over a few connections, in the order in which it was asked for.

When ten thousand browsers come back at once each waits for its turn, and what several wait for is asked in
one go, since a trip of its own costs more than what it brings.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from outbox.redis_server import RedisServer

_CONNECTIONS = 8
_AT_ONCE = 16
"""Not more, since a whole log may be asked for, of 256 messages."""
_STOP_SECONDS = 0.5
_TROUBLE = (RedisError, OSError, TimeoutError)

Command = tuple[str, ...]
_Ask = tuple[Sequence[Command], asyncio.Future[list[Any]]]


class Reads:
    """Asks for others, as long as `run` does; a trip takes `timeout` seconds at most."""

    def __init__(self, server: RedisServer, timeout: float) -> None:
        self._redis = Redis.from_pool(server.pool(client_name="websocket-gateway-missed"))
        self._asked: asyncio.Queue[_Ask] = asyncio.Queue()
        self._timeout = timeout

    async def ask(self, *commands: Command) -> list[Any]:
        """Returns the answers to these commands.

        Raises RedisError for one that is refused, and OSError or TimeoutError where nobody answers.
        """
        answers: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._asked.put_nowait((commands, answers))
        return await answers

    async def run(self) -> None:
        """Asks, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_CONNECTIONS):
                tasks.create_task(self._serve())

    async def forget(self) -> None:
        """Disconnects: what is connected may go on well with what is the master no more."""
        with suppress(*_TROUBLE):
            await self._redis.connection_pool.disconnect()

    async def close(self) -> None:
        """Disconnects for good, at once whatever Redis does."""
        with suppress(*_TROUBLE):
            async with asyncio.timeout(_STOP_SECONDS):
                await self._redis.aclose()

    async def _serve(self) -> None:
        while True:
            asks = [await self._asked.get()]
            while len(asks) < _AT_ONCE and not self._asked.empty():
                asks.append(self._asked.get_nowait())
            # Whoever is gone meanwhile wants no answer.
            asks = [ask for ask in asks if not ask[1].done()]
            try:
                await self._go(asks)
            except _TROUBLE as trouble:
                for _, answers in asks:
                    if not answers.done():
                        answers.set_exception(trouble)

    async def _go(self, asks: Sequence[_Ask]) -> None:
        pipe = self._redis.pipeline(transaction=False)
        for commands, _ in asks:
            for command in commands:
                pipe.execute_command(*command)
        async with asyncio.timeout(self._timeout):
            came = iter(await pipe.execute(raise_on_error=False))
        for commands, answers in asks:
            _answer(answers, [next(came) for _ in commands])


def _answer(answers: asyncio.Future[list[Any]], found: list[Any]) -> None:
    if answers.done():
        return
    refused = [each for each in found if isinstance(each, RedisError)]
    if refused:
        answers.set_exception(refused[0])
    else:
        answers.set_result(found)
