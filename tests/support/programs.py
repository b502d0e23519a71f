"""Programs that tests need and no wheel brings: the one list, and where each is found.

`python tests/support/programs.py` installs what is missing, where it may (Debian, as root).
"""

from __future__ import annotations

import os
import shutil
import subprocess

DEBIAN_PACKAGES = {
    "chromedriver": "chromium-driver",
    "chromium": "chromium",
    "pgbouncer": "pgbouncer",
}
"""Program → the Debian package that has it."""

PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"


def find(program: str) -> str | None:
    """The path of a program on the list, if it is installed."""
    if program not in DEBIAN_PACKAGES:
        raise LookupError(f"{program} is not on the list in tests/support/programs.py")
    return shutil.which(program, path=PATH)


def install() -> None:
    """Install what is missing; say what to do where that is not possible."""
    packages = [package for program, package in DEBIAN_PACKAGES.items() if find(program) is None]
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


if __name__ == "__main__":
    install()
