"""`spec.hardware`: the classes of machine that the service may run on, in the user's order of preference."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field, StringConstraints

from ttsfleet_operator.api.base import DNS_1123, DNS_1123_OR_EMPTY, RESOURCE_NAME, ListMap, Struct
from ttsfleet_operator.api.engine import EngineOverrides
from ttsfleet_operator.api.rules import Rule, exactly_one, unique_names

MAX_CLASS_NAME = 20  # "<service>-<class>" must stay within a label value: 40 + 1 + 20 <= 63
MAX_CLASSES = 8  # each has an entry in status, which stays below 8 KiB
MAX_REPLICAS = 10_000

Product: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=63)]


def _empty_range(memory: MemoryRange) -> Mapping[str, object] | None:
    if memory.min is None or memory.max is None or memory.min <= memory.max:
        return None
    return {"min": memory.min, "max": memory.max}


class MemoryRange(Struct):
    """Memory of one device in MiB as its driver reports it (label nvidia.com/gpu.memory); both bounds included."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="empty_range",
            cel="!has(self.min) || !has(self.max) || self.min <= self.max",
            message="min {min} exceeds max {max}; no device can match",
            check=_empty_range,
        ),
    )

    min: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    """Least memory in MiB. Absent = no lower bound."""
    max: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    """Most memory in MiB. Absent = no upper bound."""

    def admits(self, memory_mib: int) -> bool:
        return (self.min is None or memory_mib >= self.min) and (self.max is None or memory_mib <= self.max)


class GPUSelector(Struct):
    """Which GPUs belong to the class. Empty (`gpu: {}`) = any GPU."""

    products: Annotated[tuple[Product, ...], Field(max_length=32)] = ()
    """GPU names: values of the label nvidia.com/gpu.product, or another spelling that the sizing table knows
    (rtx-4090, nvidia-l4). Absent or empty = any product."""
    memory_mib: MemoryRange | None = Field(default=None, alias="memoryMiB")
    """Bounds on the device's memory, e.g. to tell a 10 GB card from a 12 GB one of the same name. Absent = any."""
    resource_name: Annotated[str, StringConstraints(pattern=RESOURCE_NAME, max_length=253)] = "nvidia.com/gpu"
    """Extended resource of which each pod requests one, e.g. nvidia.com/mig-3g.40gb. Absent = nvidia.com/gpu."""


class CPUSelector(Struct):
    """The class that needs no device: development and tests. Has no fields: `cpu: {}`."""


def _replica_bounds(one: HardwareClass) -> Mapping[str, object] | None:
    if one.max_replicas is None or one.min_replicas <= one.max_replicas:
        return None
    return {"minReplicas": one.min_replicas, "maxReplicas": one.max_replicas}


class HardwareClass(Struct):
    """One kind of machine. Each class is a Deployment `<service>-<name>` with a plan of its own; one pod uses one
    device."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        exactly_one("class '{name}'", {"gpu": "gpu", "cpu": "cpu"}, lambda one: {"name": one.name}),
        Rule(
            name="replica_bounds",
            cel="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            message="minReplicas {minReplicas} exceeds maxReplicas {maxReplicas}",
            check=_replica_bounds,
        ),
    )

    name: Annotated[str, StringConstraints(pattern=DNS_1123, max_length=MAX_CLASS_NAME)]
    """Identity of the class and end of its Deployment's name. A changed name is a new class: the old one is
    removed."""
    gpu: GPUSelector | None = None
    """Run on GPUs that match. Exactly one of gpu and cpu."""
    cpu: CPUSelector | None = None
    """Run without a GPU. Exactly one of gpu and cpu."""
    profile: Annotated[str, StringConstraints(pattern=DNS_1123_OR_EMPTY, max_length=63)] = ""
    """Row of the sizing table (built in, or a TTSGPUProfile) to size by. Absent or empty = the best match of the
    device."""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    """Share of the replicas relative to the other classes, with distribution policy Weighted. Absent = 1."""
    min_replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] = 0
    """Replicas that this class gets before any other is filled. Absent = 0."""
    max_replicas: Annotated[int, Field(ge=0, le=MAX_REPLICAS)] | None = None
    """Most replicas of this class. Absent = no bound."""
    engine: EngineOverrides | None = None
    """Engine parameters for this class alone; they win over spec.engine, value by value."""


class Distribution(Struct):
    """How replicas are split over classes."""

    policy: Literal["Priority", "Weighted"] = "Priority"
    """Priority = in list order, each class up to its maxReplicas; Weighted = in proportion to the weights.
    Absent = Priority."""


def _no_weight(hardware: HardwareSpec) -> Mapping[str, object] | None:
    weighted = hardware.distribution is not None and hardware.distribution.policy == "Weighted"
    return {} if weighted and not any(one.weight for one in hardware.classes) else None


class HardwareSpec(Struct):
    """The machines that the service may run on."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        unique_names("classes", "self.classes", lambda hardware: (one.name for one in hardware.classes)),
        Rule(
            name="no_weight",
            cel="!has(self.distribution) || !has(self.distribution.policy) || "
            "self.distribution.policy != 'Weighted' || self.classes.exists(c, !has(c.weight) || c.weight > 0)",
            message="policy Weighted needs at least one class with a weight above 0",
            check=_no_weight,
        ),
    )

    distribution: Distribution | None = None
    """How replicas are split over the classes. Absent = policy Priority."""
    classes: Annotated[tuple[HardwareClass, ...], Field(min_length=1, max_length=MAX_CLASSES), ListMap()]
    """Kinds of machine in order of preference, told apart by name."""
