from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from outbox.logs import Throttle, configure_logging
from outbox.observe import EVENTS, REGISTRY, Event, emit, subscribe, watch
from outbox.settings import Settings
from tests.support.clock import Clock


@contextmanager
def logged(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Iterator[io.StringIO]:
    output = io.StringIO()
    monkeypatch.setattr(sys, "stderr", output)
    root = logging.getLogger()
    before = (root.handlers, root.level)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    configure_logging(Settings(**{"log_format": "json", **settings}))
    try:
        yield output
    finally:
        root.handlers, level = before
        root.setLevel(level)
        structlog.reset_defaults()


def lines(output: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


FIELDS: dict[str, Any] = {
    "sink": "kafka",
    "lanes": [1, 2],
    "rows": 3,
    "delivered": 2,
    "seconds": 0.1,
    "oldest_seconds": 0.2,
    "id": 7,
    "pid": 1,
    "age": 1.0,
    **dict.fromkeys(("lost", "double", "ghosts", "passed", "behind"), 1),
}


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_goes_with_the_fields_it_promises(name: str) -> None:
    fields = {field: FIELDS.get(field, "x") for field in EVENTS[name].fields.split()}
    with watch_now() as seen:
        emit(name, **fields)
    assert [event.name for event in seen] == [name]
    assert fields.items() <= seen[0].fields.items()


@contextmanager
def watch_now() -> Iterator[list[Event]]:
    seen: list[Event] = []
    with subscribe(seen.append):
        yield seen


def test_an_unknown_event_is_a_mistake() -> None:
    with pytest.raises(KeyError):
        emit("pump.exploded")


def test_a_settled_batch_moves_the_metrics() -> None:
    published = sample("outbox_events_published_total", sink="test")
    count = sample("outbox_relay_processing_seconds_count", sink="test")
    age = sample("outbox_event_age_seconds_sum", sink="test")
    emit("pump.settled", sink="test", pump=0, delivered=5, oldest_seconds=1.5, seconds=0.1)
    emit("pump.settled", sink="test", pump=0, delivered=0, oldest_seconds=0.0, seconds=0.1)
    assert sample("outbox_events_published_total", sink="test") == published + 5
    assert sample("outbox_relay_processing_seconds_count", sink="test") == count + 2
    assert sample("outbox_event_age_seconds_sum", sink="test") == age + 1.5


@pytest.mark.parametrize("outcome", ["retry", "parked", "expired"])
def test_each_failure_is_counted_by_its_outcome(outcome: str) -> None:
    before = sample("outbox_events_failed_total", sink="test", outcome=outcome)
    emit(f"delivery.{outcome}", sink="test", id=1)
    assert sample("outbox_events_failed_total", sink="test", outcome=outcome) == before + 1


def test_no_metric_has_an_id_as_a_label() -> None:
    labels = {label for metric in REGISTRY.collect() for each in metric.samples for label in each.labels}
    assert labels <= {"sink", "state", "outcome", "kind", "le"}


async def test_a_watch_waits_for_an_event_by_its_fields() -> None:
    with watch() as watching:
        waiting = asyncio.create_task(watching.wait_for("pump.sent", sink="kafka", count=2))
        for sink in ("kafka", "redis", "kafka"):
            await asyncio.sleep(0)
            emit("pump.sent", sink=sink, pump=0, rows=1, sent=1, failed=0)
        event = await waiting
    assert event.fields["sink"] == "kafka"
    emit("pump.sent", sink="kafka")
    assert len(watching.matching("pump.sent")) == 3


async def test_a_watch_gives_up_at_its_deadline() -> None:
    with watch() as watching, pytest.raises(TimeoutError):
        await watching.wait_for("pump.sent", deadline=0.01)


def test_the_context_goes_with_the_event() -> None:
    with structlog.contextvars.bound_contextvars(relay="a"), watch_now() as seen:
        emit("relay.ready")
    assert seen[0].fields["relay"] == "a"


def test_json_lines_have_the_agreed_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    message = uuid4()
    with logged(monkeypatch, service_name="orders", environment="test") as output:
        emit("delivery.parked", sink="kafka", id=1, message_id=message, event_type="t", correlation_id=None)
    (line,) = lines(output)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "delivery.parked",
        "level": "error",
        "service.name": "orders",
        "deployment.environment": "test",
        "sink": "kafka",
        "id": 1,
        "message_id": str(message),
        "event_type": "t",
        "correlation_id": None,
    }


def test_a_current_span_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    tracer = TracerProvider().get_tracer("test")
    with logged(monkeypatch) as output, tracer.start_as_current_span("work") as span:
        emit("relay.ready")
    assert lines(output)[0]["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert lines(output)[0]["span_id"] == f"{span.get_span_context().span_id:016x}"


def test_passwords_do_not_get_into_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    with logged(monkeypatch) as output:
        emit("relay.lost_database", reason="cannot reach postgresql://u:geheim@h/d")
        logging.getLogger("elsewhere").warning("lost %s", "redis://:geheim@h")
    assert "geheim" not in output.getvalue()


def fail_with(secret: str) -> None:
    raise ValueError(f"cannot reach postgresql://u:{secret}@h")


@pytest.mark.parametrize("form", ["json", "console"])
def test_tracebacks_show_no_secrets(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    with logged(monkeypatch, log_format=form) as output:
        try:
            fail_with("gehe" + "im")
        except ValueError:
            logging.getLogger("elsewhere").exception("broken")
            structlog.get_logger("outbox").exception("broken too")
    assert output.getvalue().count("Traceback") == 2
    assert "postgresql://u:***@h" in output.getvalue()
    assert "geheim" not in output.getvalue()


def test_a_repeated_wait_is_logged_once_and_signalled_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = f"refused {uuid4()}"
    with logged(monkeypatch) as output, watch_now() as seen:
        for _ in range(5):
            emit("relay.waiting", what="postgres", reason=reason)
        emit("relay.waiting", what="kafka", reason=reason)
    assert len(lines(output)) == 2
    assert len(seen) == 6


def test_a_breaker_that_opens_again_with_a_longer_wait_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    reason = f"refused {uuid4()}"
    with logged(monkeypatch) as output:
        for wait in (1.0, 2.0, 4.0):
            emit("breaker.opened", sink="kafka", destination=None, reason=reason, wait=wait)
    assert [line["wait"] for line in lines(output)] == [1.0]


def test_a_crash_is_a_log_line_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with logged(monkeypatch) as output:
        sys.excepthook(ValueError, ValueError("what nobody thought of"), None)
    (line,) = lines(output)
    assert (line["event"], line["level"]) == ("crashed", "critical")
    assert line["exception"] == "ValueError: what nobody thought of"


def test_aiokafka_is_calmed(monkeypatch: pytest.MonkeyPatch) -> None:
    with logged(monkeypatch) as output:
        for _ in range(50):
            logging.getLogger("aiokafka.conn").error("Unable connect to node with id %s", 1)
        logging.getLogger("aiokafka").info("details")
        for _ in range(2):
            logging.getLogger("mine").error("each counts")
    assert [(line["event"], line["level"]) for line in lines(output)] == [
        ("Unable connect to node with id 1", "warning"),
        ("each counts", "error"),
        ("each counts", "error"),
    ]


def test_the_level_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with logged(monkeypatch, log_level="warning") as output:
        emit("relay.ready")
        emit("relay.lost_database", reason="gone")
    assert [line["event"] for line in lines(output)] == ["relay.lost_database"]


def test_a_log_that_nobody_reads_any_more_fails_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with logged(monkeypatch) as output:
        emit("relay.ready")
        assert lines(output)[0]["event"] == "relay.ready"
        output.close()
        emit("relay.ready")


def test_a_service_without_structlog_gets_records(caplog: pytest.LogCaptureFixture) -> None:
    structlog.reset_defaults()
    with caplog.at_level(logging.INFO, logger="outbox"):
        emit("http.listening", host="h", port=1)
    assert [(record.name, record.levelname) for record in caplog.records] == [("outbox", "INFO")]
    assert caplog.messages == ["http.listening {'host': 'h', 'port': 1}"]


def test_the_throttle_grows_and_forgets() -> None:
    clock = Clock()
    throttle = Throttle(first=5.0, longest=20.0, clock=clock)
    passed = []
    for second in range(100):
        clock.now = 1_000.0 + second
        if throttle.passes("a"):
            passed.append(second)
    assert passed == [0, 5, 15, 35, 55, 75, 95]
    clock.now += 61
    assert throttle.passes("a")
    clock.now += 5
    assert throttle.passes("a")


def test_the_throttle_knows_kinds_apart() -> None:
    throttle = Throttle(clock=Clock())
    assert throttle.passes("a")
    assert throttle.passes("b")
    assert not throttle.passes("a")
