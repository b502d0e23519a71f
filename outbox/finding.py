"""What somebody who examines a system finds: how bad it is, one sentence, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "unknown"]
"""How bad it is.

- `error`: deliveries do not go out, or may be lost or out of order
- `warning`: it works, and costs, or will hurt one day
- `unknown`: it could not be looked at, for want of a right or of time
"""


_SKEW_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    severity: Severity
    sentence: str
    """What is wrong, without payload or secret."""
    remedy: str
    """A command where there is one, or what else to do."""
    check: str = ""
    """Which check found it; whoever runs the checks fills it in."""


def skew(whose: str, ahead: float, wrong: float) -> Iterator[Finding]:
    """Says how far this host's clock is from another's, if it is.

    The other one is `ahead` by so many seconds, which may be `wrong` by so many.
    """
    if abs(ahead) - wrong > _SKEW_SECONDS:
        where = "behind" if ahead > 0 else "ahead of"
        yield Finding(
            "warning",
            f"This host's clock is {abs(ahead):.1f} s {where} that of {whose}.",
            "have both follow one clock: timedatectl set-ntp true; chronyc tracking",
        )
