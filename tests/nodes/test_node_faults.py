"""What happens when a part of a node, or a whole node, is lost and comes back. In the order of the harm done."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.waiting import eventually
from real_nodes.cluster import RealCluster
from real_nodes.pods import pod

pytestmark = [pytest.mark.real_nodes, pytest.mark.slow]

# The grace of the controller manager, a look of it, and room for a busy machine.
LOST_WITHIN = 30


def place_server(cluster: RealCluster, namespace: str, node: str) -> dict[str, Any]:
    """A pod that serves on the node, as it is when it is ready."""
    cluster.apply(pod("server", ["serve", ":8080"], node=node, namespace=namespace))
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", "pod/server")
    return server(cluster, namespace)


def server(cluster: RealCluster, namespace: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get("pod", "server", namespace)
    return found


def container(one: dict[str, Any]) -> dict[str, Any]:
    status: dict[str, Any] = one["status"]["containerStatuses"][0]
    return status


def is_ready(cluster: RealCluster, kind: str, name: str, namespace: str | None = None) -> bool:
    conditions = cluster.get(kind, name, namespace)["status"]["conditions"]
    return any((one["type"], one["status"]) == ("Ready", "True") for one in conditions)


def test_a_killed_kubelet_makes_its_node_not_ready_until_it_is_back(cluster: RealCluster, namespace: str) -> None:
    before = container(place_server(cluster, namespace, "node-b"))
    cluster.node("b").kubelet.kill()
    assert cluster.node("b").running() == ["containerd", "kube-proxy"]
    eventually(lambda: not is_ready(cluster, "node", "node-b"), "node-b is not Ready", LOST_WITHIN, 0.2)
    assert is_ready(cluster, "node", "node-a")

    cluster.node("b").kubelet.start()
    cluster.wait_for_nodes(["b"])
    eventually(lambda: is_ready(cluster, "pod", "server", namespace), "the pod is ready again", every=0.2)
    after = container(server(cluster, namespace))
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def test_containers_outlive_a_killed_containerd(cluster: RealCluster, namespace: str) -> None:
    before = container(place_server(cluster, namespace, "node-a"))
    cluster.node("a").containerd.restart()
    eventually(lambda: logs(cluster, namespace) == "listening on :8080\n", "the pod's logs", every=0.2)
    cluster.wait_for_nodes(["a"])
    cluster.apply(pod("later", ["serve", ":8080"], node="node-a", namespace=namespace))
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", "pod/later")
    after = container(server(cluster, namespace))
    assert (after["containerID"], after["restartCount"]) == (before["containerID"], 0)


def logs(cluster: RealCluster, namespace: str) -> str:
    return cluster.kubectl("logs", "-n", namespace, "server")


def test_a_lost_node_is_not_ready_and_its_pods_run_again_after_its_return(
    cluster: RealCluster, namespace: str
) -> None:
    before = container(place_server(cluster, namespace, "node-c"))
    node = cluster.node("c")
    node.kill()
    eventually(lambda: not is_ready(cluster, "node", "node-c"), "node-c is not Ready", LOST_WITHIN, 0.2)
    eventually(lambda: not is_ready(cluster, "pod", "server", namespace), "its pod is not ready", every=0.2)

    node.start()
    cluster.wait_for_nodes(["c"])
    eventually(lambda: is_ready(cluster, "pod", "server", namespace), "the pod is ready again", 60, 0.2)
    after = container(server(cluster, namespace))
    assert after["containerID"] != before["containerID"]
    assert after["restartCount"] == 1


def test_a_node_that_was_stopped_in_order_starts_again(cluster: RealCluster) -> None:
    boot = cluster.get("node", "node-c")["status"]["nodeInfo"]["bootID"]
    cluster.node("c").stop()
    cluster.node("c").start()
    eventually(lambda: cluster.get("node", "node-c")["status"]["nodeInfo"]["bootID"] != boot, "a new boot", 30, 0.2)
    cluster.wait_for_nodes()
