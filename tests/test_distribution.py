"""What is installed is what is said: the name, the extras, the archives, and the commands without extras."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires, version
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from outbox import distribution
from outbox.cli import main
from outbox.distribution import DISTRIBUTION, VERSION, Extra, install

ROOT = Path(__file__).parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def test_the_version_is_what_was_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert version(DISTRIBUTION) == VERSION == PROJECT["version"]
    monkeypatch.setattr(sys, "path", [])
    assert runpy.run_path(distribution.__file__)["VERSION"] == "unknown"


def test_the_name_and_the_extras_are_those_of_the_project() -> None:
    assert PROJECT["name"] == DISTRIBUTION
    assert {*get_args(Extra), "dev", "docs"} == set(EXTRAS)


# What is said of installing

SAYING = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile", "pyproject.toml")
SAYING_FOLDERS = ("docs", "outbox", "migrations", "deploy", ".github")
SUFFIXES = ("", ".md", ".py", ".sh", ".toml", ".yaml", ".yml")
# Of Prometheus is what has a time in brackets.
REQUIREMENT = re.compile(r"(outbox[\w-]*|(?<=['\"])\.)\[(?!\d+[smhd]\])([\w, -]+)\]")
INSTALL = re.compile(r"pip install (?:-\S+ )*['\"]?(?!\S*\.(?:txt|whl))([\w.][\w.-]*)")
EXTRA = re.compile(r"\bextra `([\w-]+)`|`([\w-]+)` extra\b")

MAY_BE_INSTALLED = {".", DISTRIBUTION} | {
    Requirement(line).name for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines
}


def wrong(text: str) -> set[str]:
    """What that text says of installing and is not so: names, and extras that are not there."""
    required = REQUIREMENT.findall(text)
    names = {name for name, _ in required} | set(INSTALL.findall(text))
    extras = {extra for _, listed in required for extra in re.split(r"\s*,\s*", listed)}
    extras |= {one or other for one, other in EXTRA.findall(text)}
    return (names - MAY_BE_INSTALLED) | (extras - set(EXTRAS))


@pytest.mark.parametrize(
    ("line", "finds"),
    [
        (f"{install('web')}, {install('kafka')}; pip install --quiet -e '.[dev]'", set()),
        (
            "pip install --requirement deploy.txt; pip install dist/any.whl; rate(outbox_events_total[5m])",
            set(),
        ),
        ("pip install outbox", {"outbox"}),
        ("python -m pip install --upgrade 'outbox[kafka, redis]'", {"outbox"}),
        ("outbox-relay[kafka,reddis]", {"reddis"}),
        ("install outbox_relay[web]", {"outbox_relay"}),
        ("`pip install embeded-postgres`, or", {"embeded-postgres"}),
        ("needs the extra `www`, or the `ui` extra", {"www", "ui"}),
    ],
)
def test_a_wrong_line_is_found(line: str, finds: set[str]) -> None:
    assert wrong(line) == finds


def test_every_line_on_installing_is_right() -> None:
    within = (path for folder in SAYING_FOLDERS for path in (ROOT / folder).rglob("*"))
    texts = [
        path
        for path in (*(ROOT / name for name in SAYING), *within)
        if path.suffix in SUFFIXES and path.is_file() and "node_modules" not in path.parts
    ]
    assert len(texts) > 100
    found = {str(path): wrong(path.read_text("utf-8")) for path in texts}
    assert {path: words for path, words in found.items() if words} == {}


# The archives


def python(*arguments: str, cwd: Path, **environment: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(  # noqa: S603 - ours
        command, cwd=cwd, env=environment or None, check=True, capture_output=True, text=True
    ).stdout


def build(target: str, source: Path, folder: Path) -> Path:
    python("-m", "hatchling", "build", "--target", target, "--directory", str(folder), cwd=source)
    (made,) = folder.iterdir()
    return made


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_sdist_makes_the_same_wheel_and_it_installs(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", ROOT, tmp_path / "sdist")) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("outbox_relay-*")
    wheel = build("wheel", source, tmp_path / "wheel")
    assert contents(wheel) == contents(build("wheel", ROOT, tmp_path / "other"))
    site = tmp_path / "site"
    install_it = (
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        f"--target={site}",
        str(wheel),
    )
    python(*install_it, cwd=tmp_path)

    def outbox(*arguments: str) -> str:
        return python(str(site / "bin" / "outbox"), *arguments, cwd=tmp_path, PYTHONPATH=str(site))

    assert f"version {VERSION}" in outbox("--version")
    assert "Exit codes:" in outbox("--help")
    assert "CREATE TABLE outbox " in outbox("migrate", "--sql")


def test_every_path_that_the_build_names_is_there() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    named = [*wheel["packages"], *wheel["force-include"], *wheel["exclude"], *PROJECT["license-files"]]
    patterns = [path.removeprefix("!").removeprefix("/") for path in (*named, PROJECT["readme"])]
    assert [path for path in patterns if not any(ROOT.glob(path))] == []


# Without extras

BARE = """
import json, sys
sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))
from click.testing import CliRunner
from outbox.cli import main
results = {words[-1]: CliRunner().invoke(main, words) for words in json.loads(sys.argv[2])}
print(json.dumps({name: (result.exit_code, result.output) for name, result in results.items()}))
"""
NEEDS = {"up": "demo", "relay": "kafka"} | dict.fromkeys(("els", "ras", "gateway", "page", "list"), "huleedu")


def commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, *path, name)
        else:
            yield (*path, name)


def needed_by(requirement: Requirement) -> Iterator[Requirement]:
    """What a distribution needs for the extras that are asked of it."""
    for needed in map(Requirement, requires(requirement.name) or ()):
        extras = requirement.extras or {""}
        if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in extras):
            yield needed


def modules_of_extras() -> list[str]:
    """What can be imported here and comes with an extra only."""
    alone, waiting = set(), {Requirement(DISTRIBUTION)}
    while waiting:
        alone.add(requirement := waiting.pop())
        waiting |= set(needed_by(requirement)) - alone
    names = {canonicalize_name(requirement.name) for requirement in alone}
    found = packages_distributions().items()
    return [module for module, by in found if names.isdisjoint(map(canonicalize_name, by))]


def test_a_command_whose_extra_is_missing_names_it(tmp_path: Path) -> None:
    away = "127.0.0.1:1"
    environment = {
        "OUTBOX_DATABASE_URL": f"postgresql://{away}/none",
        "OUTBOX_KAFKA_BOOTSTRAP_SERVERS": away,
    }
    paths = list(commands(main))
    said = python("-c", BARE, json.dumps(modules_of_extras()), json.dumps(paths), cwd=tmp_path, **environment)
    results = json.loads(said)
    # The doctor goes on without, and tells it as a finding.
    assert {name for name, (_, output) in results.items() if "pip install" in output} == {*NEEDS, "doctor"}
    for name, (code, output) in results.items():
        assert code in (0, 1, 2)
        assert "Traceback" not in output
        if name in NEEDS:
            (line,) = output.splitlines()
            assert line.startswith("Error: ")
            assert f"'{DISTRIBUTION}[{NEEDS[name]}]'" in line
