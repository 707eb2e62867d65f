"""What a node offers, read from its labels and allocatable resources. Pure: a Node object in, `NodeFacts` out.

Where labels come from: NVIDIA's GPU feature discovery (nvidia.com/gpu.*), and where it does not run the platform:
GKE, CoreWeave, Karpenter on EKS. The first source that names a product decides. What the labels mean:

- gpu.memory is the whole card's MiB, also when the card is shared; ECC on GDDR6 takes about 6 % off it. Nodes with
  unified memory have none.
- Sharing: `gpu.replicas` allocations per card, strategy mps or time-slicing; without a renamed resource the product
  ends in -SHARED.
- MIG `single`: the product ends in -MIG-<profile>, memory and count are the slices'; uneven slices make it
  -MIG-INVALID. MIG `mixed`: resources nvidia.com/mig-<profile>, each with labels of its own.
- Feature discovery describes one product of a node. Two products on a node show as more devices than `gpu.count`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from ttsfleet_operator.plan import Problem

Sharing: TypeAlias = Literal["none", "mps", "time-slicing"]

MIG_RESOURCE = "nvidia.com/mig-"
GPU_PREFIX = "nvidia.com/gpu"
_WHOLE_GPUS = ("nvidia.com/gpu", "nvidia.com/gpu.shared")
PARTITION_LABEL = "cloud.google.com/gke-gpu-partition-size"
_VOLATILE = frozenset({"nvidia.com/gfd.timestamp"})
_MIB_OF_SLICE_GB = 950  # a slice sold as 5 GB has 4864 MiB, one of 10 GB 9856: below both


@dataclass(frozen=True)
class LabelSource:
    """Labels by which one platform describes a GPU. `mib` is the unit of the memory label; no key = it has none."""

    product: str
    memory: str = ""
    mib: int = 1


FEATURE_DISCOVERY = LabelSource("nvidia.com/gpu.product", "nvidia.com/gpu.memory")
PLATFORM_SOURCES = (
    LabelSource("cloud.google.com/gke-accelerator"),
    LabelSource("gpu.nvidia.com/model", "gpu.nvidia.com/vram", 1000),  # an H100 of 81559 MiB says 81
    LabelSource("karpenter.k8s.aws/instance-gpu-name", "karpenter.k8s.aws/instance-gpu-memory"),
)


@dataclass(frozen=True)
class DeviceFacts:
    """The devices behind one extended resource of a node.

    `count` is what the node can allocate. `memory_mib` is of the card or MIG slice as labelled; `share_mib` of it is
    what one of its `replicas` gets. None or "" = the node does not say. `lost` are those that the node has and cannot
    allocate: their device plugin says that they are unhealthy, or is gone.
    """

    product: str
    memory_mib: int | None
    capability: tuple[int, int] | None
    count: int
    sharing: Sharing = "none"
    replicas: int = 1
    lost: int = 0

    @property
    def share_mib(self) -> int | None:
        return None if self.memory_mib is None else self.memory_mib // self.replicas

    @property
    def is_slice(self) -> bool:
        """Whether this is a part of a card (MIG), whatever the card's row in the sizing table says."""
        return "-MIG-" in self.product


@dataclass(frozen=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True)
class NodeFacts:
    """A node as the plan sees it. Equal facts = nothing that matters has changed.

    `devices` is by resource name (nvidia.com/gpu, nvidia.com/mig-1g.5gb). `problem` says why the node's devices
    cannot be planned for; they are then not counted.
    """

    name: str
    devices: Mapping[str, DeviceFacts] = field(default_factory=dict)
    ready: bool = True
    unschedulable: bool = False
    zone: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    problem: Problem | None = None


def read_node(raw: Mapping[str, Any]) -> NodeFacts:
    """The facts of a Node object as the API gives it."""
    metadata, spec, status = (raw.get(part) or {} for part in ("metadata", "spec", "status"))
    labels = _labels(metadata.get("labels") or {})
    name = str(metadata.get("name", ""))
    allocatable = _extended(status.get("allocatable") or {})
    capacity = _extended(status.get("capacity") or {}) or allocatable
    problem = _problem(name, labels, allocatable, capacity)
    return NodeFacts(
        name=name,
        devices={
            resource: replace(_device(resource, count, labels), lost=max(0, capacity.get(resource, count) - count))
            for resource, count in sorted(allocatable.items())
        },
        ready=any(
            one.get("type") == "Ready" and one.get("status") == "True" for one in status.get("conditions") or ()
        ),
        unschedulable=bool(spec.get("unschedulable", False)),
        zone=labels.get("topology.kubernetes.io/zone", ""),
        labels=labels,
        taints=_taints(spec.get("taints") or ()),
        problem=problem,
    )


def _labels(raw: Mapping[str, str]) -> dict[str, str]:
    """Interned, since thousands of nodes have the same keys and mostly the same values."""
    return {sys.intern(key): sys.intern(str(value)) for key, value in raw.items() if key not in _VOLATILE}


def label_source(labels: Mapping[str, str]) -> LabelSource | None:
    """The source that names this node's product; None when none does."""
    return next((one for one in (FEATURE_DISCOVERY, *PLATFORM_SOURCES) if labels.get(one.product)), None)


def _extended(resources: Mapping[str, Any]) -> dict[str, int]:
    return {
        name: int(str(value))
        for name, value in resources.items()
        if "/" in name and not name.startswith("kubernetes.io/") and str(value).isdigit()
    }


def _taints(raw: Sequence[Mapping[str, Any]]) -> tuple[Taint, ...]:
    taints = (Taint(one.get("key", ""), one.get("value") or "", one.get("effect", "")) for one in raw)
    return tuple(sorted(taints, key=lambda taint: (taint.key, taint.value, taint.effect)))


def _device(resource: str, count: int, labels: Mapping[str, str]) -> DeviceFacts:
    if resource.startswith(MIG_RESOURCE):
        return _mig_device(resource, count, labels)
    source = label_source(labels)
    sharing, replicas = _sharing(labels, GPU_PREFIX, count)
    if source is None:
        return DeviceFacts("", _number(labels.get(FEATURE_DISCOVERY.memory)), None, count, sharing, replicas or 1)
    product, memory = labels[source.product], _number(labels.get(source.memory))
    partition = labels.get(PARTITION_LABEL)
    if partition and source is not FEATURE_DISCOVERY:
        product, memory = f"{product}-MIG-{partition}", _partition_mib(partition)
    elif memory is not None:
        memory *= source.mib
    return DeviceFacts(product, memory or None, _capability(labels), count, sharing, replicas or 1)


def _mig_device(resource: str, count: int, labels: Mapping[str, str]) -> DeviceFacts:
    profile = resource.removeprefix(MIG_RESOURCE)
    card = labels.get(FEATURE_DISCOVERY.product, "").removesuffix("-SHARED")
    product = labels.get(f"{resource}.product") or f"{card}-MIG-{profile}"
    memory = _number(labels.get(f"{resource}.memory")) or _partition_mib(profile)
    sharing, replicas = _sharing(labels, resource, count)
    return DeviceFacts(product, memory, _capability(labels), count, sharing, replicas or 1)


def _sharing(labels: Mapping[str, str], prefix: str, count: int) -> tuple[Sharing, int | None]:
    """(strategy, allocations per device); None where the device is shared by an unknown number."""
    strategy = labels.get(f"{prefix}.sharing-strategy", "")
    replicas = _number(labels.get(f"{prefix}.replicas"))
    if prefix == GPU_PREFIX and FEATURE_DISCOVERY.product not in labels:
        strategy = labels.get("cloud.google.com/gke-gpu-sharing-strategy", "")
        replicas = _number(labels.get("cloud.google.com/gke-max-shared-clients-per-gpu"))
    suffix = labels.get(f"{prefix}.product", "").endswith("-SHARED")
    if strategy in ("", "none") and not suffix and (replicas or 1) == 1:
        return "none", 1
    if not replicas:
        cards = _number(labels.get(f"{prefix}.count"))
        replicas = count // cards if cards and count >= cards else None
    return "mps" if strategy == "mps" else "time-slicing", replicas


def _problem(
    name: str, labels: Mapping[str, str], allocatable: Mapping[str, int], capacity: Mapping[str, int]
) -> Problem | None:
    source = label_source(labels)
    product = labels[source.product] if source else ""
    whole = [resource for resource in _WHOLE_GPUS if capacity.get(resource)]
    if "-MIG-INVALID" in product:
        return Problem(
            "MIGInvalid",
            f"node {name}: its MIG slices are not all equal, or none exist ({product}); make them equal, or use the "
            "mixed strategy and gpu.resourceName nvidia.com/mig-<profile>",
        )
    if not product or not whole:
        return None
    count = allocatable.get(whole[0], 0)
    _, replicas = _sharing(labels, GPU_PREFIX, count)
    if replicas is None:
        return Problem(
            "SharingUnknown",
            f"node {name}: {product} is shared, but label {GPU_PREFIX}.replicas does not say by how many; "
            "update GPU feature discovery or set the label",
        )
    cards, devices = _number(labels.get(f"{GPU_PREFIX}.count")), sum(capacity[resource] for resource in whole)
    if cards is not None and devices > cards * replicas:
        return Problem(
            "MixedGPUs",
            f"node {name} has {devices} devices, of which {cards * replicas} are {product}: several products in one "
            "node cannot be sized for; give the class another node, or the device plugin one resource per product",
        )
    return None


def _capability(labels: Mapping[str, str]) -> tuple[int, int] | None:
    major, minor = (_number(labels.get(f"{GPU_PREFIX}.compute.{part}")) for part in ("major", "minor"))
    return None if major is None or minor is None else (major, minor)


def _partition_mib(partition: str) -> int | None:
    """Memory of a MIG profile from its name, e.g. 1g.5gb."""
    found = re.search(r"\.(\d+)gb", partition)
    return int(found[1]) * _MIB_OF_SLICE_GB if found else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdigit() else None
