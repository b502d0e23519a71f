"""A service of HuleEdu whose end takes for ever: `endless.py huleedu els`."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module

from outbox.cli import main


async def hang(*_: object) -> None:
    await asyncio.Event().wait()


if __name__ == "__main__":
    name = sys.argv[-1]
    service = getattr(import_module(f"outbox.huleedu.{name}.service"), name.title())
    service.__aexit__ = hang
    main()
