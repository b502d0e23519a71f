from __future__ import annotations

import subprocess
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from outbox.tracing import current_ids, current_trace

WITHOUT = """
import sys
from outbox.tracing import current_ids, current_trace
print(current_trace(), current_ids(), any(name.startswith("opentelemetry") for name in sys.modules))
"""


def test_the_current_span_as_headers_and_as_fields_of_a_log_line() -> None:
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("work") as span:
        found = span.get_span_context()
        ids = f"{found.trace_id:032x}-{found.span_id:016x}"
        assert current_trace() == {"traceparent": f"00-{ids}-{found.trace_flags:02x}"}
        assert current_ids() == {"trace_id": f"{found.trace_id:032x}", "span_id": f"{found.span_id:016x}"}


def test_what_vendors_add_goes_on() -> None:
    state = TraceState([("vendor", "1")])
    context = SpanContext(7, 8, is_remote=False, trace_flags=TraceFlags(0), trace_state=state)
    with trace.use_span(NonRecordingSpan(context)):
        assert current_trace() == {"traceparent": f"00-{7:032x}-{8:016x}-00", "tracestate": "vendor=1"}


def test_without_a_span_there_is_nothing() -> None:
    assert (current_trace(), current_ids()) == ({}, {})


def test_opentelemetry_is_not_needed_and_not_imported() -> None:
    command = [sys.executable, "-c", WITHOUT]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (our own program)
    assert done.stdout == "{} {} False\n"
