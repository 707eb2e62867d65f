"""One operator on the real control plane: changes of scale, nodes, storage and of what the cluster offers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from control_plane.errors import CommandFailed
from control_plane.operator_process import OperatorProcess, leading
from control_plane.plane import ControlPlane
from control_plane.speech import ADA, CPU, condition, install_definitions, service, wait_condition, wait_serving
from control_plane.waiting import eventually

OPERATOR = "operator-of-changes"
CHANGES_OF_SCALE = 10


@pytest.fixture(scope="module")
def plane(own_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """With our definitions, CPU nodes and a running operator."""
    install_definitions(own_control_plane)
    nodes = own_control_plane.nodes(count=2, prefix="changes")
    kubeconfig = own_control_plane.kubeconfig_for(OPERATOR, ["system:masters"])
    with leading(OperatorProcess(kubeconfig, RESYNC_SECONDS="10")):
        yield own_control_plane
        own_control_plane.kubectl("delete", "ttsservices", "-A", "--all", "--wait=false")
    own_control_plane.delete_nodes(nodes)


def test_each_change_of_scale_is_one_write_per_class_and_none_is_reverted(
    plane: ControlPlane, namespace: str
) -> None:
    first = {**CPU, "name": "first", "maxReplicas": 2}
    plane.apply(service("scaled", namespace, classes=[first, CPU], replicas=1))
    wait_serving(plane, "scaled", namespace)
    spec_generation = plane.get("ttsservice", "scaled", namespace)["metadata"]["generation"]
    mark = plane.audit_mark()
    for change in range(CHANGES_OF_SCALE):
        replicas = 4 if change % 2 == 0 else 1
        plane.kubectl("scale", "ttsservice/scaled", f"--replicas={replicas}", "-n", namespace)

        def split() -> list[int]:
            return [one["spec"]["replicas"] for one in plane.get("deployments", namespace=namespace)]

        eventually(lambda want=replicas: sum(split()) == want, f"{replicas} replicas are asked for")
    writes = list(plane.audit(since=mark, user=OPERATOR, writes=True, namespace=namespace))
    per_class: dict[str, int] = {}
    for one in writes:
        if one.resource == "deployments":
            per_class[one.name] = per_class.get(one.name, 0) + 1
    assert per_class == {"scaled-first": CHANGES_OF_SCALE, "scaled-cpu": CHANGES_OF_SCALE}
    assert {one.subresource for one in writes if one.resource == "ttsservices"} == {"status"}
    live = plane.get("ttsservice", "scaled", namespace)
    assert live["metadata"]["generation"] == spec_generation + CHANGES_OF_SCALE
    wait_serving(plane, "scaled", namespace)


def test_nodes_that_go_and_come_delete_nothing(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("gpu", namespace, classes=[ADA]))
    wait_condition(plane, "gpu", namespace, "ProfileResolved", reason="ProfilesAssumed")
    uid = plane.get("deployment", "gpu-ada", namespace)["metadata"]["uid"]
    scheduled = wait_condition(plane, "gpu", namespace, "Scheduled", "False", within=40)
    assert scheduled["reason"] in ("NoMatchingNode", "InsufficientGPU", "Unschedulable")
    nodes = plane.nodes("4090", prefix="late")
    wait_serving(plane, "gpu", namespace, within=60)
    assert condition(plane, "gpu", namespace, "ProfileResolved")["reason"] == "ProfilesMatched"
    plane.delete_nodes(nodes)
    wait_condition(plane, "gpu", namespace, "Ready", "False", within=60)
    assert plane.get("deployment", "gpu-ada", namespace)["metadata"]["uid"] == uid
    plane.kubectl("delete", "ttsservice", "gpu", "-n", namespace)


def test_what_the_api_server_refuses_is_said(plane: ControlPlane, namespace: str) -> None:
    def with_cache(size: str) -> None:
        source = {"huggingFace": {"repo": "FunAudioLLM/CosyVoice2-0.5B"}}
        model = {"source": source, "cache": {"claim": {"size": size}}}
        plane.apply(service("grown", namespace, classes=[ADA], model=model))

    with_cache("2Gi")
    (claim,) = eventually(lambda: plane.get("persistentvolumeclaims", namespace=namespace), "the claim is there")
    with_cache("3Gi")
    stalled = wait_condition(plane, "grown", namespace, "Stalled", reason="ApplyRefused")
    assert f"PersistentVolumeClaim/{claim['metadata']['name']}" in stalled["message"], "an unbound claim cannot grow"
    assert plane.find("deployment", "grown-ada", namespace), "the rest is made all the same"


def with_claim(namespace: str, *, retain: bool) -> dict[str, Any]:
    model = {"source": {"builtin": {"name": "tiny-en"}}, "cache": {"claim": {"size": "1Gi", "retain": retain}}}
    return service("keeper", namespace, model=model)


def claim_of_keeper(plane: ControlPlane, namespace: str, *, retained: bool, within: float = 30) -> dict[str, Any]:
    """The claim, once it is marked and owned as it shall be."""

    def check() -> dict[str, Any] | None:
        found = plane.find("persistentvolumeclaim", "keeper-models", namespace)
        metadata = found["metadata"] if found else {}
        marked = "ttsfleet.dev/retain" in metadata.get("annotations", {})
        owned = [one["name"] for one in metadata.get("ownerReferences", [])] == ["keeper"]
        return metadata if found and (marked, owned) == (retained, not retained) else None

    return eventually(check, f"the claim is retained: {retained}", within, every=0.2) or {}


def delete_keeper(plane: ControlPlane, namespace: str) -> None:
    plane.kubectl("delete", "ttsservice", "keeper", "-n", namespace)
    eventually(lambda: not plane.get("deployments", namespace=namespace), "its other children are gone", within=60)


@pytest.mark.parametrize("retained", [pytest.param(False, id="no more"), pytest.param(True, id="from now on")])
def test_whether_a_claim_is_retained_can_change(plane: ControlPlane, namespace: str, retained: bool) -> None:
    plane.apply(with_claim(namespace, retain=not retained))
    before = claim_of_keeper(plane, namespace, retained=not retained)
    plane.apply(with_claim(namespace, retain=retained))
    assert claim_of_keeper(plane, namespace, retained=retained)["uid"] == before["uid"]
    assert not condition(plane, "keeper", namespace, "Stalled")
    delete_keeper(plane, namespace)
    if retained:
        assert "deletionTimestamp" not in claim_of_keeper(plane, namespace, retained=True)
    else:
        eventually(lambda: not plane.get("persistentvolumeclaims", namespace=namespace), "the claim went with it")


@pytest.mark.parametrize(
    "retain", [pytest.param(True, id="to keep it"), pytest.param(False, id="to keep it no more")]
)
def test_a_service_that_is_created_again_finds_its_claim(plane: ControlPlane, namespace: str, retain: bool) -> None:
    plane.apply(with_claim(namespace, retain=True))
    before = claim_of_keeper(plane, namespace, retained=True)
    delete_keeper(plane, namespace)
    plane.apply(with_claim(namespace, retain=retain))
    eventually(lambda: plane.find("deployment", "keeper-cpu", namespace), "it runs again")
    assert claim_of_keeper(plane, namespace, retained=retain)["uid"] == before["uid"]
    assert not condition(plane, "keeper", namespace, "Stalled")


def test_a_claim_of_somebody_else_is_left_alone(plane: ControlPlane, namespace: str) -> None:
    foreign = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "keeper-models",
            "namespace": namespace,
            "labels": {"ttsfleet.dev/service": "keeper", "app.kubernetes.io/managed-by": "ttsfleet"},
        },
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    plane.apply(foreign)
    before = plane.get("persistentvolumeclaim", "keeper-models", namespace)
    plane.apply(with_claim(namespace, retain=True))
    stalled = wait_condition(plane, "keeper", namespace, "Stalled", reason="NameConflict")
    assert "PersistentVolumeClaim/keeper-models" in stalled["message"]
    assert plane.get("persistentvolumeclaim", "keeper-models", namespace) == before


def test_a_delete_that_is_refused_is_said_until_it_succeeds(plane: ControlPlane, namespace: str) -> None:
    def with_classes(*names: str) -> dict[str, Any]:
        return service("shrunk", namespace, classes=[{**CPU, "name": name} for name in names])

    def refused() -> bool:
        given = ("delete", "deployment", "shrunk-b", "--dry-run=server", "-n", namespace)
        try:
            plane.kubectl(*given)
        except CommandFailed as error:
            return "deny-deletes" in error.stderr
        return False

    plane.apply(with_classes("a", "b"))
    wait_serving(plane, "shrunk", namespace)
    policy = deny_deletes(namespace)
    plane.apply(*policy)
    try:
        eventually(refused, "the policy acts")
        plane.apply(with_classes("a"))
        stalled = wait_condition(plane, "shrunk", namespace, "Stalled", reason="DeleteRefused")
        assert "Deployment/shrunk-b" in stalled["message"]
        assert "admission policy deny-deletes" in stalled["message"]
        assert wait_condition(plane, "shrunk", namespace, "Ready")["reason"] == "Serving"
    finally:
        for one in policy:
            plane.kubectl("delete", one["kind"], one["metadata"]["name"])
    eventually(lambda: not refused(), "the policy has ended")
    plane.apply(service("shrunk", namespace, classes=[{**CPU, "name": "a"}], replicas=2))
    eventually(lambda: not plane.find("deployment", "shrunk-b", namespace), "it is deleted", within=90, every=0.5)
    eventually(lambda: not condition(plane, "shrunk", namespace, "Stalled"), "the refusal is over", every=0.2)


def deny_deletes(namespace: str) -> list[dict[str, Any]]:
    """A policy that lets nobody delete a Deployment of the namespace."""
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["DELETE"], "resources": ["deployments"]}
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace}}
    constraints = {"namespaceSelector": selector, "resourceRules": [rule]}
    specs = {
        "ValidatingAdmissionPolicy": {"matchConstraints": constraints, "validations": [{"expression": "false"}]},
        "ValidatingAdmissionPolicyBinding": {"policyName": "deny-deletes", "validationActions": ["Deny"]},
    }
    common = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": "deny-deletes"}}
    return [{**common, "kind": kind, "spec": spec} for kind, spec in specs.items()]


def test_a_service_monitor_is_made_where_its_kind_exists(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("monitored", namespace))
    wait_serving(plane, "monitored", namespace)
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com",
            "scope": "Namespaced",
            "names": {"plural": "servicemonitors", "singular": "servicemonitor", "kind": "ServiceMonitor"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    plane.apply(definition)
    try:
        eventually(lambda: plane.find("servicemonitor", "monitored", namespace), "it is made", 40, every=0.5)
        mark = plane.audit_mark()
        plane.kubectl("delete", "servicemonitor", "monitored", "-n", namespace)
        eventually(lambda: plane.find("servicemonitor", "monitored", namespace), "it is made again", 40, every=0.5)
        writes = plane.audit(since=mark, user=OPERATOR, writes=True, namespace=namespace, resource="servicemonitors")
        assert len(list(writes)) == 1
    finally:
        plane.kubectl("delete", "customresourcedefinition", "servicemonitors.monitoring.coreos.com")
    wait_serving(plane, "monitored", namespace)
