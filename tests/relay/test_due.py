"""Many that are due and cannot go out: no fetch reads them all, and what is behind them goes out."""

from __future__ import annotations

import asyncpg
import pytest

from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand
from tests.relay.traffic import inversions, write
from tests.support.waiting import until

OPTIONS = {"OUTBOX_BATCH_SIZE": "100", "OUTBOX_BREAKER_LONGEST_SECONDS": "1h"}


@pytest.mark.parametrize("reminders_are", ["down", "held", "above the floor"])
async def test_reminders_that_are_due_and_cannot_go_out_are_not_all_read_by_each_fetch(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate, reminders_are: str
) -> None:
    is_down = reminders_are == "down"
    async with ByHand.made(environment | OPTIONS) as relay:
        await relay.beat()
        if is_down:
            gate.set(Fault(kind="unavailable", destination="down", scope="destination"))
        else:
            gate.set(Fault(kind="transient", destination="down"))
        key = None if is_down else "k"
        await write(connection, [key], destination="down")
        await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = now() + interval '1 h' WHERE blocks")
        await write(connection, [key] * 50_000, destination="down", available_in=3600)
        if reminders_are != "above the floor":
            for _ in range(60):
                await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE NOT blocks")
        await connection.execute("VACUUM ANALYZE outbox_queue")
        down = ["down"] if is_down else []
        await relay.prepare_fetch(down=down)
        assert (
            await relay.explain_fetch(down=down)
        ).rows_read < 20_000  # Twice what it may look at, and little else.


async def test_a_retry_behind_many_that_are_due_and_held_goes_out_and_then_they_do_in_order(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    """All in one lane, and many times what one walk looks at."""
    async with ByHand.made(environment | OPTIONS) as relay:
        await relay.beat()
        gate.set(Fault(kind="transient"))
        (head,) = await write(connection, ["k"])
        await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = now() + interval '1 h'")
        held = await write(connection, ["k"] * 3_000, available_in=3600)
        for _ in range(60):  # The floor passes them.
            await relay.turn()
        await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE NOT blocks")
        gate.set()
        await connection.execute("UPDATE outbox_queue SET due_at = now() WHERE id = $1", head)

        async def are_sent() -> bool:
            await relay.turn()
            return set(gate.arrived) >= {head, *held}

        await until(are_sent)
        assert [id_ for id_ in gate.arrived if id_ in {head, *held}] == [head, *held]
        assert inversions(gate.attempts) == []
