"""What is published: archives in order, a wheel that works alone with each extra, and a lock that fits."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from outbox.distribution import DISTRIBUTION, VERSION
from tests.deploy.engine import run
from tests.support.manual import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
DEPLOY = ROOT / "deploy"

USES = {
    "": ["migrate", "--sql"],
    "kafka": ["relay"],
    "redis": ["relay"],
    "web": ["config"],
    "huleedu": ["huleedu", "gateway"],
    "demo": ["up", "--help"],
}
"""Each extra that a user may want → a command that needs it, or the least that there is."""


def locked(file: str) -> dict[str, Version]:
    """The versions in a lock, by the canonical names."""
    text = (DEPLOY / file).read_text()
    found = re.findall(
        r"^([\w.-]+)==(\S+?)(?: ; .*?)? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
        text,
        re.MULTILINE,
    )
    assert len(found) == text.count("==")
    return {canonicalize_name(name): Version(version) for name, version, _ in found}


def asked(*extras: str) -> Iterator[Requirement]:
    """What the project needs with these extras."""
    for line in (*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])):
        requirement = Requirement(line)
        if requirement.name == DISTRIBUTION:
            yield from asked(*requirement.extras)
        else:
            yield requirement


def test_the_lock_has_what_the_project_asks_for_with_hashes() -> None:
    versions = locked("requirements.txt")
    amiss = [
        str(each) for each in asked("huleedu") if versions[canonicalize_name(each.name)] not in each.specifier
    ]
    assert amiss == []
    (backend,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert locked("build.txt")["hatchling"] in Requirement(backend).specifier


def test_everything_says_one_version() -> None:
    chart = yaml.safe_load((DEPLOY / "chart" / "Chart.yaml").read_text())
    assert {chart["version"], chart["appVersion"], PROJECT["version"]} == {VERSION}


def test_the_workflow_publishes_without_a_token_what_was_checked() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    build, publish = workflow["jobs"]["build"], workflow["jobs"]["publish"]
    commands = [step["run"] for step in build["steps"] if "run" in step]
    assert [command for command in commands if "twine" in command or "build" in command] == [
        "python -m pip install build twine",
        "python -m build",
        "python -m twine check --strict dist/*",
    ]
    assert (publish["needs"], publish["permissions"]) == ("build", {"id-token": "write"})
    assert "secrets." not in json.dumps(workflow)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the sdist as a release builds it."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)], {})
    run([sys.executable, "-m", "twine", "check", "--strict", *map(str, folder.iterdir())], {})
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.mark.deploy
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("extra", USES, ids=lambda extra: extra or "none")
def test_the_wheel_works_in_an_empty_environment_with_each_extra_alone(
    wheel: Path, tmp_path: Path, extra: str
) -> None:
    venv.create(tmp_path / "alone", with_pip=True)
    programs = tmp_path / "alone" / "bin"
    what = f"{DISTRIBUTION}[{extra}] @ {wheel.as_uri()}" if extra else str(wheel)
    run([str(programs / "python"), "-m", "pip", "install", "--quiet", what], {})
    run([str(programs / "python"), "-m", "pip", "check"], {})
    outbox = str(programs / "outbox")
    assert f"version {VERSION}" in run([outbox, "--version"], {})
    said = run([outbox, *USES[extra]], {"OUTBOX_DATABASE_URL": "", "PATH": os.defpath}, check=False)
    assert "Traceback" not in said
    # What it wants is a setting, and never another package.
    assert "pip install" not in said


def test_each_extra_of_a_user_is_installed_alone() -> None:
    assert USES.keys() - {""} == EXTRAS.keys() - {"dev", "docs"}
