from __future__ import annotations

from typing import Any

import pytest

from outbox.health import Failing, Health, SinkHealth
from outbox.web.readiness import reasons


def at_work(**fields: Any) -> Health:
    return Health(sinks=(SinkHealth(sink="kafka", lanes=frozenset(range(64)), **fields),))


@pytest.mark.parametrize(
    ("health", "says"),
    [
        (Health(waiting_for="postgres", reason="refused"), "waiting for postgres: refused"),
        (
            Health(waiting_for="schema", reason="run: outbox migrate"),
            "waiting for schema: run: outbox migrate",
        ),
        (Health(waiting_for="start"), "waiting for start"),
        (Health(stopping=True), "stopping"),
        (at_work(failing=(Failing(pump=2, reason="no right", seconds=61),)), "kafka: pump 2 fails: no right"),
        (
            at_work(in_vain=(61.0, "KeyError: 'x'")),
            "kafka stalls: nothing has come of all that was tried for 61 s: KeyError: 'x'",
        ),
    ],
)
def test_not_ready(health: Health, says: str) -> None:
    assert reasons(health, 60) == [says]


@pytest.mark.parametrize(
    "health",
    [
        at_work(quiet_seconds=1_000_000),
        at_work(failing=(Failing(pump=2, reason="no right", seconds=59),)),
        at_work(in_vain=(59.0, "no")),
        at_work(in_vain=(61.0, "no"), open_breakers=frozenset({None})),
    ],
    ids=["nothing to do", "a pump failed just now", "a delivery failed just now", "the sink is down"],
)
def test_ready(health: Health) -> None:
    assert reasons(health, 60) == []
