"""Carries the W3C trace context of the event that came to those that follow from it.

https://www.w3.org/TR/trace-context/ . A service that makes spans of its own by OpenTelemetry goes before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from outbox.tracing import current_trace

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-[0-9a-f]{2}")
_TRACESTATE_LONGEST = 512

_received: ContextVar[Mapping[str, str]] = ContextVar("trace context", default={})  # noqa: B039 (never changed)


def trace() -> dict[str, str]:
    """Returns `traceparent` and `tracestate` for what is written now, as far as there are any."""
    return current_trace() or dict(_received.get())


@contextmanager
def continued(*carriers: Mapping[str, object]) -> Iterator[None]:
    """Goes on, within the block, with the trace of the first carrier that has one."""
    token = _received.set(trace_of(*carriers))
    try:
        yield
    finally:
        _received.reset(token)


def trace_of(*carriers: Mapping[str, object]) -> Mapping[str, str]:
    """Returns the trace of the first carrier that has one."""
    return next(filter(None, map(_extracted, carriers)), {})


def ids_of(trace: Mapping[str, str]) -> dict[str, str]:
    """Returns a trace's ids, as log lines name them."""
    match = _TRACEPARENT.fullmatch(trace.get("traceparent", ""))
    return {"trace_id": match["trace"], "span_id": match["span"]} if match else {}


def _extracted(carrier: Mapping[str, object]) -> dict[str, str]:
    parent, state = carrier.get("traceparent"), carrier.get("tracestate")
    if not isinstance(parent, str) or not _TRACEPARENT.fullmatch(parent):
        return {}
    # It is worth nothing on its own, and not worth a failure.
    if not isinstance(state, str) or not state.isascii() or not 0 < len(state) <= _TRACESTATE_LONGEST:
        return {"traceparent": parent}
    return {"traceparent": parent, "tracestate": state}
