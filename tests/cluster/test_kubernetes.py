"""cluster/kubernetes: against Kubernetes' schemas and KubeRay's API, and against what we promise."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

VERSION = "1.30"  # the oldest Kubernetes whose schema is kept by kubernetes-validate and that KubeRay supports


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """All mappings inside a document."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from walk(item)
    elif isinstance(value, list):
        for item in value:
            yield from walk(item)


@pytest.fixture(scope="module")
def kubernetes(cluster: Path) -> Path:
    return cluster / "kubernetes"


@pytest.fixture(scope="module")
def services(kubernetes: Path) -> list[dict[str, Any]]:
    """The plain Kubernetes objects."""
    listed = yaml.safe_load((kubernetes / "services" / "kustomization.yaml").read_text())["resources"]
    return [
        document for name in listed for document in yaml.safe_load_all((kubernetes / "services" / name).read_text())
    ]


@pytest.fixture(scope="module")
def raycluster(kubernetes: Path) -> dict[str, Any]:
    return yaml.safe_load((kubernetes / "raycluster" / "raycluster.yaml").read_text())


@pytest.fixture(scope="module")
def rayjob(kubernetes: Path, raycluster: dict[str, Any]) -> dict[str, Any]:
    """The job as kustomize builds it: with the cluster's spec."""
    job = yaml.safe_load((kubernetes / "rayjob" / "rayjob.yaml").read_text())
    job["spec"]["rayClusterSpec"] = raycluster["spec"]
    return job


@pytest.fixture(scope="module")
def templates(raycluster: dict[str, Any], rayjob: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Every pod template of Ray, by name."""
    spec = raycluster["spec"]
    return {
        "head": spec["headGroupSpec"]["template"],
        **{group["groupName"]: group["template"] for group in spec["workerGroupSpecs"]},
        "submitter": rayjob["spec"]["submitterPodTemplate"],
    }


def test_services_fit_the_schemas_of_kubernetes(services: list[dict[str, Any]]) -> None:
    assert len(services) >= 12
    for document in services:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_ray_objects_fit_kuberays_api(raycluster: dict[str, Any], rayjob: dict[str, Any]) -> None:
    schema = json.loads((Path(__file__).parent / "kuberay_v1.json").read_text())
    for document in (raycluster, rayjob):
        jsonschema.validate(document, {**schema, "$ref": f"#/$defs/{document['kind']}"})


def test_pod_templates_of_ray_fit_the_schema_of_kubernetes(templates: dict[str, dict[str, Any]]) -> None:
    assert set(templates) == {"head", "cpu", "gpu", "submitter"}
    for template in templates.values():
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "PodTemplate", "template": template}, VERSION, strict=True
        )


@pytest.mark.parametrize("name", ["services", "raycluster", "rayjob"])
def test_kustomize_builds(
    kubernetes: Path,
    name: str,
    services: list[dict[str, Any]],
    raycluster: dict[str, Any],
    rayjob: dict[str, Any],
) -> None:
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed; the manifests were still checked one by one")
    result = subprocess.run(["kubectl", "kustomize", str(kubernetes / name)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    built = list(yaml.safe_load_all(result.stdout))
    expected = {"services": services, "raycluster": [raycluster], "rayjob": [rayjob]}[name]
    # The images component names the images; everything else is as in the files.
    filled = json.loads(
        json.dumps(expected).replace('"htr-ray-cpu"', '"htr-ray:cpu"').replace('"htr-ray-cuda"', '"htr-ray:cuda"')
    )
    order = lambda item: (item["kind"], item["metadata"]["name"])  # noqa: E731
    assert sorted(built, key=order) == sorted(filled, key=order)


def test_images_are_named_once(kubernetes: Path, services: list[dict[str, Any]], templates: dict[str, Any]) -> None:
    component = yaml.safe_load((kubernetes / "images" / "kustomization.yaml").read_text())
    named = {image["name"] for image in component["images"]}
    used = {item["image"] for item in walk([services, templates]) if isinstance(item.get("image"), str)}
    assert named < used
    assert all(image in named or ":" in image for image in used), "foreign images are pinned"
    for name in ("services", "raycluster", "rayjob"):
        kustomization = yaml.safe_load((kubernetes / name / "kustomization.yaml").read_text())
        assert kustomization["components"] == ["../images"]


def test_workers_scale_from_zero(raycluster: dict[str, Any]) -> None:
    spec = raycluster["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert set(groups) == {"cpu", "gpu"}
    for name, group in groups.items():
        # They have no node selector for spot nodes, so that is what they are.
        assert (
            group["labels"] == {"ray.io/market-type": "on-demand"} and "nodeSelector" not in group["template"]["spec"]
        )
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        # The autoscaler learns from the limits what a node of an empty group would bring.
        assert {"cpu", "memory"} <= set(limits)
        assert ("nvidia.com/gpu" in limits) is (name == "gpu")
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_ray_version_is_the_installed_one_and_asks_for_the_token(raycluster: dict[str, Any], repository: Path) -> None:
    assert raycluster["spec"]["rayVersion"] == ray.__version__
    assert raycluster["spec"]["authOptions"] == {"mode": "token"}
    constraints = repository / "constraints.txt"
    if constraints.exists():
        assert f"ray=={raycluster['spec']['rayVersion']}" in constraints.read_text().splitlines()


def test_nothing_is_open_to_the_world(services: list[dict[str, Any]], raycluster: dict[str, Any]) -> None:
    assert not [item for item in services if item["kind"] in ("Ingress", "Gateway", "HTTPRoute")]
    kinds = [item["spec"]["type"] for item in services if item["kind"] == "Service"]
    assert kinds and set(kinds) == {"ClusterIP"}
    head = raycluster["spec"]["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP" and not head.get("enableIngress")
    for item in walk([services, raycluster]):
        assert "hostPort" not in item and not item.get("hostNetwork")


def test_the_network_is_closed_but_for_the_operator(services: list[dict[str, Any]]) -> None:
    policies = {item["metadata"]["name"]: item["spec"] for item in services if item["kind"] == "NetworkPolicy"}
    assert policies["closed"]["podSelector"] == {} and not policies["closed"].get("ingress")
    outside = {
        name
        for name, spec in policies.items()
        for rule in spec.get("ingress", [])
        for source in rule["from"]
        if "namespaceSelector" in source or "ipBlock" in source
    }
    assert outside == {"head-from-operator"}
    assert policies["head-from-operator"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8265}]
    # A rule without "from" admits everybody.
    assert all(rule.get("from") for spec in policies.values() for rule in spec.get("ingress", []))


def test_secrets_come_from_the_secret(services: list[dict[str, Any]], templates: dict[str, Any]) -> None:
    seen = set()
    for item in walk([services, templates]):
        name = item.get("name", "")
        if isinstance(name, str) and any(word in name for word in ("PASSWORD", "SECRET", "TOKEN", "ACCESS_KEY")):
            reference = item["valueFrom"]["secretKeyRef"]
            assert reference["name"] == "htr-ray-credentials"
            seen.add(reference["key"])
    assert seen == {"POSTGRES_PASSWORD", "S3_ACCESS_KEY", "S3_SECRET_KEY"}
    assert not [item for item in services if item["kind"] == "Secret"]


def test_pods_have_no_rights_that_they_do_not_need(services: list[dict[str, Any]], templates: dict[str, Any]) -> None:
    ours = [item["spec"]["template"]["spec"] for item in services if item["kind"] in ("Deployment", "Job")]
    for pod in ours + [template["spec"] for template in templates.values()]:
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"]["memory"]


def test_a_finished_grid_leaves_no_cluster_behind(rayjob: dict[str, Any]) -> None:
    assert rayjob["spec"]["shutdownAfterJobFinishes"] is True
    assert 0 < rayjob["spec"]["ttlSecondsAfterFinished"] <= 3600


def test_everything_lives_in_one_namespace(
    services: list[dict[str, Any]], raycluster: dict[str, Any], rayjob: dict[str, Any]
) -> None:
    named = [item for item in [*services, raycluster, rayjob] if item["kind"] != "Namespace"]
    assert {item["metadata"]["namespace"] for item in named} == {"htr-ray"}
