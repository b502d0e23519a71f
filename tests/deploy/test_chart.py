"""What the chart makes of its values is what Kubernetes takes, and as safe as it says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from outbox.distribution import VERSION
from outbox.settings import Settings
from tests.deploy.engine import run
from tests.deploy.images import DEPLOY
from tests.support import programs, servers

pytestmark = pytest.mark.deploy

CHART = DEPLOY / "chart"
KUBERNETES = ("1.29", "1.33")
OWN = {"ServiceMonitor", "PrometheusRule"}
"""Of the Prometheus operator, whose schemas Kubernetes has not."""
SERVICE = {"name": "els", "image": "els", "env": [{"name": "ELS_HOST", "value": "0.0.0.0"}]}  # noqa: S104
ALL = {"secrets": ["outbox"], "serviceMonitor": {"enabled": True}, "alerts": {"enabled": True}}
MODES: Mapping[str, Mapping[str, Any]] = {
    "standalone": ALL,
    "sidecar": {**ALL, "mode": "sidecar", "service": SERVICE, "replicas": 1},
}

each_mode = pytest.mark.parametrize("values", MODES.values(), ids=MODES)


def helm(*arguments: str, check: bool = True) -> str:
    program = programs.find("helm") or servers.missing(f"helm: go install {programs.package_of('helm')}")
    return run([program, *arguments], {}, check=check)


def made(folder: Path, values: Mapping[str, Any], version: str = KUBERNETES[-1]) -> Sequence[dict[str, Any]]:
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    target = folder / "made"
    helm(
        "template",
        "my",
        str(CHART),
        f"--kube-version={version}.0",
        f"--values={file}",
        f"--output-dir={target}",
    )
    files = sorted(target.rglob("*.yaml"))
    return [each for path in files for each in yaml.safe_load_all(path.read_text()) if each]


def deployment(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    (found,) = [each for each in made(folder, values) if each["kind"] == "Deployment"]
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


@each_mode
@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_what_it_makes(tmp_path: Path, values: Mapping[str, Any], version: str) -> None:
    helm("lint", "--strict", str(CHART))
    documents = made(tmp_path, values, version)
    kinds = {each["kind"] for each in documents}
    alone = {"NetworkPolicy", "PodDisruptionBudget"} if values is ALL else set()
    assert kinds == {"Deployment", "Job", "Service"} | OWN | alone
    for each in documents:
        if each["kind"] not in OWN:
            kubernetes_validate.validate(each, version, strict=True)


def test_rules_and_monitor_are_of_the_operator(tmp_path: Path) -> None:
    documents = {each["kind"]: each for each in made(tmp_path, ALL)}
    assert {documents[kind]["apiVersion"] for kind in OWN} == {"monitoring.coreos.com/v1"}
    assert documents["PrometheusRule"]["spec"] == yaml.safe_load(
        (DEPLOY / "prometheus" / "rules.yml").read_text()
    )
    (port,) = documents["Service"]["spec"]["ports"]
    (endpoint,) = documents["ServiceMonitor"]["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]
    selector = documents["ServiceMonitor"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= documents["Service"]["metadata"]["labels"].items()


@each_mode
def test_a_relay_has_no_rights_and_time_to_end(tmp_path: Path, values: Mapping[str, Any]) -> None:
    pod = deployment(tmp_path, values)
    (relay,) = [
        each
        for each in (*pod.get("initContainers", ()), *pod["containers"])
        if each["name"] == "outbox-relay"
    ]
    rights = relay["securityContext"]
    assert (rights["runAsNonRoot"], rights["readOnlyRootFilesystem"]) == (True, True)
    assert (rights["allowPrivilegeEscalation"], rights["capabilities"]) == (False, {"drop": ["ALL"]})
    before = int(relay["lifecycle"]["preStop"]["exec"]["command"][-1])
    grace = next(each["value"] for each in relay["env"] if each["name"] == "OUTBOX_SHUTDOWN_GRACE_SECONDS")
    assert pod["terminationGracePeriodSeconds"] > before + float(grace)
    assert {"livenessProbe", "startupProbe", "resources"} <= relay.keys()


def test_a_sidecar_outlives_its_service_and_never_keeps_requests_from_it(tmp_path: Path) -> None:
    pod = deployment(tmp_path, MODES["sidecar"])
    (relay,) = pod["initContainers"]
    assert relay["restartPolicy"] == "Always"
    assert "readinessProbe" not in relay
    assert pod["containers"] == [SERVICE]


def test_it_sets_what_are_settings(tmp_path: Path) -> None:
    (relay,) = deployment(tmp_path, ALL)["containers"]
    settings = {variable.name for variable in Settings.variables({})}
    assert {each["name"] for each in relay["env"]} <= settings
    assert relay["image"] == f"outbox-relay:{VERSION}"


@pytest.mark.parametrize(
    ("values", "says"),
    [({"mode": "beside"}, "mode"), ({"mode": "sidecar"}, "name"), ({"settings": {"KAFKA": "k"}}, "KAFKA")],
)
def test_a_wrong_value_is_refused_by_its_name(tmp_path: Path, values: Mapping[str, Any], says: str) -> None:
    file = tmp_path / "values.json"
    file.write_text(json.dumps(values))
    said = helm("template", str(CHART), f"--values={file}", "--kube-version=1.33.0", check=False)
    assert "values don't meet the specifications of the schema" in said
    assert says in said
