"""For each cause that keeps a delivery back: the situation is made, and the sentence read."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from outbox import operate
from outbox.observe import watch
from outbox.operate import Explanation, Place, Selection, connect
from outbox.relay import Relay
from outbox.testing import Fault, Gate
from tests.relay.by_hand import ByHand
from tests.relay.traffic import QUICK, SINK, TOPIC, settings_of, write
from tests.support import sql
from tests.support.waiting import until

Explain = Callable[[int], Awaitable[Explanation]]
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"


@pytest.fixture
def gate(tmp_path: Any) -> Gate:
    return Gate(tmp_path / "gate")


@pytest.fixture
def environment(database: str, gate: Gate) -> dict[str, str]:
    return {"OUTBOX_DATABASE_URL": database, **QUICK, **gate.environment(SINK)}


@pytest.fixture
async def observer(database: str) -> AsyncIterator[asyncpg.Connection]:
    async with sql.connection(database) as connection:
        yield connection


@pytest.fixture
async def relay(environment: dict[str, str]) -> AsyncIterator[ByHand]:
    """A relay that owns all lanes and does nothing by itself."""
    async with ByHand.made(environment) as made:
        await made.beat()
        yield made


@pytest.fixture
def explain(environment: dict[str, str]) -> Explain:
    async def ask(id_: int) -> Explanation:
        async with connect(settings_of(environment)) as operator:
            return await operate.explain_id(operator, id_)

    return ask


def says(explanation: Explanation, *sentences: str) -> bool:
    """Whether these are its causes, in this order; TIME stands for any."""
    patterns = [re.escape(each).replace("TIME", TIME) for each in sentences]
    told = [cause.sentence for cause in explanation.causes]
    return len(told) == len(patterns) and all(map(re.fullmatch, patterns, told))


async def change(observer: asyncpg.Connection, id_: int, what: str) -> None:
    await observer.execute(f"UPDATE outbox_queue SET {what} WHERE id = $1", id_)


FAILED = "due_at = now() + interval '1 hour', attempts = 3, last_error = 'it timed out', blocks = true"


@pytest.mark.usefixtures("relay")
async def test_it_backs_off_after_which_error(observer: asyncpg.Connection, explain: Explain) -> None:
    (id_,) = await write(observer, ["k"])
    await change(observer, id_, FAILED)
    found = await explain(id_)
    assert says(found, "It backs off until TIME, after 3 failed attempts: it timed out.")
    assert f"outbox retry {id_}" in found.causes[0].remedy


@pytest.mark.usefixtures("relay")
async def test_it_is_held_behind_the_whole_chain_to_its_head(
    observer: asyncpg.Connection, explain: Explain
) -> None:
    head, second, last = await write(observer, ["k"] * 3)
    await change(observer, head, "parked_at = now(), attempts = 1, last_error = 'too large', blocks = true")
    await change(observer, second, FAILED)
    found = await explain(last)
    assert says(
        found,
        f"It is held behind delivery {head}, the first of its key (2 deliveries hold its key), "
        "which is parked since TIME, after 1 failed attempt: too large.",
    )
    assert [re.match(r"delivery \d+", each)[0] for each in found.causes[0].evidence] == [  # type: ignore[index]
        f"delivery {head}",
        f"delivery {second}",
    ]
    assert f"outbox retry {head}" in found.causes[0].remedy


@pytest.mark.usefixtures("relay")
async def test_it_is_scheduled_or_parked_or_done(observer: asyncpg.Connection, explain: Explain) -> None:
    (later,) = await write(observer, ["k"], available_in=3600)
    assert says(await explain(later), "It is scheduled: it is not due before TIME.")
    (parked,) = await write(observer, ["p"])
    await change(observer, parked, "parked_at = now(), attempts = 2, last_error = 'no'")
    assert says(await explain(parked), "It is parked since TIME, after 2 failed attempts: no.")
    await change(observer, parked, "parked_at = NULL")
    await observer.execute("DELETE FROM outbox_queue WHERE id = $1", parked)
    lost = await explain(parked)
    assert "its queue row is missing" in lost.causes[0].sentence
    assert lost.causes[0].remedy == "outbox repair"
    await observer.execute(
        "INSERT INTO outbox_receipts (id, outcome, attempts) VALUES ($1, 'expired', 0)", parked
    )
    done = await explain(parked)
    assert re.fullmatch(f"Delivery {parked} to {SINK}: {TOPIC} was expired at {TIME}", done.about)
    assert not done.causes


async def test_no_relay_serves_the_sink(observer: asyncpg.Connection, explain: Explain) -> None:
    (id_,) = await write(observer, ["k"])
    assert says(await explain(id_), f"No relay at work serves {SINK}.")


async def test_nobody_owns_its_lane(observer: asyncpg.Connection, relay: ByHand, explain: Explain) -> None:
    (id_,) = await write(observer, ["k"])
    lane = await observer.fetchval("SELECT lane FROM outbox_queue WHERE id = $1", id_)
    assert relay.owned
    await observer.execute(
        "UPDATE outbox_lanes SET expires_at = now() - interval '1 minute' WHERE lane = $1", lane
    )
    (cause,) = (await explain(id_)).causes
    assert cause.sentence.startswith(f"Lane {lane} of {SINK} is owned by nobody; the lease of ")


async def test_its_relay_lives_but_does_nothing(
    observer: asyncpg.Connection, relay: ByHand, explain: Explain
) -> None:
    (id_,) = await write(observer, ["k"])
    assert relay.owned
    assert not (await explain(id_)).causes
    await change(observer, id_, "first_due_at = now() - interval '1 hour'")
    (cause,) = (await explain(id_)).causes
    assert cause.sentence.endswith(f"lives and owns its lane, but delivered nothing of {SINK} lately.")
    assert any("is owned by relay" in each for each in cause.evidence)
    (other,) = await write(observer, ["other"])
    await observer.execute("DELETE FROM outbox_queue WHERE id = $1", other)
    await observer.execute(
        "INSERT INTO outbox_receipts (id, outcome, attempts) VALUES ($1, 'delivered', 0)", other
    )
    (cause,) = (await explain(id_)).causes
    assert cause.sentence.startswith("It waits for its turn")


@pytest.mark.usefixtures("relay")
@pytest.mark.parametrize("place", [Place(SINK), Place(SINK, TOPIC), Place(SINK, TOPIC, "k")], ids=str)
async def test_it_is_paused_by_whom_and_why(
    environment: dict[str, str], observer: asyncpg.Connection, explain: Explain, place: Place
) -> None:
    mine, another = await write(observer, ["k", None])
    async with connect(settings_of(environment)) as operator:
        await operate.pause(operator, place, paused_by="eve", reason="an upgrade")
    found = await explain(mine)
    assert says(found, f"{place} is paused since TIME, by eve: an upgrade.")
    assert found.causes[0].remedy == place.resume_command
    assert bool((await explain(another)).causes) == (place.key is None)


async def test_the_breaker_is_open_and_which_relay_says_so(
    environment: dict[str, str], observer: asyncpg.Connection, gate: Gate, explain: Explain
) -> None:
    gate.set(Fault(kind="unavailable", destination=TOPIC))
    with watch() as events:
        async with Relay(settings_of(environment)):
            await events.wait_for("relay.ready")
            (id_,) = await write(observer, ["k"])

            async def is_told() -> bool:
                causes = (await explain(id_)).causes
                return any(cause.sentence.startswith("The breaker of ") for cause in causes)

            await until(is_told)
            (cause,) = [c for c in (await explain(id_)).causes if c.sentence.startswith("The breaker of ")]
            assert re.match(f"The breaker of .* is open since {TIME}, relay .*:.* says: ", cause.sentence)
            gate.set()

            async def is_closed() -> bool:
                row = await observer.fetchval("SELECT breakers::text FROM outbox_relays")
                return bool(row == "[]")

            await until(is_closed)


async def test_it_is_not_committed_yet_and_by_whom(database: str, explain: Explain) -> None:
    async with sql.connection(database, server_settings={"application_name": "slow"}) as writer:
        async with writer.transaction():
            (id_,) = await write(writer, ["k"])
            pid = writer.get_server_pid()
            found = await explain(id_)
            (cause,) = [each for each in found.causes if f"PID {pid} " in each.sentence]
            assert f"pg_terminate_backend({pid})" in cause.remedy
            assert "application slow" in cause.evidence
        assert says(await explain(id_), f"No relay at work serves {SINK}.")
    assert "never written" in (await explain(10**9)).about


@pytest.mark.usefixtures("relay")
async def test_the_cause_that_holds_it_longest_comes_first(
    environment: dict[str, str], observer: asyncpg.Connection, explain: Explain
) -> None:
    (id_,) = await write(observer, ["k"])
    await change(observer, id_, FAILED)
    async with connect(settings_of(environment)) as operator:
        await operate.pause(operator, Place(SINK), paused_by="eve")
    paused, failed = (await explain(id_)).causes
    assert (paused.until, failed.until is None) == (None, False)


@pytest.mark.usefixtures("relay")
async def test_a_sink_a_destination_or_a_key_is_explained_by_its_first(
    environment: dict[str, str], observer: asyncpg.Connection
) -> None:
    first, _ = await write(observer, ["k", "other"])
    (parked,) = await write(observer, ["p"], destination="bad")
    await change(observer, parked, "parked_at = now(), last_error = 'no'")
    async with connect(settings_of(environment)) as operator:

        async def about(**place: str) -> int | None:
            found = await operate.explain_place(operator, Selection(**place))  # type: ignore[arg-type]
            return found.delivery.id if found and found.delivery else None

        assert await about(sink=SINK) == first
        assert await about(destination=TOPIC) == first
        assert await about(key="k") == first
        assert await about(destination="bad") == parked
        assert await about(destination="nowhere") is None
