"""The pages of the manual that are made from the code: every setting, and every metric.

`python -m tests.support.reference` writes them into `docs/`; a test compares.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from inspect import getdoc
from itertools import groupby
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from pydantic.fields import FieldInfo

from outbox.observe import REGISTRY
from outbox.settings import Seconds, ServiceSettings, Settings, Variable
from tests.support.settings import every_settings

COMMAND = "python -m tests.support.reference"
DOCS = Path(__file__).parent.parent.parent / "docs"

_MADE = f"<!-- Made from the code by `{COMMAND}`: change what is said there. -->"

_SETTINGS = f"""\
# Settings

{_MADE}

Settings are environment variables, or lines of the file `.env` in the working directory. The environment
wins, and an empty variable is not set. A wrong value ends the process at once, with a line that names the
variable and what is allowed. A variable that has the prefix and is no setting gets a warning, with the
nearest name.

- A duration is seconds, or has a unit (`500ms`, `30s`, `15m`, `12h`, `7d`, `2w`), or is ISO 8601 (`P7D`).
- What every sink has may be set for all (`OUTBOX_MAX_RETRIES`) or for one (`OUTBOX_REDIS_MAX_RETRIES`). Of a
  sink that `OUTBOX_SINKS` names `hook`, each `OUTBOX_HOOK_…` goes to its class as well.
- What Kubernetes tells of a service named `outbox` (`OUTBOX_SERVICE_HOST`, `OUTBOX_PORT_8081_TCP` and so on)
  is no setting. Where it takes the name of one, as `GATEWAY_PORT=tcp://10.96.0.7:8080` does, the default is
  in force and the log says so; set the variable in the container, or `enableServiceLinks: false` in its pod.

`outbox config` prints the outbox's own that are in force, and where each came from, without secrets. A
service's own are read in the same way if their class derives from `outbox.settings.ServiceSettings`.
"""

_METRICS = f"""\
# Metrics

{_MADE}

In Prometheus' text format, under `/metrics` of each process, beside `process_…` (CPU, memory, open files).
No message, user or correlation id is ever a label. A histogram's samples end in `_bucket`, `_sum` and
`_count`.
"""


def pages() -> dict[str, str]:
    """Return what must stand in the files of `docs/`, by their names."""
    return {
        "settings.md": "\n".join([_SETTINGS, *(line for each in every_settings() for line in _told(each))]),
        "metrics.md": "\n".join([_METRICS, *(line for each in every_settings() for line in _counted(each))]),
    }


def _told(settings: type[ServiceSettings]) -> Iterator[str]:
    yield f"## {_heading(settings)}: `{settings.prefix}…`\n"
    variables = (each for each in settings.variables({}) if each.always)
    for section, members in groupby(variables, key=lambda each: each.section):
        if section is not settings:
            yield f"{_first_line(section)}\n"
        yield from _table(
            ("variable", "default", "allowed", "meaning"),
            (_row(each) for each in members),
        )


def _row(variable: Variable) -> tuple[str, ...]:
    field = variable.field
    return f"`{variable.name}`", _default(field), _allowed(field), field.description or ""


def _counted(settings: type[ServiceSettings]) -> Iterator[str]:
    yield f"## {_heading(settings)}\n"
    yield from _table(
        ("metric", "kind", "labels", "meaning"),
        (
            (
                f"`{metric._name}{'_total' if metric._type == 'counter' else ''}`",
                str(metric._type),
                ", ".join(f"`{label}`" for label in metric._labelnames),
                metric._documentation,
            )
            for metric in _registry(settings)._collector_to_names
            if isinstance(metric, MetricWrapperBase)
        ),
    )


def _registry(settings: type[ServiceSettings]) -> CollectorRegistry:
    if settings is Settings:
        return REGISTRY
    room = settings.__module__.rpartition(".")[0]
    for module in iter_modules(import_module(room).__path__, f"{room}."):
        import_module(module.name)  # Whoever counts anything.
    registry = import_module(f"{room}.metrics").REGISTRY
    assert isinstance(registry, CollectorRegistry)
    return registry


def _heading(settings: type[Any]) -> str:
    whose = _first_line(settings).removeprefix("The settings of ").removesuffix(".")
    return f"{whose[0].upper()}{whose[1:]}"


def _first_line(section: type[Any]) -> str:
    return (getdoc(section) or "").partition("\n")[0]


def _default(field: FieldInfo) -> str:
    match field.default:
        case _ if field.is_required():
            return "**needed**"
        case None | "" | ():
            return ""
        case bool(value):
            return f"`{str(value).lower()}`"
        case float(value):
            return f"`{value:.10g}`"
        case tuple(words):
            return f"`{','.join(words)}`"
        case value:
            return f"`{value}`"


def _allowed(field: FieldInfo) -> str:
    if get_origin(field.annotation) is Literal:
        return ", ".join(f"`{each}`" for each in get_args(field.annotation))
    if field.annotation is bool:
        return "`true`, `false`"
    if get_origin(field.annotation) is tuple:
        return "words, separated by commas"
    if field.annotation in (int, float):
        kind = "duration" if get_args(Seconds)[1] in field.metadata else "number"
        return f"{kind}{_limits(field)}"
    return ""


def _limits(field: FieldInfo) -> str:
    limits = {type(each): each for each in field.metadata}
    match limits.get(Ge), limits.get(Le):
        case Ge(least), Le(most):
            return f", {least} to {most}"
        case Ge(least), None:
            return f", at least {least}"
    return ", more than 0" if Gt in limits else ""


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        cells = (" ".join(cell.replace("|", "\\|").split()) for cell in row)
        yield f"| {' | '.join(cells)} |"
    yield ""


if __name__ == "__main__":
    for name, text in pages().items():
        DOCS.mkdir(exist_ok=True)
        (DOCS / name).write_text(text)
