"""Nodes with GPUs that are simulated: what kubelet and scheduler make of the devices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from control_plane.gpu_nodes import GPUS
from control_plane.waiting import eventually
from real_nodes.cluster import RealCluster
from real_nodes.gpus import GPU, Gpus, attached
from real_nodes.pods import pod

pytestmark = [pytest.mark.real_nodes, pytest.mark.slow]

SLICE = "nvidia.com/mig-1g.5gb"


@pytest.fixture(scope="module")
def gpus(cluster: RealCluster) -> Iterator[Gpus]:
    """Two GPUs on node a."""
    with attached(cluster, "a", GPUS["4090"], count=2) as gpus:
        yield gpus


def start(cluster: RealCluster, namespace: str, *names: str, resource: str = GPU) -> None:
    pods = [pod(name, ["serve", ":8080"], namespace=namespace, devices={resource: 1}) for name in names]
    cluster.apply(*pods)
    ready = [f"pod/{name}" for name in names]
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", *ready)


def device(cluster: RealCluster, namespace: str, name: str) -> str:
    command = ["exec", "-n", namespace, name, "--", "/pod", "environment", "NVIDIA_VISIBLE_DEVICES"]
    return cluster.kubectl(*command).strip()


def container(cluster: RealCluster, namespace: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("pod", name, namespace)["status"]["containerStatuses"][0]
    return found


def test_a_node_has_the_devices_and_their_labels(cluster: RealCluster, gpus: Gpus) -> None:
    assert gpus.amounts() == {"capacity": 2, "allocatable": 2}
    labels = cluster.get("node", "node-a")["metadata"]["labels"]
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-GeForce-RTX-4090"


def test_each_pod_gets_a_device_of_its_own_and_one_too_many_waits(
    cluster: RealCluster, gpus: Gpus, namespace: str
) -> None:
    start(cluster, namespace, "first", "second")
    assert {device(cluster, namespace, name) for name in ("first", "second")} == set(gpus.ids)
    cluster.apply(pod("third", ["pause"], namespace=namespace, devices={GPU: 1}))

    def message() -> str:
        third = cluster.get("pod", "third", namespace)
        assert third["status"]["phase"] == "Pending"
        return next((one.get("message", "") for one in third["status"].get("conditions", [])), "")

    assert f"Insufficient {GPU}" in eventually(message, "the scheduler's words", every=0.2)
    cluster.kubectl("delete", "pod", "first", "-n", namespace)
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", "pod/third")


def test_an_unhealthy_device_is_not_given_until_it_is_well(cluster: RealCluster, gpus: Gpus, namespace: str) -> None:
    gpus.set_healthy(0, False)
    gpus.wait_allocatable(1)
    assert gpus.amounts()["capacity"] == 2
    start(cluster, namespace, "server")
    assert device(cluster, namespace, "server") == gpus.ids[1]
    gpus.set_healthy(0, True)
    gpus.wait_allocatable(2)


def test_a_running_pod_says_that_its_device_is_unhealthy(cluster: RealCluster, gpus: Gpus, namespace: str) -> None:
    start(cluster, namespace, "server")
    number = gpus.ids.index(device(cluster, namespace, "server"))

    def told() -> str:
        devices = container(cluster, namespace, "server").get("allocatedResourcesStatus") or [{}]
        health: str = (devices[0].get("resources") or [{}])[0].get("health", "")
        return health

    gpus.set_healthy(number, False)
    eventually(lambda: told() == "Unhealthy", "the pod's device is unhealthy", every=0.2)
    assert container(cluster, namespace, "server")["ready"]
    gpus.set_healthy(number, True)
    eventually(lambda: told() == "Healthy", "the pod's device is well", every=0.2)
    gpus.wait_allocatable(2)


def test_a_kubelet_that_starts_anew_has_its_devices_again_and_pods_stay(
    cluster: RealCluster, gpus: Gpus, namespace: str
) -> None:
    start(cluster, namespace, "server")
    before = container(cluster, namespace, "server")
    registered = gpus.log.read_text().count("is registered")
    gpus.node.kubelet.restart()
    eventually(lambda: gpus.log.read_text().count("is registered") > registered, "registered again", every=0.1)
    cluster.wait_for_nodes(["a"])
    gpus.wait_allocatable(2)
    start(cluster, namespace, "later")
    assert {device(cluster, namespace, name) for name in ("server", "later")} == set(gpus.ids)
    after = container(cluster, namespace, "server")
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def test_slices_of_a_card_are_a_resource_of_their_own(cluster: RealCluster, namespace: str) -> None:
    with attached(cluster, "b", GPUS["a100"], count=3, resource=SLICE) as slices:
        start(cluster, namespace, "sliced", resource=SLICE)
        assert device(cluster, namespace, "sliced") in slices.ids
        assert cluster.get("pod", "sliced", namespace)["spec"]["nodeName"] == "node-b"
    labels = cluster.get("node", "node-b")["metadata"]["labels"]
    assert not [key for key in labels if key.startswith("nvidia.com/")]
