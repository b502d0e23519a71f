"""Whatever a hand does to the tables between bursts: nothing else is lost or inverted, and repair ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import asyncpg
import pytest

from outbox import operate
from outbox.operate import Selection
from outbox.testing import Attempt, Gate
from tests.relay.traffic import QUICK, SINK, arrived, inversions, settings_of, write
from tests.support.hands import ACTIONS, Hands
from tests.support.relay_process import RelayProcess
from tests.support.waiting import until

pytestmark = pytest.mark.slow

StartRelay = Callable[..., Awaitable[RelayProcess]]

MAINTENANCE = {"OUTBOX_PRUNE_INTERVAL_SECONDS": "0.2", "OUTBOX_LOG_LEVEL": "info"}


async def clean(environment: dict[str, str], connection: asyncpg.Connection) -> None:
    """Mend, and send what is parked, until status finds nothing more to say and the queue is empty."""

    async def is_clean() -> bool:
        async with operate.connect(settings_of(environment)) as operator:
            await operate.repair(operator)
            await operate.retry(operator, Selection())
            async with operator.begin():
                status = await operate.status(operator)
        left: int = await connection.fetchval("SELECT count(*) FROM outbox_queue")
        return left == 0 and not status.needs_attention

    await until(is_clean)


def of_others(attempts: list[Attempt], touched: set[int]) -> list[Attempt]:
    return [attempt for attempt in attempts if attempt.id not in touched]


@pytest.mark.parametrize("seed", [1, 2])
async def test_hands_between_bursts_cost_nobody_else_anything(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    tmp_path: Path,
    relay_process: StartRelay,
    seed: int,
) -> None:
    random = Random(seed)  # noqa: S311 - chance in tests
    gate, hands = Gate(tmp_path / "gate"), Hands(connection, random)
    relays = [await relay_process({**environment, **QUICK, **MAINTENANCE}) for _ in range(2)]
    for relay in relays:
        await relay.event("lanes.taken")
    actions = sorted(ACTIONS)
    random.shuffle(actions)
    written: list[int] = []
    for action in actions:
        for _ in range(4):
            written += await write(connection, [f"key-{random.randrange(12)}"] * 10)
        await hands.act(action)
        before = len(gate.arrived)
        written += await write(connection, [f"key-{number % 12}" for number in range(60)])
        await arrived(gate, before + 20)
        if random.random() < 0.3:
            async with operate.connect(settings_of(environment)) as operator:
                await operate.repair(operator)
    await clean(environment, connection)
    for relay in relays:
        relay.terminate()
        assert await relay.exited() == 0, relay.last_words()
    others = set(written) - hands.touched
    assert others <= set(gate.arrived)
    assert inversions(of_others(gate.attempts, hands.touched)) == []
    assert len(others) > 500
    assert SINK in {row["sink"] for row in await connection.fetch("SELECT sink FROM outbox_sinks")}
