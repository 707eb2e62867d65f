"""The chart on a real API server: no drift, upgrades that keep resources, permissions, schemas.

On a control plane of its own: the chart owns the definitions that other tests install by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from control_plane import binaries
from control_plane.cluster import Cluster
from control_plane.errors import CommandFailed
from control_plane.helm_release import HelmRelease, Manifest, install_chart
from control_plane.plane import ControlPlane
from control_plane.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "ttsfleet"
NAMESPACE = "ttsfleet-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:ttsfleet"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    if os.environ.get("E2E_KUBECONFIG"):
        pytest.skip("installs and removes cluster-wide objects; not on a given cluster")
    if absent := binaries.missing(("helm", "kubeconform")):
        pytest.skip(f"not built: {', '.join(absent)}; build with `{binaries.BUILD_COMMAND}`")
    with ControlPlane.started() as started:
        yield started


@pytest.fixture(scope="module")
def installation(plane: Cluster, tmp_path_factory: pytest.TempPathFactory) -> HelmRelease:
    return install_chart(plane, CHART, tmp_path_factory.mktemp("helm"), NAMESPACE)


def service(name: str = "narrator", **spec: Any) -> Manifest:
    given = {
        "model": {"source": {"builtin": {"name": "tiny-en"}}},
        "hardware": {"classes": [{"name": "cpu", "cpu": {}}]},
    }
    metadata = {"name": name, "namespace": "speech"}
    return {"apiVersion": "ttsfleet.dev/v1alpha1", "kind": "TTSService", "metadata": metadata, "spec": given | spec}


def differences(desired: object, live: object, path: str = "") -> list[str]:
    """Where `live` does not hold what `desired` says."""
    if isinstance(desired, dict) and isinstance(live, dict):
        return [text for key, value in desired.items() for text in differences(value, live.get(key), f"{path}.{key}")]
    if isinstance(desired, list) and isinstance(live, list) and len(desired) == len(live):
        pairs = enumerate(zip(desired, live, strict=True))
        return [text for index, (one, other) in pairs for text in differences(one, other, f"{path}[{index}]")]
    same = desired == live or (not desired and not live)
    return [] if same else [f"{path}: {desired!r} became {live!r}"]


def marks_of(installation: HelmRelease, manifests: list[Manifest]) -> dict[str, str]:
    """What changes when someone changes an object: controllers write the status of some, so their generation."""
    found = {}
    for one in manifests:
        metadata = installation.live(one)["metadata"]
        mark = metadata.get("generation") or metadata["resourceVersion"]
        found[f"{one['kind']}/{one['metadata']['name']}"] = str(mark)
    return found


def test_every_object_is_kept_by_the_api_server_as_it_was_written(installation: HelmRelease) -> None:
    drift = {
        f"{one['kind']}/{one['metadata']['name']}": found
        for one in installation.objects()
        if (found := differences(one, installation.live(one)))
    }
    assert drift == {}


def test_upgrade_to_the_same_changes_nothing(installation: HelmRelease) -> None:
    before = marks_of(installation, installation.objects())
    assert marks_of(installation, installation.upgrade(CHART)) == before


def test_kustomize_over_helm_changes_nothing_and_neither_does_a_second_time(installation: HelmRelease) -> None:
    folder = str(ROOT / "charts" / "kustomize")
    objects = installation.objects()
    counted = {key: mark for key, mark in marks_of(installation, objects).items() if counts_changes(key)}
    installation.cluster.kubectl("apply", "--server-side", "-k", folder)
    first = marks_of(installation, objects)
    assert {key: first[key] for key in counted} == counted
    installation.cluster.kubectl("apply", "--server-side", "-k", folder)
    assert marks_of(installation, objects) == first


def counts_changes(key: str) -> bool:
    """Kinds with a generation: the others' resource versions count a new field manager too."""
    kinds = ("CustomResourceDefinition", "Deployment", "NetworkPolicy", "PodDisruptionBudget", "Validating")
    return key.startswith(kinds)


def test_rendered_installation_has_no_difference_to_the_cluster(installation: HelmRelease) -> None:
    installation.cluster.kubectl("diff", "--server-side", "-k", str(ROOT / "charts" / "kustomize"))


def test_pod_security_restricted_admits_the_operators_pods(installation: HelmRelease) -> None:
    def pods() -> int:
        selector = "app.kubernetes.io/name=ttsfleet-operator"
        return len(installation.cluster.get("pods", namespace=NAMESPACE, selector=selector))

    eventually(lambda: pods() == 2, "two pods of the operator")


def test_pod_security_restricted_admits_the_pod_of_helm_test(installation: HelmRelease, tmp_path: Path) -> None:
    values = {"test": {"service": "narrator", "apiKeySecretRef": {"name": "keys"}}}
    installation.upgrade(CHART, values)
    try:
        hooks = tmp_path / "hooks.yaml"
        hooks.write_text(installation.helm("get", "hooks", installation.name, "-n", NAMESPACE))
        admitted = installation.cluster.kubectl("create", "--dry-run=server", "-f", str(hooks))
        assert admitted.strip() == "pod/ttsfleet-test created (server dry run)"
    finally:
        installation.upgrade(CHART)


def test_upgrade_to_the_next_release_keeps_services_and_rolls_the_operator_only(
    installation: HelmRelease, tmp_path: Path
) -> None:
    installation.cluster.apply(service("kept"))
    before = installation.cluster.get("ttsservice", "kept", "speech")["metadata"]
    marks = marks_of(installation, installation.objects())
    chart = shutil.copytree(CHART, tmp_path / "ttsfleet")
    text = (chart / "Chart.yaml").read_text().replace("ersion: 0.1.0", "ersion: 0.1.1")
    (chart / "Chart.yaml").write_text(text)
    try:
        after = marks_of(installation, installation.upgrade(chart))
        changed = {key for key in marks if marks[key] != after[key] and counts_changes(key)}
        assert changed == {"Deployment/ttsfleet"}
        metadata = installation.cluster.get("ttsservice", "kept", "speech")["metadata"]
        assert {key: metadata[key] for key in ("uid", "generation", "resourceVersion")} == {
            key: before[key] for key in ("uid", "generation", "resourceVersion")
        }
    finally:
        installation.upgrade(CHART)
        installation.cluster.kubectl("delete", "ttsservice", "kept", "-n", "speech")


def test_uninstall_keeps_definitions_and_services_for_the_next_install(installation: HelmRelease) -> None:
    installation.cluster.apply(service("kept"))
    uid = installation.cluster.get("ttsservice", "kept", "speech")["metadata"]["uid"]
    installation.uninstall()
    try:
        assert installation.cluster.get("ttsservice", "kept", "speech")["metadata"]["uid"] == uid
    finally:
        installation.upgrade(CHART)
    assert installation.cluster.get("ttsservice", "kept", "speech")["metadata"]["uid"] == uid
    installation.cluster.kubectl("delete", "ttsservice", "kept", "-n", "speech")


ALLOWED = [
    ("list", "ttsservices", "speech"),
    ("patch", "ttsservices/status", "speech"),
    ("patch", "deployments.apps", "speech"),
    ("create", "persistentvolumeclaims", "speech"),
    ("delete", "networkpolicies.networking.k8s.io", "speech"),
    ("list", "horizontalpodautoscalers.autoscaling", "speech"),
    ("watch", "nodes", ""),
    ("watch", "ttsgpuprofiles", ""),
    ("update", "leases.coordination.k8s.io/ttsfleet-operator", NAMESPACE),
]
FORBIDDEN = [
    ("get", "secrets", "speech"),
    ("list", "secrets", NAMESPACE),
    ("patch", "ttsservices", "speech"),
    ("update", "ttsservices/status", "speech"),
    ("create", "pods/exec", "speech"),
    ("create", "pods", "speech"),
    ("delete", "pods", "speech"),
    ("create", "rolebindings.rbac.authorization.k8s.io", "speech"),
    ("create", "serviceaccounts/token", "speech"),
    ("patch", "nodes", ""),
    ("patch", "ttsgpuprofiles", ""),
    ("update", "leases.coordination.k8s.io/another", NAMESPACE),
    ("update", "leases.coordination.k8s.io/ttsfleet-operator", "speech"),
]


def may(plane: Cluster, user: str, verb: str, what: str, namespace: str) -> bool:
    resource, *rest = what.split("/")
    slash = ["--subresource", rest[0]] if rest and rest[0] in ("status", "exec", "token", "scale") else []
    target = f"{resource}/{rest[0]}" if rest and not slash else resource
    place = ["-n", namespace] if namespace else []
    try:
        return plane.kubectl("auth", "can-i", verb, target, *slash, *place, "--as", user).strip() == "yes"
    except CommandFailed:
        return False


@pytest.mark.parametrize(("verb", "what", "namespace"), ALLOWED)
def test_operator_may(installation: HelmRelease, verb: str, what: str, namespace: str) -> None:
    assert may(installation.cluster, OPERATOR, verb, what, namespace)


@pytest.mark.parametrize(("verb", "what", "namespace"), FORBIDDEN)
def test_operator_may_not(installation: HelmRelease, verb: str, what: str, namespace: str) -> None:
    assert not may(installation.cluster, OPERATOR, verb, what, namespace)


def test_namespaced_operator_may_act_in_its_namespaces_only(installation: HelmRelease) -> None:
    plane = installation.cluster
    plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "second"}})
    values = {"watchNamespaces": ["speech"], "crds": {"enabled": False}}
    installation.helm("install", "ttsfleet", str(CHART), "-n", "second", values=values)
    try:
        user = "system:serviceaccount:second:ttsfleet"
        assert may(plane, user, "patch", "deployments.apps", "speech")
        assert may(plane, user, "list", "nodes", "")
        assert may(plane, user, "update", "leases.coordination.k8s.io/ttsfleet-operator", "second")
        assert not may(plane, user, "list", "ttsservices", "second")
        assert not may(plane, user, "list", "configmaps", "default")
    finally:
        installation.helm("uninstall", "ttsfleet", "-n", "second")


def test_editors_of_a_namespace_may_edit_and_scale_services(installation: HelmRelease) -> None:
    plane = installation.cluster
    plane.kubectl("create", "rolebinding", "ed", "-n", "speech", "--clusterrole=edit", "--user=ed")
    plane.kubectl("create", "rolebinding", "vi", "-n", "speech", "--clusterrole=view", "--user=vi")
    eventually(lambda: may(plane, "ed", "create", "ttsservices", "speech"), "the aggregation into edit")
    assert may(plane, "ed", "patch", "ttsservices/scale", "speech")
    assert not may(plane, "ed", "patch", "ttsservices/status", "speech")
    assert may(plane, "vi", "list", "ttsservices", "speech")
    assert not may(plane, "vi", "create", "ttsservices", "speech")


def test_kubeconform_accepts_the_chart_and_the_examples_against_this_clusters_schemas(
    installation: HelmRelease, tmp_path: Path
) -> None:
    write_schemas(json.loads(installation.cluster.kubectl("get", "--raw", "/openapi/v2")), tmp_path)
    everything = {"watchNamespaces": ["speech"], "proxy": {"https": "http://p:1"}, "podLabels": {"a": "b"}}
    charts = [
        installation.helm(
            "template", "ttsfleet", str(CHART), "-n", NAMESPACE, "--kube-version", "1.36", values=values
        )
        for values in ({}, everything)
    ]
    examples = [path.read_text() for path in sorted((ROOT / "examples").glob("*.yaml"))]
    folders = [path.read_text() for path in sorted((ROOT / "examples" / "gitops").glob("*/fleet/n*.yaml"))]
    command = [str(binaries.path_of("kubeconform")), "-strict", "-summary", "-schema-location"]
    command.append(str(tmp_path / "{{ .ResourceKind }}{{ .KindSuffix }}.json"))
    text = "\n---\n".join([*charts, *examples, *folders])
    checked = subprocess.run(command, input=text, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Skipped: 0" in checked.stdout


def write_schemas(openapi: Manifest, folder: Path) -> None:
    """The API server's own schemas as kubeconform wants them: a file per kind, unknown keys refused."""
    definitions = openapi["definitions"]
    for definition in definitions.values():
        _refuse_unknown_keys(definition)
    text = json.dumps({"definitions": definitions}).replace("#/definitions/", "_definitions.json#/definitions/")
    (folder / "_definitions.json").write_text(text)
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            parts = [kind["kind"].lower(), kind["group"].split(".")[0], kind["version"]]
            path = folder / ("-".join(part for part in parts if part) + ".json")
            path.write_text(json.dumps({"$ref": f"_definitions.json#/definitions/{name}"}))


def _refuse_unknown_keys(schema: object) -> None:
    if isinstance(schema, list):
        for one in schema:
            _refuse_unknown_keys(one)
    if not isinstance(schema, dict):
        return
    if schema.get("format") == "int-or-string":
        schema.clear()
        schema["type"] = ["string", "integer"]
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema:
        schema["additionalProperties"] = False
    for one in list(schema.values()):
        _refuse_unknown_keys(one)
