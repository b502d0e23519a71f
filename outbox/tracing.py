"""The trace that is current here, as W3C Trace Context says it (https://www.w3.org/TR/trace-context/).

OpenTelemetry is looked up and never imported: a service that traces has imported it already.
"""

from __future__ import annotations

import sys
from typing import Any


def current_trace() -> dict[str, str]:
    """Returns `traceparent` and `tracestate` of the current span, as far as there are any."""
    span = _current_span()
    if span is None:
        return {}
    found = {"traceparent": f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"}
    if state := span.trace_state.to_header():
        found["tracestate"] = state
    return found


def current_ids() -> dict[str, str]:
    """Returns `trace_id` and `span_id` of the current span for a log line, if there is one."""
    span = _current_span()
    return {} if span is None else {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}


def _current_span() -> Any:
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    span = trace.get_current_span().get_span_context()
    return span if span.is_valid else None
