"""What package indexes call this, the version that runs, and how one of its extras is installed."""

from importlib.metadata import PackageNotFoundError, version
from typing import Literal

DISTRIBUTION = "outbox-relay"
"""Its name on package indexes, where `outbox` is somebody else's; the import and the command are `outbox`."""

Extra = Literal["kafka", "redis", "web", "huleedu", "demo"]


def install(extra: Extra) -> str:
    """Returns the command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


def _version() -> str:
    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:  # A source tree on PYTHONPATH is nothing that was installed.
        return "unknown"


VERSION = _version()
"""Read once: an upgrade in place takes the metadata away while a relay runs."""
