"""What HuleEdu's services raise on purpose, beside the core's errors."""

from __future__ import annotations


class Unacceptable(Exception):
    """What an event says cannot be applied, however often it is tried; says why."""
