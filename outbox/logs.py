"""How log lines look, for our own events and for every library's: JSON, or for a terminal.

One handler on stderr renders the standard library's records as structlog renders ours, so that an
aiokafka warning has the same fields as an event of ours. Only a process of our own calls
`configure_logging`; a relay inside a service logs the way the service does.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Collection, Hashable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, TextIO
from uuid import UUID

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from outbox.settings import masked
from outbox.terminal import visible
from outbox.tracing import current_ids

CHATTY = ("aiokafka", "asyncio", "alembic", "uvicorn")
"""Libraries that say the same again and again while a server is away."""


class LogSettings(Protocol):
    """What of a service's settings concerns its logs."""

    @property
    def log_level(self) -> str:
        """The least that is logged: debug, info, warning or error."""

    @property
    def log_format(self) -> str:
        """The form of a line: `json`, `console`, or `auto`."""

    @property
    def service_name(self) -> str:
        """The `service.name` in each line."""

    @property
    def environment(self) -> str:
        """The `deployment.environment` in each line."""


def configure_logging(settings: LogSettings) -> None:
    """Sends all of this process's logs to stderr, in the form and from the level that settings ask for."""
    pretty = settings.log_format == "console" or (settings.log_format == "auto" and sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_trace,
    ]
    if not pretty:
        shared.append(_Stamp(settings))
    handler = logging.StreamHandler(sys.stderr)
    lines = _Lines(handler)
    structlog.configure(
        processors=[*shared, *_renderers(pretty=pretty)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    handler.addFilter(Calm())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(pretty=pretty),
            ],
        )
    )
    sys.excepthook = _log_crash
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    for name in CHATTY:
        # Their info is our debug: connections opened, metadata updated, statements run.
        logging.getLogger(name).setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))


class _Lines:
    """Writes our own lines where the handler writes others', without making records of them.

    That takes less than half the time, which counts where each of many uploads has its line.
    """

    def __init__(self, handler: logging.StreamHandler[TextIO]) -> None:
        self._handler = handler

    def write(self, line: str) -> None:
        """Writes a line. Where that fails nobody is left to be told; so does the standard library."""
        handler = self._handler
        # OSError of a pipe whose reader is gone, ValueError of a stream that is closed.
        with suppress(OSError, ValueError):
            handler.acquire()
            try:
                handler.stream.write(f"{line}\n")
                handler.flush()
            finally:
                handler.release()

    debug = info = warning = error = critical = write


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, Exception):
        structlog.get_logger("outbox").critical("crashed", exc_info=(kind, error, trace))
    else:
        sys.__excepthook__(kind, error, trace)


_encode = json.JSONEncoder(default=str).encode


def _json(event: EventDict, **_: object) -> str:
    return _encode(event)


def _renderers(*, pretty: bool) -> list[Processor]:
    # Rich's tracebacks would show local variables, and passwords among them.
    plain = structlog.dev.plain_traceback
    renderer: Processor = (
        structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), sort_keys=False, exception_formatter=plain)
        if pretty
        else structlog.processors.JSONRenderer(_json)
    )
    shown = [_shown] if pretty else []  # JSON has escapes of its own.
    return [structlog.processors.format_exc_info, tidy, *shown, renderer]


def add_trace(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Adds `trace_id` and `span_id` where OpenTelemetry is in use and a span is current."""
    for name, value in current_ids().items():
        event.setdefault(name, value)
    return event


def tidy(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Takes passwords out of every URL in the line; ids become text and sets lists."""
    for key, value in event.items():
        # Nearly all are texts, and not of a URL.
        if isinstance(value, str):
            if "://" in value:
                event[key] = masked(value)
        elif isinstance(value, UUID):
            event[key] = str(value)
        elif isinstance(value, set | frozenset):
            event[key] = list(value)
    if "lanes" in event:
        event["lanes"] = ranges(event["lanes"])
    return event


def ranges(numbers: Collection[int]) -> str:
    """Returns whole numbers in short: `0-3, 7`."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][-1] + 1:
            parts[-1][1:] = [number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _shown(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Has a terminal show what it would obey; a traceback keeps its lines."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = visible(value, keep="\n" if key in ("exception", "stack") else "")
    return event


class _Stamp:
    """Adds which service in which environment speaks, under OpenTelemetry's names."""

    def __init__(self, settings: LogSettings) -> None:
        self._who = {
            "service.name": settings.service_name,
            "deployment.environment": settings.environment,
        }

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        first = {key: event.pop(key) for key in ("timestamp", "level", "event") if key in event}
        return {**first, **event, **self._who}


class Throttle:
    """Lets a repeated line through at growing intervals, so that an outage does not fill the log.

    The first of its kind passes, then one after 5 s, 10 s, … up to one in 5 minutes. A kind that was
    not heard of for a minute, or for twice its interval if that is longer, is new again.
    """

    def __init__(
        self,
        first: float = 5.0,
        longest: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._first = first
        self._longest = longest
        self._clock = clock
        self._known: dict[Hashable, tuple[float, float, float]] = {}

    def passes(self, kind: Hashable) -> bool:
        """Returns True if a line of this kind is to be let through now."""
        now = self._clock()
        said, wait, heard = self._known.get(kind, (0.0, 0.0, 0.0))
        if not wait or now - heard > max(60.0, 2 * wait):
            self._forget_old(now)
            self._known[kind] = (now, self._first, now)
            return True
        if now - said < wait:
            self._known[kind] = (said, wait, now)
            return False
        self._known[kind] = (now, min(2 * wait, self._longest), now)
        return True

    def _forget_old(self, now: float) -> None:
        old = now - 2 * self._longest
        self._known = {kind: times for kind, times in self._known.items() if times[2] > old}


class Calm(logging.Filter):
    """Thins out what chatty libraries repeat, and calls their errors warnings.

    That a broker is away is told by our own events; aiokafka says it per connection and per
    second, at error level.
    """

    def __init__(self) -> None:
        super().__init__()
        self._throttle = Throttle()

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns True if the record is to be shown."""
        if record.name.partition(".")[0] not in CHATTY:
            return True
        if record.name.startswith("aiokafka") and record.levelno == logging.ERROR:
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return self._throttle.passes((record.name, record.msg))
