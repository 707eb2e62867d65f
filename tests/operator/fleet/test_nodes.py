"""Reading a Node object: which device it offers, as feature discovery and the platforms label it."""

from __future__ import annotations

from typing import Any

import pytest

from ttsfleet_operator.fleet.nodes import DeviceFacts, NodeFacts, Taint, read_node

GPU = "nvidia.com/gpu"


def raw_node(labels: dict[str, str], allocatable: dict[str, int], **more: Any) -> dict[str, Any]:
    resources = {name: str(count) for name, count in allocatable.items()}
    return {
        "metadata": {"name": "n1", "labels": labels},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "15890m", "memory": "64Gi", "pods": "110", **resources},
            "capacity": {"cpu": "16", **resources, **{k: str(v) for k, v in more.get("capacity", {}).items()}},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def gfd(product: str, memory: int | None, capability: str = "8.9", **more: str) -> dict[str, str]:
    """Labels of GPU feature discovery; `more` are leaves below nvidia.com/gpu, `_` for `.` and `-`."""
    major, minor = capability.split(".")
    labels = {
        f"{GPU}.product": product,
        f"{GPU}.compute.major": major,
        f"{GPU}.compute.minor": minor,
    }
    if memory is not None:
        labels[f"{GPU}.memory"] = str(memory)
    return labels | {f"{GPU}.{name.replace('_', '-')}": value for name, value in more.items()}


MIG_MIXED = gfd("NVIDIA-A100-SXM4-40GB", 40960, "8.0", count="1") | {
    "nvidia.com/mig.strategy": "mixed",
    "nvidia.com/mig-1g.5gb.memory": "4864",
    "nvidia.com/mig-1g.5gb.count": "7",
    "nvidia.com/mig-1g.5gb.product": "NVIDIA-A100-SXM4-40GB-MIG-1g.5gb",
}

DEVICES = [
    pytest.param(
        gfd("NVIDIA-GeForce-RTX-4090", 24564, count="2", replicas="1", sharing_strategy="none"),
        {GPU: 2},
        GPU,
        DeviceFacts("NVIDIA-GeForce-RTX-4090", 24564, (8, 9), 2),
        id="whole cards",
    ),
    pytest.param(
        gfd("NVIDIA-L4-SHARED", 23034, count="1", replicas="4", sharing_strategy="time-slicing"),
        {GPU: 4},
        GPU,
        DeviceFacts("NVIDIA-L4-SHARED", 23034, (8, 9), 4, "time-slicing", 4),
        id="time-slicing: the label is the whole card's memory",
    ),
    pytest.param(
        gfd("NVIDIA-L4-SHARED", 23034, count="2"),
        {GPU: 8},
        GPU,
        DeviceFacts("NVIDIA-L4-SHARED", 23034, (8, 9), 8, "time-slicing", 4),
        id="-SHARED without a replicas label: devices by cards",
    ),
    pytest.param(
        gfd("NVIDIA-L4", 23034, count="1", replicas="3", sharing_strategy="mps"),
        {"nvidia.com/gpu.shared": 3},
        "nvidia.com/gpu.shared",
        DeviceFacts("NVIDIA-L4", 23034, (8, 9), 3, "mps", 3),
        id="mps under a renamed resource",
    ),
    pytest.param(
        gfd("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 4864, "8.0", count="7") | {"nvidia.com/mig.strategy": "single"},
        {GPU: 7},
        GPU,
        DeviceFacts("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 4864, (8, 0), 7),
        id="MIG single",
    ),
    pytest.param(
        MIG_MIXED,
        {GPU: 1, "nvidia.com/mig-1g.5gb": 7},
        "nvidia.com/mig-1g.5gb",
        DeviceFacts("NVIDIA-A100-SXM4-40GB-MIG-1g.5gb", 4864, (8, 0), 7),
        id="MIG mixed: the slice's own labels",
    ),
    pytest.param(
        gfd("NVIDIA-A100-SXM4-40GB", 40960, "8.0"),
        {"nvidia.com/mig-3g.20gb": 2},
        "nvidia.com/mig-3g.20gb",
        DeviceFacts("NVIDIA-A100-SXM4-40GB-MIG-3g.20gb", 19000, (8, 0), 2),
        id="MIG mixed without slice labels: from the profile's name",
    ),
    pytest.param(
        gfd("NVIDIA-GB10", None, "12.1", count="1"),
        {GPU: 1},
        GPU,
        DeviceFacts("NVIDIA-GB10", None, (12, 1), 1),
        id="unified memory has no memory label",
    ),
    pytest.param({}, {GPU: 1}, GPU, DeviceFacts("", None, None, 1), id="no labels at all"),
    pytest.param(
        {"cloud.google.com/gke-accelerator": "nvidia-l4"},
        {GPU: 1},
        GPU,
        DeviceFacts("nvidia-l4", None, None, 1),
        id="GKE",
    ),
    pytest.param(
        {
            "cloud.google.com/gke-accelerator": "nvidia-l4",
            "cloud.google.com/gke-gpu-sharing-strategy": "time-sharing",
            "cloud.google.com/gke-max-shared-clients-per-gpu": "2",
        },
        {GPU: 2},
        GPU,
        DeviceFacts("nvidia-l4", None, None, 2, "time-slicing", 2),
        id="GKE with time-sharing",
    ),
    pytest.param(
        {
            "cloud.google.com/gke-accelerator": "nvidia-tesla-a100",
            "cloud.google.com/gke-gpu-partition-size": "1g.5gb",
        },
        {GPU: 7},
        GPU,
        DeviceFacts("nvidia-tesla-a100-MIG-1g.5gb", 4750, None, 7),
        id="GKE with partitions",
    ),
    pytest.param(
        {"gpu.nvidia.com/model": "H100_NVLINK_80GB", "gpu.nvidia.com/vram": "81"},
        {GPU: 8},
        GPU,
        DeviceFacts("H100_NVLINK_80GB", 81000, None, 8),
        id="CoreWeave says thousands of MiB",
    ),
    pytest.param(
        {"karpenter.k8s.aws/instance-gpu-name": "a10g", "karpenter.k8s.aws/instance-gpu-memory": "22888"},
        {GPU: 1},
        GPU,
        DeviceFacts("a10g", 22888, None, 1),
        id="Karpenter",
    ),
    pytest.param(
        gfd("NVIDIA-L4", 23034) | {"cloud.google.com/gke-accelerator": "nvidia-l4"},
        {GPU: 1},
        GPU,
        DeviceFacts("NVIDIA-L4", 23034, (8, 9), 1),
        id="feature discovery comes before the platform",
    ),
]


@pytest.mark.parametrize(("labels", "allocatable", "resource", "expected"), DEVICES)
def test_device_of_a_node(
    labels: dict[str, str], allocatable: dict[str, int], resource: str, expected: DeviceFacts
) -> None:
    node = read_node(raw_node(labels, allocatable))
    assert node.devices[resource] == expected
    assert node.problem is None


@pytest.mark.parametrize(
    ("labels", "allocatable", "capacity", "reason", "message"),
    [
        pytest.param(
            gfd("NVIDIA-A100-SXM4-40GB-MIG-INVALID", 0, "8.0", count="0"),
            {GPU: 0},
            {GPU: 0},
            "MIGInvalid",
            "make them equal, or use the mixed strategy",
            id="uneven MIG slices",
        ),
        pytest.param(
            gfd("NVIDIA-GeForce-RTX-4090", 24564, count="1"),
            {GPU: 2},
            {GPU: 2},
            "MixedGPUs",
            "node n1 has 2 devices, of which 1 are NVIDIA-GeForce-RTX-4090",
            id="two products in one node",
        ),
        pytest.param(
            gfd("NVIDIA-L4-SHARED", 23034, count="1", replicas="4"),
            {GPU: 3},
            {GPU: 8},
            "MixedGPUs",
            "node n1 has 8 devices, of which 4",
            id="two products, shared, and one of them unhealthy",
        ),
        pytest.param(
            gfd("NVIDIA-L4-SHARED", 23034),
            {GPU: 4},
            {GPU: 4},
            "SharingUnknown",
            "does not say by how many",
            id="shared by nobody knows how many",
        ),
    ],
)
def test_node_that_cannot_be_planned_for(
    labels: dict[str, str], allocatable: dict[str, int], capacity: dict[str, int], reason: str, message: str
) -> None:
    problem = read_node(raw_node(labels, allocatable, capacity=capacity)).problem
    assert problem is not None
    assert problem.reason == reason
    assert message in problem.message


def test_unhealthy_device_is_no_mixed_node() -> None:
    node = read_node(raw_node(gfd("NVIDIA-L4", 23034, count="4"), {GPU: 3}, capacity={GPU: 4}))
    assert node.problem is None
    assert node.devices[GPU].count == 3


def test_state_of_a_node_is_read() -> None:
    raw = raw_node({"topology.kubernetes.io/zone": "b"}, {})
    raw["spec"] = {"unschedulable": True, "taints": [{"key": "team", "value": "tts", "effect": "NoSchedule"}]}
    raw["status"]["conditions"] = [
        {"type": "Ready", "status": "Unknown"},
        {"type": "DiskPressure", "status": "False"},
    ]
    node = read_node(raw)
    assert (node.ready, node.unschedulable, node.zone) == (False, True, "b")
    assert node.taints == (Taint("team", "tts", "NoSchedule"),)


def test_heartbeat_and_timestamps_change_no_fact() -> None:
    before = raw_node(gfd("NVIDIA-L4", 23034) | {"nvidia.com/gfd.timestamp": "1"}, {GPU: 1})
    after = raw_node(gfd("NVIDIA-L4", 23034) | {"nvidia.com/gfd.timestamp": "2"}, {GPU: 1})
    after["metadata"]["resourceVersion"] = "99"
    after["status"]["conditions"][0]["lastHeartbeatTime"] = "2026-11-23T10:00:00Z"
    after["status"]["images"] = [{"names": ["a"]}]
    assert read_node(before) == read_node(after)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"metadata": {"name": "n"}, "spec": None, "status": None}, id="nulls"),
        pytest.param(
            {"metadata": {"name": "n", "labels": None}, "status": {"allocatable": None, "conditions": None}},
            id="null parts",
        ),
        pytest.param(
            raw_node({f"{GPU}.product": "NVIDIA-L4", f"{GPU}.memory": "many", f"{GPU}.count": "-1"}, {GPU: 1}),
            id="numbers that are none",
        ),
    ],
)
def test_odd_nodes_are_read_without_an_error(raw: dict[str, Any]) -> None:
    assert isinstance(read_node(raw), NodeFacts)


def test_devices_that_a_node_has_and_cannot_give_are_lost() -> None:
    labels = gfd("NVIDIA-L4", 23034, count="4")
    device = read_node(raw_node(labels, {GPU: 3}, capacity={GPU: 4})).devices[GPU]
    assert (device.count, device.lost) == (3, 1)
