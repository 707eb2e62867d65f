"""The status on a real control plane: the words of its scheduler, its quota and its admission are understood.

Nothing runs in the pods. What a kubelet would say of them the tests write, on a node that is left to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from control_plane.operator_process import OperatorProcess, leading
from control_plane.plane import ControlPlane
from control_plane.speech import ADA, install_definitions, service, wait_condition, wait_serving
from control_plane.waiting import eventually
from ttsfleet_operator.cli import main


@pytest.fixture(scope="module")
def plane(own_control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """With our definitions, an operator, a node whose pods kwok plays, and `by-hand-0` whose pods nobody plays."""
    install_definitions(own_control_plane)
    nodes = own_control_plane.nodes(count=1, prefix="status")
    nodes += own_control_plane.nodes(count=1, prefix="by-hand", by_hand=True)
    with leading(OperatorProcess(own_control_plane.kubeconfig_for("status-operator", ["system:masters"]))):
        yield own_control_plane
        own_control_plane.kubectl("delete", "ttsservices", "-A", "--all", "--wait=false")
    own_control_plane.delete_nodes(nodes)


def on(node: str) -> dict[str, Any]:
    return {"pod": {"nodeSelector": {"kubernetes.io/hostname": node}}}


def problem(plane: ControlPlane, namespace: str, reason: str) -> Mapping[str, Any]:
    """The problem of the first class, once it has that reason."""

    def check() -> Mapping[str, Any] | None:
        found = plane.find("ttsservice", "narrator", namespace) or {}
        classes = found.get("status", {}).get("classes", [])
        one = classes[0].get("problem", {}) if classes else {}
        assert one.get("reason") == reason, found.get("status")
        return one  # type: ignore[no-any-return]

    return eventually(check, f"the class has problem {reason}", within=40, every=0.2) or {}


def no_account(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    return {"pod": {"serviceAccountName": "nobody"}}


def no_priority(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    return {"pod": {"priorityClassName": "nobody"}}


def no_runtime(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    return {"pod": {"runtimeClassName": "nobody"}}


def full_quota(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    plane.kubectl("create", "quota", "none", "--hard=pods=0", "-n", namespace)
    return {}


def limited(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    spec = {"limits": [{"type": "Container", "max": {"memory": "8Mi"}}]}
    plane.apply(
        {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l", "namespace": namespace}, "spec": spec}
    )
    return {}


def too_many_cores(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": "1000", "memory": "64Mi"}, "limits": {"memory": "4Gi"}}}


def too_much_memory(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    return {"resources": {"requests": {"cpu": "100m", "memory": "900Gi"}, "limits": {"memory": "900Gi"}}}


def no_such_node(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    return on("nowhere")


def no_claim(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "32Gi"}}
    return {"model": {"source": {"pvc": {"claimName": "absent"}}}, "resources": resources}


REFUSED_OR_UNPLACED: dict[str, tuple[Callable[[ControlPlane, str], dict[str, Any]], str, str]] = {
    "service account": (no_account, "ServiceAccountMissing", "ServiceAccount nobody does not exist"),
    "priority class": (no_priority, "PriorityClassMissing", "PriorityClass nobody does not exist"),
    "runtime class": (no_runtime, "RuntimeClassMissing", "RuntimeClass nobody does not exist"),
    "quota": (full_quota, "QuotaExceeded", "quota none of the namespace has not enough pods left"),
    "limit range": (limited, "LimitRangeExceeded", "LimitRange"),
    "cores": (too_many_cores, "InsufficientCPU", "too little CPU free"),
    "memory": (too_much_memory, "InsufficientMemory", "too little memory free"),
    "node selector": (no_such_node, "NoMatchingNode", "none is of this class"),
    "claim": (no_claim, "VolumeNotBound", "claim absent not found"),
}


@pytest.fixture(scope="module")
def refused_or_unplaced(plane: ControlPlane) -> Iterator[dict[str, str]]:
    """The namespace of each scenario. All services are applied at once, since each takes seconds to show."""
    with ExitStack() as stack:
        namespaces = {name: stack.enter_context(plane.namespace()) for name in REFUSED_OR_UNPLACED}
        services = [
            service("narrator", namespaces[name], **make(plane, namespaces[name]))
            for name, (make, _, _) in REFUSED_OR_UNPLACED.items()
        ]
        plane.apply(*services)
        yield namespaces


@pytest.mark.parametrize("name", REFUSED_OR_UNPLACED)
def test_why_there_is_no_pod_or_no_node_for_it(
    plane: ControlPlane, refused_or_unplaced: Mapping[str, str], name: str
) -> None:
    _, reason, words = REFUSED_OR_UNPLACED[name]
    namespace = refused_or_unplaced[name]
    assert words in problem(plane, namespace, reason)["message"]
    assert words in wait_condition(plane, "narrator", namespace, "Ready", "False", reason)["message"]
    assert words in wait_condition(plane, "narrator", namespace, "Scheduled", "False", reason)["message"]


def test_taken_devices_are_told_from_missing_ones(plane: ControlPlane, namespace: str) -> None:
    gpus = plane.nodes("4090", count=1, prefix="status-ada")
    try:
        plane.apply(service("narrator", namespace, classes=[ADA], replicas=2))
        found = problem(plane, namespace, "InsufficientGPU")
        assert "no nvidia.com/gpu is free" in found["message"]
        assert found["pods"] == 1
        assert wait_condition(plane, "narrator", namespace, "Ready")["message"] == "1 of 2 replicas serve"
        wait_condition(plane, "narrator", namespace, "Degraded", reason="InsufficientGPU")
        wait_condition(plane, "narrator", namespace, "Reconciling", reason="Scaling")
    finally:
        plane.kubectl("delete", "ttsservice", "narrator", "-n", namespace)
        plane.delete_nodes(gpus)


def write_status(plane: ControlPlane, namespace: str, containers: list[Any]) -> Mapping[str, Any]:
    """Writes what a kubelet would of the one pod of narrator. The pod's metadata."""

    def scheduled() -> Any:
        pods = plane.get("pod", namespace=namespace, selector="ttsfleet.dev/service=narrator")
        return [one for one in pods if one["spec"].get("nodeName") == "by-hand-0"]

    (pod,) = eventually(scheduled, "the pod has its node")
    status = {"phase": "Pending", "containerStatuses": containers}
    name = pod["metadata"]["name"]
    patch = json.dumps({"status": status})
    plane.kubectl("patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", f"--patch={patch}")
    return pod["metadata"]  # type: ignore[no-any-return]


def write_event(plane: ControlPlane, pod: Mapping[str, Any], reason: str, message: str) -> None:
    """Posts what a kubelet would say of the pod."""
    about = {"apiVersion": "v1", "kind": "Pod", **{key: pod[key] for key in ("name", "namespace", "uid")}}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    plane.apply(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{pod['name']}.{reason.lower()}", "namespace": pod["namespace"]},
            "involvedObject": about,
            "type": "Warning",
            "reason": reason,
            "message": message,
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": "kubelet", "host": "by-hand-0"},
        }
    )


def container(waiting: str, message: str = "", last: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": "runtime",
        "image": "registry.example/tts:1",
        "imageID": "",
        "ready": False,
        "restartCount": 4 if last else 0,
        "state": {"waiting": {"reason": waiting, "message": message}},
        "lastState": {"terminated": last} if last else {},
    }


WRONG_IN_A_POD: dict[str, tuple[dict[str, Any], str, str]] = {
    "image": (container("ErrImagePull", "manifest unknown"), "ImagePullBackOff", "no such image or tag"),
    "image name": (container("InvalidImageName"), "InvalidImageName", "no valid image name"),
    "secret": (
        container("CreateContainerConfigError", 'secret "keys" not found'),
        "CreateContainerConfigError",
        "Secret keys is missing",
    ),
    "memory": (
        container("CrashLoopBackOff", last={"exitCode": 137, "reason": "OOMKilled"}),
        "OOMKilled",
        "memory limit is too small",
    ),
    "crash": (
        container("CrashLoopBackOff", last={"exitCode": 3, "reason": "Error"}),
        "CrashLoopBackOff",
        "exit code 3",
    ),
}


@pytest.fixture(scope="module")
def wrong_in_a_pod(plane: ControlPlane) -> Iterator[dict[str, str]]:
    """As `refused_or_unplaced`: the namespace of each scenario."""
    with ExitStack() as stack:
        namespaces = {name: stack.enter_context(plane.namespace()) for name in WRONG_IN_A_POD}
        plane.apply(*(service("narrator", one, **on("by-hand-0")) for one in namespaces.values()))
        for name, (status, _, _) in WRONG_IN_A_POD.items():
            write_status(plane, namespaces[name], [status])
        yield namespaces


@pytest.mark.parametrize("name", WRONG_IN_A_POD)
def test_what_is_wrong_in_a_pod(plane: ControlPlane, wrong_in_a_pod: Mapping[str, str], name: str) -> None:
    _, reason, words = WRONG_IN_A_POD[name]
    namespace = wrong_in_a_pod[name]
    found = problem(plane, namespace, reason)
    assert words in found["message"]
    assert found["pods"] == 1
    wait_condition(plane, "narrator", namespace, "Ready", "False", reason)
    wait_condition(plane, "narrator", namespace, "Scheduled", "True", "AllScheduled")


def test_missing_mounted_secret_is_read_from_the_kubelets_event(plane: ControlPlane, namespace: str) -> None:
    network = {"apiKeySecretRef": {"name": "keys", "key": "k"}}
    plane.apply(service("narrator", namespace, network=network, **on("by-hand-0")))
    pod = write_status(plane, namespace, [container("ContainerCreating")])
    write_event(plane, pod, "FailedMount", 'MountVolume.SetUp failed for volume "keys" : secret "keys" not found')
    found = problem(plane, namespace, "VolumeMountFailed")
    assert (found["message"], found["pods"]) == ("a volume cannot be mounted: Secret keys is missing", 1)
    wait_condition(plane, "narrator", namespace, "Ready", "False", "VolumeMountFailed")
    wait_condition(plane, "narrator", namespace, "Scheduled", "True", "AllScheduled")
    running = {**container(""), "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
    write_status(plane, namespace, [running])
    eventually(
        lambda: "problem" not in plane.get("ttsservice", "narrator", namespace)["status"]["classes"][0],
        "the problem ends with the mount",
        within=40,
        every=0.2,
    )


def test_unhealthy_device_is_told_while_the_pod_goes_on(plane: ControlPlane, namespace: str) -> None:
    nodes = plane.nodes("4090", count=1, prefix="status-ill", gpus=2)
    patch = json.dumps({"status": {"allocatable": {"nvidia.com/gpu": "1"}}})
    try:
        plane.apply(service("narrator", namespace, classes=[ADA]))
        wait_serving(plane, "narrator", namespace)
        plane.kubectl("patch", "node", *nodes, "--subresource=status", "--type=merge", f"--patch={patch}")
        assert "status-ill-0" in problem(plane, namespace, "DeviceUnhealthy")["message"]
        wait_serving(plane, "narrator", namespace)
        wait_condition(plane, "narrator", namespace, "Ready", "True", "Serving")
    finally:
        plane.delete_nodes(nodes)


def test_child_that_a_quota_refuses(plane: ControlPlane, namespace: str) -> None:
    plane.kubectl("create", "quota", "none", "--hard=count/deployments.apps=0", "-n", namespace)
    plane.apply(service("narrator", namespace))
    words = "quota none of the namespace has not enough count/deployments.apps left"
    for kind, status in (("Ready", "False"), ("Stalled", "True")):
        assert words in wait_condition(plane, "narrator", namespace, kind, status, "QuotaExceeded")["message"]


def test_warning_of_the_plan(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("narrator", namespace, engine={"load_trt": True}, **on("status-0")))
    wait_serving(plane, "narrator", namespace)
    (cpu,) = plane.get("ttsservice", "narrator", namespace)["status"]["classes"]
    assert cpu["warnings"] == ["load_trt true (spec.engine) needs a GPU: no effect here"]


def test_life_of_a_service_in_conditions_and_events(plane: ControlPlane, namespace: str) -> None:
    plane.apply(service("narrator", namespace, replicas=2, **on("status-0")))
    wait_serving(plane, "narrator", namespace, 2)
    plane.kubectl("scale", "ttsservice", "narrator", "-n", namespace, "--replicas=0")
    wait_condition(plane, "narrator", namespace, "Ready", "True", "ScaledToZero")
    plane.kubectl("scale", "ttsservice", "narrator", "-n", namespace, "--replicas=1")
    wait_serving(plane, "narrator", namespace, 1)
    plane.kubectl(
        "patch", "ttsservice", "narrator", "-n", namespace, "--type=merge", '--patch={"spec":{"suspend":true}}'
    )
    wait_condition(plane, "narrator", namespace, "Ready", "True", "Suspended")
    plane.kubectl("wait", "--for=condition=Ready", "ttsservice/narrator", "-n", namespace, "--timeout=5s")

    def reasons() -> set[str]:
        events = plane.get("event", namespace=namespace)
        return {one["reason"] for one in events if one["involvedObject"]["kind"] == "TTSService"}

    expected = {"Starting", "Serving", "ScaledToZero", "Suspended"}
    eventually(lambda: expected <= reasons(), f"Events {expected}", within=10)
    assert not reasons() & {"NotServing", "Stalled"}


def test_command_explains_a_service(plane: ControlPlane, wrong_in_a_pod: Mapping[str, str], capsys: Any) -> None:
    namespace = wrong_in_a_pod["image name"]
    problem(plane, namespace, "InvalidImageName")
    assert main(["status", "narrator", "-n", namespace, "--kubeconfig", str(plane.kubeconfig)]) == 1
    output = capsys.readouterr().out
    assert f"{namespace}/narrator: Stalled" in output
    assert "InvalidImageName: class cpu: registry.example/tts:1 is no valid image name" in output
    assert main(["status", "absent", "-n", namespace, "--kubeconfig", str(plane.kubeconfig)]) == 1
    assert f"there is no TTSService absent in namespace {namespace}" in capsys.readouterr().err
