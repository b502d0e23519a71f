"""Programs that tests need and no wheel brings: the one list, and where each is found.

`python tests/support/programs.py` installs what is missing, where it may (Debian, as root); with `deploy`
after it, what the checks of `deploy/` need besides.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

DEBIAN_PACKAGES = {
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "pgbouncer": "pgbouncer",
    "promtool": "prometheus",
}
"""Program → the Debian package that has it."""

DEPLOY_PACKAGES = {
    "docker": "docker.io",
    "docker-compose": "docker-compose",
    "dockerd": "docker.io",
    "iptables": "iptables",
    "mmdebstrap": "mmdebstrap",
}
"""The same for the checks of `deploy/`."""

GO_PACKAGES = {"helm": "helm.sh/helm/v3/cmd/helm@v3.22.0"}
"""What they need that Debian does not have: program → the Go package that `go install` builds it from."""

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin:{Path.home() / 'go' / 'bin'}"


def package_of(program: str) -> str:
    """The package of Debian's, or of Go, that has a program on the list."""
    package = {**DEBIAN_PACKAGES, **DEPLOY_PACKAGES, **GO_PACKAGES}.get(program)
    if package is None:
        raise LookupError(f"{program} is not on the list in tests/support/programs.py")
    return package


def find(program: str, path: str = PATH) -> str | None:
    """The path of a program on the list, if it is installed."""
    return shutil.which(program, path=path) if package_of(program) else None


def install(listed: dict[str, str]) -> None:
    """Install what is missing; say what to do where that is not possible."""
    packages = sorted({package for program, package in listed.items() if find(program) is None})
    if not packages:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"Not installed, so some tests will be skipped: {', '.join(packages)}")
        return
    # Run level 1 keeps Debian from starting their services.
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *packages]):
        subprocess.run(  # noqa: S603
            ["apt-get", *command],  # noqa: S607
            check=True,
            env=environment,
            stdin=subprocess.DEVNULL,
        )


def build() -> None:
    """Build what Go is to build and is missing, into Go's own folder; say what to do where there is no Go."""
    packages = [package for program, package in GO_PACKAGES.items() if find(program) is None]
    go = shutil.which("go", path=f"{PATH}:/usr/local/go/bin")
    if packages and go is None:
        print(f"No Go here to build it, so some tests will be skipped: {', '.join(packages)}")
        return
    for package in packages:
        subprocess.run(  # noqa: S603
            [str(go), "install", package],
            check=True,
            env={**os.environ, "GOBIN": str(Path.home() / "go" / "bin")},
            stdin=subprocess.DEVNULL,
        )


if __name__ == "__main__":
    if sys.argv[1:] == ["deploy"]:
        install(DEPLOY_PACKAGES)
        build()
    else:
        install(DEBIAN_PACKAGES)
