"""Nodes that do not exist, with the labels that GPU feature discovery would give them.

Pure: `gpu_node` makes Node objects; plane.py creates them, kwok keeps them ready and plays their pods.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PLAYED_BY_KWOK = "kwok.x-k8s.io/node"


@dataclass(frozen=True)
class Gpu:
    """A GPU as its labels describe it. `memory_mib` is what the driver reports, `capability` CUDA's."""

    product: str
    memory_mib: int
    capability: str
    family: str


GPUS: Mapping[str, Gpu] = {
    "4090": Gpu("NVIDIA-GeForce-RTX-4090", 24564, "8.9", "ada-lovelace"),
    "3080": Gpu("NVIDIA-GeForce-RTX-3080", 10240, "8.6", "ampere"),
    "3080-12gb": Gpu("NVIDIA-GeForce-RTX-3080", 12288, "8.6", "ampere"),
    "a100": Gpu("NVIDIA-A100-SXM4-80GB", 81920, "8.0", "ampere"),
    "a100-40gb": Gpu("NVIDIA-A100-SXM4-40GB", 40960, "8.0", "ampere"),
    "h100": Gpu("NVIDIA-H100-80GB-HBM3", 81559, "9.0", "hopper"),
    "h200": Gpu("NVIDIA-H200", 143771, "9.0", "hopper"),
    "l4": Gpu("NVIDIA-L4", 23034, "8.9", "ada-lovelace"),
    "l40s": Gpu("NVIDIA-L40S", 46068, "8.9", "ada-lovelace"),
    "t4": Gpu("Tesla-T4", 15360, "7.5", "turing"),
}


def gpu_labels(gpu: Gpu, count: int) -> dict[str, str]:
    """What GPU feature discovery writes on a node with `count` of these GPUs, whole and not shared."""
    major, minor = gpu.capability.split(".")
    return {
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.count": str(count),
        "nvidia.com/gpu.product": gpu.product,
        "nvidia.com/gpu.memory": str(gpu.memory_mib),
        "nvidia.com/gpu.family": gpu.family,
        "nvidia.com/gpu.compute.major": major,
        "nvidia.com/gpu.compute.minor": minor,
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.capable": "true" if gpu.capability in ("8.0", "9.0") else "false",
        "nvidia.com/mig.strategy": "single",
    }


def node(
    name: str,
    *,
    gpu: Gpu | None,
    gpus: int = 1,
    zone: str = "zone-a",
    labels: Mapping[str, str | None] | None = None,
    allocatable: Mapping[str, str] | None = None,
    taints: Sequence[Mapping[str, str]] = (),
    by_hand: bool = False,
) -> dict[str, Any]:
    """A Node object. `labels` add to the GPU's; None takes one away. `by_hand` leaves the node and its pods to the
    test: the node says that it is ready, and a pod on it stays as the test writes its status."""
    all_labels: dict[str, str | None] = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": zone,
        **(gpu_labels(gpu, gpus) if gpu else {}),
        **(labels or {}),
    }
    devices = {"nvidia.com/gpu": str(gpus)} if gpu else {}
    resources = {"cpu": "64", "memory": "256Gi", "ephemeral-storage": "1Ti", "pods": "110", **devices}
    resources.update(allocatable or {})
    status: dict[str, Any] = {"allocatable": resources, "capacity": resources}
    if by_hand:
        status["conditions"] = [{"type": "Ready", "status": "True", "reason": "ByHand", "message": "held by a test"}]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {key: value for key, value in all_labels.items() if value is not None},
            "annotations": {} if by_hand else {PLAYED_BY_KWOK: "fake"},
        },
        "spec": {"taints": [dict(taint) for taint in taints]},
        "status": status,
    }
