from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any

import click

from tests import faults
from tests.faults.campaign import Campaign, Say
from tests.faults.kinds import BY_HAND, KINDS
from tests.faults.place import place
from tests.support.first_release import FirstRelease


@click.command(help=faults.__doc__)
@click.option("--seconds", default=120.0, show_default=True, help="For how long faults come.")
@click.option("--seed", default=1, show_default=True, help="Which ones come, and when.")
@click.option("--first-release", is_flag=True, help="With a relay of the first release beside.")
@click.option("--hands", is_flag=True, help="With somebody's hand in the tables.")
def main(seconds: float, seed: int, *, first_release: bool, hands: bool) -> None:
    began = monotonic()

    def say(text: str) -> None:
        print(f"{monotonic() - began:7.1f} s  {text}", file=sys.stderr, flush=True)

    found = asyncio.run(run(seconds, seed, say, first_release=first_release, hands=hands))
    print(json.dumps(found))
    sys.exit(bool(found["lost"] or found["inversions"]))


async def run(
    seconds: float, seed: int, say: Say, *, first_release: bool = False, hands: bool = False
) -> dict[str, Any]:
    """One campaign; returns what it found."""
    with _folder() as folder:
        async with place(folder) as where:
            if first_release:
                (folder / "first").mkdir()
                where.beside = FirstRelease(folder / "first").environment
            kinds = {**KINDS, **BY_HAND} if hands else KINDS
            campaign = Campaign(where, Random(seed), say, kinds)  # noqa: S311 - chance in tests
            findings = await campaign.run(seconds)
    return {
        "seconds": seconds,
        "seed": seed,
        "faults": dict(campaign.done),
        "written": findings.written,
        "repeated": findings.repeated,
        "lost": len(findings.lost),
        "inversions": len(findings.inversions),
    }


@contextmanager
def _folder() -> Iterator[Path]:
    with TemporaryDirectory(prefix="outbox-faults-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # PostgreSQL runs from it as a user without rights.
        yield folder


if __name__ == "__main__":
    main()
