"""What columns of several tables have in common."""

from __future__ import annotations

from sqlalchemy import Column, DateTime, text

NOW = text("clock_timestamp()")
"""Every timestamp is the database's clock."""


def time(name: str, comment: str, **options: object) -> Column[object]:
    """Describes a timestamp."""
    return Column(name, DateTime(timezone=True), comment=comment, **options)  # type: ignore[arg-type]  # options of any kind
