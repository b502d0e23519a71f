from __future__ import annotations

import asyncpg
import pytest

from outbox.relay import Relay
from outbox.relay.progress import Progress
from outbox.relay.verdict import Failure
from outbox.testing import Fault, Gate
from tests.relay.traffic import settings_of, write
from tests.support.clock import Clock
from tests.support.deliveries import delivery
from tests.support.waiting import until


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(clock)


def failure(*, counted: bool = True, delay: float | None = 1.0) -> Failure:
    return Failure(delivery("d"), "no", delay, counted=counted, uncertain=False)


def seconds(progress: Progress) -> float:
    return progress.in_vain()[0]


def test_failure_is_no_progress(clock: Clock, progress: Progress) -> None:
    for _ in range(10):
        progress.failed([failure()])
        clock.now += 30
    assert (progress.quiet_seconds, *progress.in_vain()) == (300, 270, "no")


def test_one_delivery_that_fails_may_be_at_fault_itself(clock: Clock, progress: Progress) -> None:
    bad = failure(delay=300.0)
    for _ in range(10):
        progress.failed([bad])
        clock.now += 300
    assert seconds(progress) == 0


def test_a_success_ends_it(clock: Clock, progress: Progress) -> None:
    progress.failed([failure(), failure()])
    clock.now += 50
    progress.failed([failure()])
    assert seconds(progress) == 50
    progress.done()
    assert (progress.quiet_seconds, seconds(progress)) == (0, 0)


def test_what_is_down_is_no_failure_of_the_relay(clock: Clock, progress: Progress) -> None:
    for _ in range(10):
        progress.failed([failure(counted=False), failure(counted=False)])
        clock.now += 30
    assert seconds(progress) == 0


def test_a_send_that_does_not_end_is_told(clock: Clock, progress: Progress) -> None:
    with progress.sending():
        clock.now += 61
        with progress.sending():
            assert progress.in_vain() == (61, "a send does not end")
    assert seconds(progress) == 0


@pytest.mark.parametrize("delay", [None, 300.0])
def test_it_is_forgotten_once_nothing_is_left_to_fail(
    clock: Clock, progress: Progress, delay: float | None
) -> None:
    for _ in range(2):
        progress.failed([failure(delay=delay), failure(delay=delay)])
        clock.now += 50
    clock.now += (delay or 0) + 5
    assert seconds(progress) == 50
    clock.now += 10
    assert seconds(progress) == 0


async def test_a_sink_that_fails_every_time_stalls_until_it_works(
    environment: dict[str, str], connection: asyncpg.Connection, gate: Gate
) -> None:
    gate.set(Fault(kind="transient", reason="not today"))
    async with Relay(settings_of(environment)) as relay:
        await write(connection, ["a", "b"])

        async def fails() -> bool:
            return relay.health().sinks[0].in_vain[0] > 0

        async def works() -> bool:
            return not await fails()

        await until(fails)
        assert relay.health().sinks[0].in_vain[1] == "not today"
        gate.set()
        await until(works)
