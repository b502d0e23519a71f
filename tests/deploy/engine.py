"""A Docker engine for the checks of `deploy/`: the one that answers here, else one of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import programs, servers

START_SECONDS = 60.0
END_SECONDS = 60.0


@dataclass(frozen=True)
class Engine:
    """An engine, and the client that asks it."""

    client: str
    environment: Mapping[str, str] = field(default_factory=dict)

    def answers(self) -> bool:
        """Whether it takes commands."""
        command = [self.client, "info", "--format", "{{.ServerVersion}}"]
        asked = subprocess.run(  # noqa: S603
            command, env={**os.environ, **self.environment}, capture_output=True, check=False
        )
        return asked.returncode == 0

    def docker(self, *arguments: str, check: bool = True) -> str:
        """Ask it with that command of `docker`; what it printed."""
        return run([self.client, *arguments], self.environment, check=check)

    def compose(self, *arguments: str, check: bool = True, **variables: str) -> str:
        """Ask it with that command of `docker compose`, or of its forerunner."""
        plugin = subprocess.run([self.client, "compose", "version"], capture_output=True, check=False)  # noqa: S603
        command = [self.client, "compose"] if plugin.returncode == 0 else [_find("docker-compose")]
        return run([*command, *arguments], {**self.environment, **variables}, check=check)


def run(command: Sequence[str], environment: Mapping[str, str], *, check: bool = True) -> str:
    """Run a program to its end; what it printed. What it said of an error becomes the test's."""
    done = subprocess.run(  # noqa: S603
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout[-4_000:]}")
    return done.stdout


@contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """An engine that answers. What is started here has its data, its socket and its log in the folder."""
    if servers.docker_answers():
        yield Engine(shutil.which("docker") or _find("docker"))
        return
    if os.geteuid() != 0:
        servers.missing("no Docker engine answers, and only root may start one")
    address = f"unix://{folder}/docker.sock"
    # Its own bridge and the machine's packet filter stay as they are: a network is each system's own.
    options = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    places = [f"--{name}={folder / name}" for name in ("data-root", "exec-root", "pidfile")]
    with (folder / "log").open("wb") as log:
        engine = subprocess.Popen(  # noqa: S603
            [_find("dockerd"), *options, *places, f"--host={address}"], stdout=log, stderr=log
        )
    try:
        # Debian's client builds with what the engine has; a newer one would need a plugin for that.
        client = Engine(programs.find("docker", path="/usr/bin") or _find("docker"), {"DOCKER_HOST": address})
        _wait_for(engine, client, folder / "log")
        yield client
    finally:
        engine.terminate()
        try:
            engine.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            engine.kill()
            engine.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(engine: subprocess.Popen[bytes], client: Engine, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while not client.answers():
        if engine.poll() is not None or time.monotonic() > until:
            servers.missing(f"no Docker engine starts here: {log.read_text()[-2_000:]}")
        time.sleep(0.1)


def _find(program: str) -> str:
    return programs.find(program) or servers.missing(f"{program}: install {programs.package_of(program)}")
