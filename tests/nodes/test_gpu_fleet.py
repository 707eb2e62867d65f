"""The operator on real nodes with simulated GPUs: pods get devices of their class, and stay while labels change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.gpu_nodes import GPUS, gpu_labels
from control_plane.operator_process import OperatorProcess, leading
from control_plane.speech import ADA, install_definitions, service, wait_serving
from control_plane.waiting import eventually
from real_nodes.cluster import RealCluster
from real_nodes.gpus import GPU, Gpus, attached
from real_nodes.images import RUNTIME_IMAGE, write_runtime_stand_in

pytestmark = [pytest.mark.real_nodes, pytest.mark.slow]

L4 = {"name": "l4", "gpu": {"products": ["NVIDIA-L4"]}}


@pytest.fixture(scope="module")
def operator(cluster: RealCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """Leading, with a stand-in for the runtime on every node."""
    cluster.import_image(write_runtime_stand_in(Path(tmp_path_factory.mktemp("images")) / "runtime.tar"))
    install_definitions(cluster)
    kubeconfig = cluster.kubeconfig_for("operator", ["system:masters"])
    with leading(OperatorProcess(kubeconfig, RUNTIME_IMAGE=RUNTIME_IMAGE)) as process:
        yield process


@pytest.fixture(scope="module")
def ada(cluster: RealCluster) -> Iterator[Gpus]:
    with attached(cluster, "a", GPUS["4090"]) as gpus:
        yield gpus


@pytest.fixture(scope="module")
def l4(cluster: RealCluster) -> Iterator[Gpus]:
    with attached(cluster, "b", GPUS["l4"]) as gpus:
        yield gpus


def pods(cluster: RealCluster, namespace: str) -> dict[str, tuple[str, str]]:
    """Class and node of the pods that are ready, by uid."""
    return {
        one["metadata"]["uid"]: (one["metadata"]["labels"]["ttsfleet.dev/class"], one["spec"]["nodeName"])
        for one in cluster.get("pods", namespace=namespace)
        if any((each["type"], each["status"]) == ("Ready", "True") for each in one["status"].get("conditions", []))
        and not one["metadata"].get("deletionTimestamp")
    }


@pytest.mark.usefixtures("operator", "ada")
def test_a_relabelled_node_keeps_its_ready_pod_and_takes_the_next_of_its_new_class(
    cluster: RealCluster, l4: Gpus, namespace: str
) -> None:
    cluster.apply(service("narrator", namespace, classes=[ADA, L4], replicas=2))
    wait_serving(cluster, "narrator", namespace, 2, within=60)
    before = pods(cluster, namespace)
    assert sorted(before.values()) == [("ada", "node-a"), ("l4", "node-b")]
    for one in cluster.get("pods", namespace=namespace):
        assert one["spec"]["containers"][0]["resources"]["limits"][GPU] == "1"

    l4.relabel(gpu_labels(GPUS["4090"], 1))
    seen = eventually(lambda: matching(cluster, namespace), "the operator has seen the labels", every=0.2)
    assert "NVIDIA-L4" in seen
    assert pods(cluster, namespace) == before

    cluster.kubectl("delete", "pod", "-n", namespace, "-l", "ttsfleet.dev/class=l4", "--wait=false")
    expected = [("ada", "node-a"), ("ada", "node-b")]
    eventually(
        lambda: sorted(pods(cluster, namespace).values()) == expected, "the replica is of the other class", 90, 0.5
    )
    assert before.keys() & pods(cluster, namespace).keys() == {uid for uid in before if before[uid][0] == "ada"}


@pytest.mark.usefixtures("operator")
def test_an_unhealthy_device_is_told_and_its_ready_pod_stays(cluster: RealCluster, ada: Gpus, namespace: str) -> None:
    cluster.apply(service("narrator", namespace, classes=[ADA]))
    wait_serving(cluster, "narrator", namespace, within=60)
    before = pods(cluster, namespace)

    def problem() -> dict[str, str]:
        classes = cluster.get("ttsservice", "narrator", namespace)["status"]["classes"]
        found: dict[str, str] = classes[0].get("problem", {})
        return found

    ada.set_healthy(0, False)
    told = eventually(problem, "the status tells of the device", every=0.2)
    assert told["reason"] == "DeviceUnhealthy"
    assert "node-a" in told["message"]
    assert pods(cluster, namespace) == before
    ada.set_healthy(0, True)
    eventually(lambda: not problem(), "the problem is over", every=0.2)
    assert pods(cluster, namespace) == before


def matching(cluster: RealCluster, namespace: str) -> str:
    """What the status says of the class that has lost its only node."""
    classes = cluster.get("ttsservice", "narrator", namespace)["status"]["classes"]
    return str(next(one for one in classes if one["name"] == "l4").get("problem", {}).get("message", ""))
