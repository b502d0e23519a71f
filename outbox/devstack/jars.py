"""Kafka's jars: fetched once from Maven Central by `jgo`, into its cache, and used from there.

Later starts need no network and resolve nothing. A download that breaks off leaves nothing half
done: it goes into a directory of its own, which gets its final name once it is complete. This
file is also the program that fetches them, so that it can be ended at any moment.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import MavenContext

KAFKA = "4.3.1"
SLF4J = "2.0.17"
COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA}", f"org.slf4j:slf4j-simple:{SLF4J}")


def jars_folder() -> Path:
    """Returns where the jars are, if they have been fetched."""
    return GlobalSettings.load().cache_dir / "outbox" / f"kafka-{KAFKA}-slf4j-{SLF4J}"


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
    """Fetches the jars (45 MB) if they are missing, a line for each step; the last tells what went wrong."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not jars_folder().is_dir():
            _fetch(jars_folder())
    except (OSError, RuntimeError) as error:
        reason = str(error).partition("\n")[0][:300] or type(error).__name__
        click.echo(
            f"Kafka's jars can't be had ({reason}): allow access to Maven Central, name a mirror as "
            "`central` in jgo's configuration, or set OUTBOX_KAFKA_BOOTSTRAP_SERVERS to a Kafka of yours"
        )
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
