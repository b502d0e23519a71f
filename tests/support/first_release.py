"""The first release as it was, to run beside this one on the same database.

The archive holds its relay, its operators' commands and its migration. It was made from the history, which
a shallow clone does not have, by

    git archive 62f3904 outbox migrations ':(exclude)*/huleedu*' ':(exclude)outbox/demo' \
        ':(exclude)outbox/devstack' ':(exclude)outbox/cli/up.py' | xz -9e > tests/migrate/first_release.tar.xz

It runs on the libraries of this version: one that no longer suits it needs another environment here.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tarfile
from pathlib import Path

VERSION = "0.1.0+first"
"""What it calls itself in `outbox_relays`."""

_ARCHIVE = Path(__file__).parents[1] / "migrate" / "first_release.tar.xz"


class FirstRelease:
    """The first release, unpacked into `folder`; `environment` lets a Python process run it."""

    def __init__(self, folder: Path) -> None:
        with tarfile.open(_ARCHIVE) as archive:
            archive.extractall(folder, filter="data")
        # It asks for its version by the name that the package had.
        about = folder / "outbox-0.1.0.dist-info" / "METADATA"
        about.parent.mkdir()
        about.write_text(f"Metadata-Version: 2.1\nName: outbox\nVersion: {VERSION}\n")
        self.environment = {"PYTHONPATH": str(folder)}

    async def migrate(self, url: str) -> None:
        """Bring a database to its schema."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "outbox",
            "migrate",
            cwd=self.environment["PYTHONPATH"],
            env=os.environ | self.environment | {"OUTBOX_DATABASE_URL": url},
        )
        assert await process.wait() == 0
