"""Kafka's jars: fetched once from Maven Central by `jgo`, into its cache, and used from there.

Later starts need no network and resolve nothing. A download that breaks off leaves nothing half
done: it goes into a directory of its own, which gets its final name once it is complete.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import MavenContext

from outbox.devstack.server import DevstackError

KAFKA = "4.3.1"
SLF4J = "2.0.17"
COORDINATES = (f"org.apache.kafka:kafka_2.13:{KAFKA}", f"org.slf4j:slf4j-simple:{SLF4J}")
TO_GO_ON = (
    "allow access to Maven Central (or name a mirror as `central` in jgo's configuration), or set "
    "OUTBOX_KAFKA_BOOTSTRAP_SERVERS to a Kafka of yours"
)


def kafka_jars(report: Callable[[str], None]) -> Path:
    """The directory of Kafka's jars, which are fetched if they are not there (45 MB)."""
    settings = GlobalSettings.load()
    jars = settings.cache_dir / "outbox" / f"kafka-{KAFKA}-slf4j-{SLF4J}"
    if not jars.is_dir():
        try:
            _fetch(jars, settings.repositories, report)
        except (OSError, RuntimeError) as error:
            raise DevstackError(f"Kafka's jars can't be had ({_short(error)}): {TO_GO_ON}") from error
    return jars


def _fetch(jars: Path, mirrors: dict[str, str], report: Callable[[str], None]) -> None:
    jars.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=jars.parent) as work:
        report("finding Kafka's jars")
        artifacts = _resolve(Path(work) / "repository", mirrors)
        complete = Path(work) / "jars"
        complete.mkdir()
        with ThreadPoolExecutor(4) as pool:
            for count, jar in enumerate(pool.map(lambda artifact: artifact.resolve(), artifacts), start=1):
                shutil.move(jar, complete)
                report(f"fetched {count} of {len(artifacts)} jars of Kafka")
        # Somebody else may have been quicker.
        if not jars.is_dir():
            complete.rename(jars)


def _resolve(repository: Path, mirrors: dict[str, str]) -> list[Any]:
    context = MavenContext(repo_cache=repository, remote_repos={"central": MAVEN_CENTRAL_URL, **mirrors})
    named, others = context.resolver.resolve([context.create_dependency(name) for name in COORDINATES])
    needed = [*named, *(other for other in others if other.scope in ("compile", "runtime"))]
    return [dependency.artifact for dependency in needed]


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__
