"""Kafka's jars: fetched once from Maven Central by `jgo`, into its cache, and used from there.

Later starts need no network and resolve nothing. A download that breaks off leaves nothing half
done: it goes into a directory of its own, which gets its final name once it is complete. It runs
in a process of its own (`python -m outbox.devstack.jars`), which can be ended at any moment.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import MavenContext

from outbox.errors import DevstackError

KAFKA = "4.3.1"
SLF4J = "2.0.17"
COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA}", f"org.slf4j:slf4j-simple:{SLF4J}")


async def kafka_jars(report: Callable[[str], None]) -> Path:
    """The directory of Kafka's jars; `report` hears how their download goes (45 MB) if it is needed."""
    jars = _place()
    if not jars.is_dir():
        await _fetch_apart(report)
    return jars


def _place() -> Path:
    return GlobalSettings.load().cache_dir / "outbox" / f"kafka-{KAFKA}-slf4j-{SLF4J}"


async def _fetch_apart(report: Callable[[str], None]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, stdout=asyncio.subprocess.PIPE
    )
    said = "it said nothing"
    try:
        assert process.stdout is not None  # noqa: S101 - for mypy
        async for line in process.stdout:
            report(said := line.decode().strip())
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if code != 0:
        raise DevstackError(
            f"Kafka's jars can't be had ({said}): allow access to Maven Central, name a mirror as "
            "`central` in jgo's configuration, or set OUTBOX_KAFKA_BOOTSTRAP_SERVERS to a Kafka of yours"
        )


def _fetch(jars: Path) -> None:
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=jars.parent) as work:
        click.echo("looking for Kafka's jars")
        artifacts = _resolve(Path(work) / "repository")
        complete = Path(work) / "jars"
        complete.mkdir()
        with ThreadPoolExecutor(4) as pool:
            for count, jar in enumerate(pool.map(lambda artifact: artifact.resolve(), artifacts), start=1):
                shutil.move(jar, complete)
                click.echo(f"fetched {count} of {len(artifacts)} jars")
        # Somebody else may have been quicker.
        if not jars.is_dir():
            complete.rename(jars)


def _resolve(repository: Path) -> list[Any]:
    remotes = {"central": MAVEN_CENTRAL_URL, **GlobalSettings.load().repositories}
    context = MavenContext(repo_cache=repository, remote_repos=remotes)
    named, others = context.resolver.resolve([context.create_dependency(name) for name in COORDINATES])
    needed = [*named, *(other for other in others if other.scope in ("compile", "runtime"))]
    return [dependency.artifact for dependency in needed]


def main() -> int:
    """Fetch the jars if they are not there, a line for each step; the last one is the error, if any."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    jars = _place()
    try:
        if not jars.is_dir():
            _fetch(jars)
    except (OSError, RuntimeError) as error:
        click.echo(str(error).partition("\n")[0][:300] or type(error).__name__)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
