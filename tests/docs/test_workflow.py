"""What a forge would run is what .ci/run runs, on what the package says it supports."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import yaml

from outbox.devstack.postgres import OLDEST_MAJOR, version_of, wheel_binaries
from tests.support.manual import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"


def jobs() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]
    return found


def matrix(name: str) -> set[str]:
    found = jobs()["test"]["strategy"]["matrix"]
    return {*found[name], *(each[name] for each in found["include"])}


def test_the_workflow_makes_what_ci_makes() -> None:
    steps = [step.get("run", "") for job in jobs().values() for step in job["steps"]]
    made = re.findall(r"^make ([\w-]+)", "\n".join(steps), re.MULTILINE)
    assert sorted(made) == sorted(
        re.findall(r"^make ([\w-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    )
    assert set(made) <= set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_the_workflow_runs_every_python_that_is_classified() -> None:
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    assert matrix("python") == {
        version for each in classifiers if re.fullmatch(r"3\.\d+", version := each.rpartition(" ")[2])
    }


def test_the_workflow_runs_every_postgresql_from_the_oldest_to_the_newest() -> None:
    binaries = wheel_binaries()
    assert binaries
    newest, *_ = version_of(binaries)
    assert matrix("postgres") == {str(major) for major in range(OLDEST_MAJOR, newest + 1)}
