"""The browser client: what is committed is what its source builds, and its own tests pass."""

from __future__ import annotations

import filecmp
import shutil
import tarfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.support import servers
from tests.support.node import CLIENT, node, npm

PROJECT = Path(__file__).with_name("project")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client's source with its tools, apart from the tree."""
    folder = tmp_path_factory.mktemp("client") / "client"
    shutil.copytree(CLIENT, folder, ignore=shutil.ignore_patterns("node_modules", "dist", "build"))
    installed = npm(folder, "ci", "--no-progress")
    if installed.returncode:
        servers.missing(f"npm could not install the client's tools: {installed.stdout[-500:]}")
    return folder


@pytest.mark.parametrize("script", ["lint", "test"])
def test_the_clients_own_checks_pass(checkout: Path, script: str) -> None:
    done = npm(checkout, "run", script)
    assert done.returncode == 0, done.stdout


def test_what_is_committed_is_what_the_source_builds(checkout: Path) -> None:
    done = npm(checkout, "run", "build")
    assert done.returncode == 0, done.stdout
    built, committed = checkout / "dist", CLIENT / "dist"
    names = sorted(path.name for path in built.iterdir())
    assert names == sorted(path.name for path in committed.iterdir())
    _, different, broken = filecmp.cmpfiles(built, committed, names, shallow=False)
    assert not different + broken, "run `python -m tests.support.node run build` and commit `dist`"


def test_the_client_needs_nothing_else_and_names_no_registry() -> None:
    package, lock = (CLIENT / "package.json").read_text(), (CLIENT / "package-lock.json").read_text()
    assert '"dependencies"' not in package
    assert '"resolved"' not in lock
    assert "registry" not in lock
    for module in (CLIENT / "dist").glob("*.js"):
        assert "require(" not in module.read_text()


@pytest.fixture(scope="module")
def package(checkout: Path) -> Path:
    """The package, as it would be published."""
    built = npm(checkout, "run", "build")
    assert built.returncode == 0, built.stdout
    packed = npm(checkout, "pack", "--ignore-scripts")
    assert packed.returncode == 0, packed.stdout
    [file] = checkout.glob("*.tgz")
    return file


def test_the_package_has_what_is_run_and_read_and_nothing_else(package: Path) -> None:
    with tarfile.open(package) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    dist = {f"dist/{path.name}" for path in (CLIENT / "dist").iterdir()}
    assert names == dist | {"package.json", "README.md", "LICENSE"}
    assert (CLIENT / "LICENSE").read_text() == (CLIENT.parents[2] / "LICENSE").read_text()


@pytest.mark.parametrize("resolution", ["bundler", "nodenext"])
def test_a_project_installs_the_package_type_checks_against_it_and_runs_it(
    package: Path, tmp_path: Path, resolution: str
) -> None:
    project = tmp_path / "project"
    shutil.copytree(PROJECT, project)
    installed = npm(project, "install", "--offline", "--no-save", str(package))
    assert installed.returncode == 0, installed.stdout
    module = {"bundler": "esnext"}.get(resolution, resolution)
    checked = node(
        project,
        package.parent / "node_modules/typescript/bin/tsc",
        *("--project", ".", "--module", module, "--moduleResolution", resolution),
    )
    assert checked.returncode == 0, checked.stdout
    ran = node(project, "--eval", "import('./page.js').then(({ start }) => start().close())")
    assert ran.returncode == 0, ran.stdout


def test_the_wheel_carries_what_a_browser_loads() -> None:
    root = CLIENT.parents[2]
    shipped = {
        str(Path(file.distribution_path).relative_to("outbox/huleedu/client"))
        for file in WheelBuilder(str(root)).recurse_included_files()
        if "huleedu/client" in file.distribution_path
    }
    assert shipped == {f"dist/{path.name}" for path in (CLIENT / "dist").iterdir()}
    assert {"dist/client.js", "dist/client.d.ts"} <= shipped
