"""Order per key and nothing lost, over many relays that come, go, crash and freeze."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import asyncpg
import pytest

from outbox.testing import Fault, Gate
from tests.relay.traffic import SINK, arrived, emptied, first_sends, inversions, unexplained, write
from tests.support.relay_process import RelayProcess

KEYS, EACH, BURST = 20, 200, 10

StartRelay = Callable[..., Awaitable[RelayProcess]]


def bursts(random: Random) -> list[str]:
    """The key of each burst; every key is written as often."""
    keys = [f"key-{number}" for number in range(KEYS)] * (EACH // BURST)
    random.shuffle(keys)
    return keys


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_relays_that_fail_and_come_and_go_lose_nothing_and_keep_order(
    environment: dict[str, str],
    connection: asyncpg.Connection,
    tmp_path: Path,
    relay_process: StartRelay,
    seed: int,
) -> None:
    random = Random(seed)  # noqa: S311 - chance in tests
    gate = Gate(tmp_path / "gate", seed=seed)
    gate.set(
        Fault(kind="raise", probability=0.001),
        Fault(kind="transient", probability=0.02),
        Fault(kind="transient", probability=0.01, arrives=True),
        Fault(kind="unavailable", probability=0.001),
        Fault(kind="unavailable", probability=0.005, scope="part", arrives=True),
    )
    environment |= {**gate.environment(SINK), "OUTBOX_LEASE_SECONDS": "4", "OUTBOX_BATCH_SIZE": "50"}
    relays = [await relay_process(environment) for _ in range(4)]
    crashed = set()
    keys = bursts(random)
    written = 0
    for turn in range(8):
        for key in keys[turn::8]:
            written += len(await write(connection, [key] * BURST))
        await arrived(gate, written // 2)
        match turn:
            case 1 | 4:
                crash = relays.pop(random.randrange(len(relays)))
                crash.kill()
                crashed.add(crash.pid)
            case 2 | 5:
                relays.append(await relay_process(environment))
            case 3:
                leaver = relays.pop(random.randrange(len(relays)))
                await leaver.event("lanes.taken")
                leaver.terminate()
                assert await leaver.exited() == 0
    await emptied(connection)

    assert written == KEYS * EACH
    sent = first_sends(gate.attempts)
    assert {len(ids) for ids in sent.values()} == {EACH}
    assert len(sent) == KEYS
    assert inversions(gate.attempts) == []
    assert unexplained(gate.attempts, crashed) == []
    assert (
        await connection.fetchval("SELECT count(*) FROM outbox_receipts WHERE outcome = 'delivered'")
        == written
    )
