"""One operator on the real control plane: what it makes of a TTSService, and how it keeps it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from control_plane.operator_process import OperatorProcess, leading
from control_plane.plane import ControlPlane
from control_plane.speech import (
    ADA,
    CPU,
    children,
    condition,
    install_definitions,
    service,
    wait_condition,
    wait_serving,
)
from control_plane.waiting import eventually

OPERATOR = "operator-under-test"


@pytest.fixture(scope="module")
def plane(own_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """With our definitions and CPU nodes."""
    install_definitions(own_control_plane)
    nodes = own_control_plane.nodes(count=2, prefix="reconcile")
    yield own_control_plane
    own_control_plane.kubectl("delete", "ttsservices", "-A", "--all", "--wait=false")
    own_control_plane.delete_nodes(nodes)


@pytest.fixture(scope="module")
def operator(plane: ControlPlane) -> Iterator[OperatorProcess]:
    kubeconfig = plane.kubeconfig_for(OPERATOR, ["system:masters"])
    with leading(OperatorProcess(kubeconfig, RESYNC_SECONDS="10", PROBE_SECONDS="5")) as process:
        yield process


pytestmark = pytest.mark.usefixtures("operator")


def written(plane: ControlPlane, mark: int, namespace: str, resource: str | None = None) -> list[str]:
    """What the operator wrote in a namespace since `mark`, without Leases and Events."""
    found = plane.audit(since=mark, user=OPERATOR, writes=True, resource=resource, namespace=namespace)
    return [f"{one.verb} {one.resource} {one.name}" for one in found if one.resource not in ("leases", "events")]


def deployment(plane: ControlPlane, name: str, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = plane.get("deployment", name, namespace)
    return found


def test_a_service_gets_its_children_and_a_true_status(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("narrator", namespace, replicas=2))
    wait_serving(plane, "narrator", namespace, 2)
    assert condition(plane, "narrator", namespace, "Ready")["reason"] == "Serving"
    found = children(plane, "narrator", namespace)
    kinds = sorted(name.split("/")[0] for name in found)
    assert kinds == ["configmap", "deployment", "networkpolicy", "poddisruptionbudget", "service"]
    assert all(one["owners"] == ["narrator"] for one in found.values())
    live = plane.get("ttsservice", "narrator", namespace)
    assert "finalizers" not in live["metadata"]
    assert "annotations" not in live["metadata"]
    assert live["status"]["url"] == f"http://narrator.{namespace}.svc"
    reasons = {one["reason"] for one in plane.get("events", namespace=namespace)}
    assert "Serving" in reasons


def test_replicas_run_on_the_nodes_of_their_class(plane: ControlPlane, namespace: str) -> None:
    nodes = plane.nodes("4090", count=2, prefix="gpu")
    plane.apply(service("gpu", namespace, classes=[ADA], replicas=2))
    wait_serving(plane, "gpu", namespace, 2)
    pods = plane.get("pods", namespace=namespace)
    assert sorted(pod["spec"]["nodeName"] for pod in pods) == nodes
    status = plane.get("ttsservice", "gpu", namespace)["status"]
    assert (status["classes"][0]["profile"], status["gpuSummary"]) == ("rtx-4090", "ada 2")
    plane.kubectl("delete", "ttsservice", "gpu", "-n", namespace)
    plane.delete_nodes(nodes)


def test_a_change_of_replicas_is_one_write(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("scaled", namespace))
    wait_serving(plane, "scaled", namespace)
    mark = plane.audit_mark()
    plane.kubectl("scale", "ttsservice/scaled", "--replicas=3", "-n", namespace)
    wait_serving(plane, "scaled", namespace, 3)
    assert written(plane, mark, namespace, "deployments") == ["patch deployments scaled-cpu"]
    assert {one.split()[1] for one in written(plane, mark, namespace)} == {"deployments", "ttsservices"}
    statuses = plane.audit(since=mark, user=OPERATOR, writes=True, resource="ttsservices")
    assert {one.subresource for one in statuses} == {"status"}


EDITS = [
    pytest.param("service", "edited", {"spec": {"selector": {"ttsfleet.dev/service": "other"}}}, id="a selector"),
    pytest.param("deployment", "edited-cpu", {"spec": {"revisionHistoryLimit": 9}}, id="a number"),
    pytest.param(
        "deployment",
        "edited-cpu",
        {"spec": {"template": {"spec": {"containers": [{"name": "runtime", "image": "other"}]}}}},
        id="an image",
    ),
    pytest.param("networkpolicy", "edited", {"spec": {"egress": []}}, id="a list"),
    pytest.param(
        "poddisruptionbudget", "edited", {"metadata": {"labels": {"ttsfleet.dev/service": "x"}}}, id="a label"
    ),
]


@pytest.fixture(scope="module")
def edited(plane: ControlPlane, operator: OperatorProcess) -> Iterator[str]:
    """The namespace of a service that serves, `edited`."""
    with plane.namespace() as namespace:
        plane.apply(service("edited", namespace))
        wait_serving(plane, "edited", namespace)
        yield namespace


@pytest.mark.parametrize(("kind", "name", "patch"), EDITS)
def test_an_edited_child_is_repaired(
    plane: ControlPlane, edited: str, kind: str, name: str, patch: dict[str, Any]
) -> None:
    before = children(plane, "edited", edited)
    plane.kubectl("patch", kind, name, "-n", edited, "--type=strategic", f"-p={json.dumps(patch)}")
    eventually(lambda: children(plane, "edited", edited) == before, f"{kind} {name} is repaired")


@pytest.mark.parametrize("kind", ["configmap", "service", "networkpolicy", "poddisruptionbudget", "deployment"])
def test_a_deleted_child_comes_back(plane: ControlPlane, edited: str, kind: str) -> None:
    before = children(plane, "edited", edited)
    plane.kubectl("delete", kind, "-l", "ttsfleet.dev/service=edited", "-n", edited)
    eventually(lambda: children(plane, "edited", edited) == before, f"the {kind} is back")


def test_what_others_add_to_a_child_stays(plane: ControlPlane, edited: str) -> None:
    mark = plane.audit_mark()
    plane.kubectl("annotate", "service/edited", "team=voice", "-n", edited)
    plane.kubectl("annotate", "ttsservice/edited", "team=voice", "-n", edited)
    eventually(lambda: plane.get("ttsservice", "edited", edited)["metadata"]["annotations"], "annotated")
    time.sleep(1.5)  # what must not happen has no event to wait for
    assert plane.get("service", "edited", edited)["metadata"]["annotations"]["team"] == "voice"
    assert written(plane, mark, edited, "services") == []


SHOP = {"matchLabels": {"app": "shop"}}
PODS_OF_SHOP = {
    "metadata": {"labels": SHOP["matchLabels"]},
    "spec": {"containers": [{"name": "runtime", "image": "shop:1"}]},
}


@pytest.mark.parametrize(
    ("api_version", "kind", "name", "spec"),
    [
        pytest.param("v1", "Service", "taken", {"ports": [{"port": 1}]}, id="Service"),
        pytest.param(
            "apps/v1", "Deployment", "taken-cpu", {"selector": SHOP, "template": PODS_OF_SHOP}, id="Deployment"
        ),
        pytest.param("networking.k8s.io/v1", "NetworkPolicy", "taken", {"podSelector": {}}, id="NetworkPolicy"),
        pytest.param("policy/v1", "PodDisruptionBudget", "taken", {"selector": SHOP}, id="PodDisruptionBudget"),
    ],
)
def test_a_foreign_object_of_the_same_name_is_left_alone(
    plane: ControlPlane, namespace: str, api_version: str, kind: str, name: str, spec: dict[str, Any]
) -> None:
    metadata = {"name": name, "namespace": namespace}
    plane.apply({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})

    def without_status() -> dict[str, Any]:
        found = plane.get(kind, name, namespace)
        found["metadata"] = {"uid": found["metadata"]["uid"], "labels": found["metadata"].get("labels")}
        return {part: value for part, value in found.items() if part != "status"}

    before = without_status()
    plane.apply(service("taken", namespace))
    stalled = wait_condition(plane, "taken", namespace, "Stalled", reason="NameConflict")
    assert f"{kind}/{name}" in stalled["message"]
    assert without_status() == before
    assert not plane.get(kind, name, namespace)["metadata"].get("ownerReferences")


def test_a_fight_over_a_field_is_given_up(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("fight", namespace))
    wait_serving(plane, "fight", namespace)

    def limit() -> int:
        return int(deployment(plane, "fight-cpu", namespace)["spec"]["revisionHistoryLimit"])

    ours = limit()
    for round_number in range(3):
        patch = json.dumps({"spec": {"revisionHistoryLimit": 7 + round_number}})
        plane.kubectl("patch", "deployment", "fight-cpu", "-n", namespace, f"-p={patch}")
        eventually(lambda: limit() == ours, "repaired")
    plane.kubectl("patch", "deployment", "fight-cpu", "-n", namespace, '-p={"spec":{"revisionHistoryLimit":6}}')
    degraded = wait_condition(plane, "fight", namespace, "Degraded", reason="FieldConflict")
    assert "revisionHistoryLimit" in degraded["message"]
    assert limit() == 6
    plane.kubectl("delete", "poddisruptionbudget", "fight", "-n", namespace)
    eventually(lambda: plane.find("poddisruptionbudget", "fight", namespace), "other repairs go on")
    assert limit() == 6


def test_foreign_replicas_are_reported_and_not_reverted(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("hpa", namespace))
    wait_serving(plane, "hpa", namespace)
    scaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "foreign", "namespace": namespace},
        "spec": {
            "minReplicas": 2,
            "maxReplicas": 2,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hpa-cpu"},
        },
    }
    plane.apply(scaler)
    degraded = wait_condition(plane, "hpa", namespace, "Degraded", reason="ForeignScaler", within=60)
    assert "HorizontalPodAutoscaler/foreign" in degraded["message"]
    mark = plane.audit_mark()
    plane.kubectl("delete", "service", "hpa", "-n", namespace)
    eventually(lambda: plane.find("service", "hpa", namespace), "the Service is back")
    assert deployment(plane, "hpa-cpu", namespace)["spec"]["replicas"] == 2
    assert written(plane, mark, namespace, "deployments") == []


def test_a_class_that_left_the_spec_is_pruned_with_its_configuration(plane: ControlPlane, namespace: str) -> None:
    other = {**CPU, "name": "spare", "maxReplicas": 1}
    plane.apply(service("pruned", namespace, classes=[other, CPU], replicas=2))
    wait_serving(plane, "pruned", namespace, 2)
    assert len(plane.get("deployments", namespace=namespace)) == 2
    plane.apply(service("pruned", namespace, classes=[CPU], replicas=2))
    eventually(lambda: len(plane.get("deployments", namespace=namespace)) == 1, "the class's Deployment is gone")
    wait_serving(plane, "pruned", namespace, 2)

    def maps() -> list[str]:
        found = plane.get("configmaps", namespace=namespace, selector="ttsfleet.dev/service=pruned")
        return [one["metadata"]["labels"]["ttsfleet.dev/class"] for one in found]

    eventually(lambda: maps() == ["cpu"], "the class's ConfigMap is gone", 40)


def test_a_changed_engine_rolls_the_class_and_keeps_what_may_be_rolled_back_to(
    plane: ControlPlane, namespace: str
) -> None:
    plane.apply(service("rolled", namespace))
    wait_serving(plane, "rolled", namespace)
    first = plane.get("ttsservice", "rolled", namespace)["status"]["classes"][0]["engineConfigMap"]
    plane.apply(service("rolled", namespace, engine={"cache_capacity": 7}))

    def second() -> str:
        name = plane.get("ttsservice", "rolled", namespace)["status"]["classes"][0]["engineConfigMap"]
        return str(name) if name != first else ""

    now = eventually(second, "another plan runs")
    wait_serving(plane, "rolled", namespace)
    assert "cache_capacity: 7" in plane.get("configmap", now, namespace)["data"]["engine.yaml"]
    assert plane.find("configmap", first, namespace), "a ReplicaSet within the history refers to it"


def test_a_paused_service_is_left_as_it_is(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("paused", namespace))
    wait_serving(plane, "paused", namespace)
    plane.kubectl("annotate", "ttsservice/paused", "ttsfleet.dev/paused=true", "-n", namespace)
    eventually(lambda: condition(plane, "paused", namespace, "Ready").get("reason") == "Paused", "paused")
    plane.kubectl("delete", "service", "paused", "-n", namespace)
    plane.kubectl("scale", "ttsservice/paused", "--replicas=2", "-n", namespace)
    time.sleep(1.5)  # what must not happen has no event to wait for
    assert plane.find("service", "paused", namespace) is None
    assert deployment(plane, "paused-cpu", namespace)["spec"]["replicas"] == 1
    plane.kubectl("annotate", "ttsservice/paused", "ttsfleet.dev/paused-", "-n", namespace)
    wait_serving(plane, "paused", namespace, 2)
    assert plane.find("service", "paused", namespace)


def test_a_stored_plan_that_somebody_replaced_is_not_run(plane: ControlPlane, namespace: str) -> None:
    """Whoever may write ConfigMaps need not be allowed to create pods."""
    plane.apply(service("forged", namespace))
    wait_serving(plane, "forged", namespace)
    before = deployment(plane, "forged-cpu", namespace)["spec"]["template"]
    plane.kubectl("annotate", "ttsservice/forged", "ttsfleet.dev/paused=true", "-n", namespace)
    eventually(lambda: condition(plane, "forged", namespace, "Ready").get("reason") == "Paused", "paused")
    stored = plane.get("configmaps", namespace=namespace, selector="ttsfleet.dev/service=forged")[0]
    template = json.loads(stored["data"]["pod-template.json"])
    template["spec"]["hostNetwork"] = True
    stored["data"]["pod-template.json"] = json.dumps(template)
    name = stored["metadata"]["name"]
    kept = {key: stored["metadata"][key] for key in ("name", "namespace", "labels", "annotations", "ownerReferences")}
    plane.kubectl("delete", "configmap", name, "-n", namespace)
    plane.apply({**stored, "metadata": kept})
    plane.kubectl("annotate", "ttsservice/forged", "ttsfleet.dev/paused-", "-n", namespace)
    refused = wait_condition(plane, "forged", namespace, "Stalled", "True")
    assert name in refused["message"]
    assert deployment(plane, "forged-cpu", namespace)["spec"]["template"] == before
    plane.kubectl("delete", "configmap", name, "-n", namespace)
    restored = eventually(lambda: plane.find("configmap", name, namespace), "the plan is stored again", 60)
    assert "hostNetwork" not in restored["data"]["pod-template.json"]
    assert deployment(plane, "forged-cpu", namespace)["spec"]["template"] == before


def test_a_changed_config_map_that_a_service_refers_to_rolls_it(plane: ControlPlane, namespace: str) -> None:
    def bundle(text: str) -> None:
        data = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": namespace}}
        plane.apply({**data, "data": {"ca.crt": text}})

    def template_hash() -> str:
        pods = plane.get("pods", namespace=namespace)
        hashes = {pod["metadata"]["labels"]["pod-template-hash"] for pod in pods}
        return hashes.pop() if len(hashes) == 1 else ""

    bundle("one")
    plane.apply(service("ca", namespace, network={"caBundleConfigMapRef": {"name": "ca", "key": "ca.crt"}}))
    wait_serving(plane, "ca", namespace)
    before = template_hash()
    bundle("two")
    eventually(lambda: template_hash() not in ("", before), "pods with the new bundle", 30)


def test_a_rollout_without_a_spare_device_completes(plane: ControlPlane, namespace: str) -> None:
    nodes = plane.nodes("4090", prefix="single")
    rollout = {"surgeWaitSeconds": 1}
    plane.apply(service("tight", namespace, classes=[ADA], rollout=rollout))
    wait_serving(plane, "tight", namespace)
    before = plane.get("pods", namespace=namespace)[0]["metadata"]["name"]
    plane.apply(service("tight", namespace, classes=[ADA], rollout=rollout, engine={"cache_capacity": 7}))

    def replaced() -> bool:
        names = [pod["metadata"]["name"] for pod in plane.get("pods", namespace=namespace)]
        return len(names) == 1 and names[0] != before

    eventually(replaced, "the only pod is replaced", 40)
    wait_serving(plane, "tight", namespace)

    def strategy() -> object:
        return deployment(plane, "tight-ada", namespace)["spec"]["strategy"]["rollingUpdate"]["maxSurge"]

    eventually(lambda: strategy() == 1, "the next rollout begins with a surge pod again")
    plane.kubectl("delete", "ttsservice", "tight", "-n", namespace)
    plane.delete_nodes(nodes)


def test_a_runtime_of_another_age_is_refused(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("skewed", namespace, runtime={"image": "mirror.example/ttsfleet/runtime:99.1.0"}))
    stalled = wait_condition(plane, "skewed", namespace, "Stalled", reason="VersionSkew")
    assert "99.1.0" in stalled["message"]
    assert children(plane, "skewed", namespace) == {}


def test_a_gpu_profile_is_shown_as_pending_and_rolls_nothing(plane: ControlPlane, namespace: str) -> None:
    nodes = plane.nodes("4090", prefix="profile")
    plane.apply(service("profiled", namespace, classes=[ADA]))
    wait_serving(plane, "profiled", namespace)
    before = deployment(plane, "profiled-ada", namespace)["metadata"]["generation"]
    profile = {
        "apiVersion": "ttsfleet.dev/v1alpha1",
        "kind": "TTSGPUProfile",
        "metadata": {"name": "rtx-4090"},
        "spec": {
            "products": ["NVIDIA-GeForce-RTX-4090"],
            "memoryMiB": 24564,
            "computeCapability": "8.9",
            "engine": {"workers": 1, "decode_process_num": 1},
        },
    }
    plane.apply(profile)
    try:
        eventually(
            lambda: plane.get("ttsservice", "profiled", namespace)["status"]["classes"][0]["pendingPlanHash"],
            "another plan is pending",
        )
        assert deployment(plane, "profiled-ada", namespace)["metadata"]["generation"] == before
    finally:
        plane.kubectl("delete", "ttsgpuprofile", "rtx-4090")
        plane.kubectl("delete", "ttsservice", "profiled", "-n", namespace)
        plane.delete_nodes(nodes)


def test_a_deleted_service_leaves_nothing(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("gone", namespace))
    wait_serving(plane, "gone", namespace)
    plane.kubectl("delete", "ttsservice", "gone", "-n", namespace, "--timeout=20s")
    eventually(lambda: children(plane, "gone", namespace) == {}, "the children are gone", 40)


def test_metrics_tell_of_services_queue_and_writes(
    plane: ControlPlane, operator: OperatorProcess, namespace: str
) -> None:
    reconciles = operator.metric("ttsfleet_reconcile_duration_seconds_count")
    plane.apply(service("counted", namespace))
    wait_serving(plane, "counted", namespace)
    gauge = f'ttsfleet_service_ready{{namespace="{namespace}",service="counted"}}'
    eventually(lambda: operator.metric(gauge) == 1, "the gauge counts it")
    assert operator.metric("ttsfleet_reconcile_duration_seconds_count") > reconciles
    assert operator.metric("ttsfleet_watch_last_event_timestamp_seconds") > 0
    plane.kubectl("delete", "ttsservice", "counted", "-n", namespace)
    eventually(lambda: gauge not in operator.answer("/metrics")[1], "its series are gone")
