"""`spec.hardware`: the classes of machine that the service may run on, in the user's order of preference."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from ttsfleet_operator.api.base import DNS_1123, Struct, check_exactly_one, check_unique_names, refuse
from ttsfleet_operator.api.engine import EngineOverrides

MAX_CLASS_NAME = 20  # "<service>-<class>" must stay within a label value: 40 + 1 + 20 <= 63


class MemoryRange(Struct):
    """Memory of the device in MiB as its driver reports it; both bounds included."""

    min: Annotated[int, Field(ge=1)] | None = None
    max: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> MemoryRange:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise refuse("empty_range", f"min {self.min} exceeds max {self.max}; no device can match")
        return self

    def admits(self, memory_mib: int) -> bool:
        return (self.min is None or memory_mib >= self.min) and (self.max is None or memory_mib <= self.max)


class GPUSelector(Struct):
    """Which GPUs belong to a class. No products = any product."""

    products: tuple[Annotated[str, StringConstraints(min_length=1, max_length=63)], ...] = ()
    memory_mib: MemoryRange | None = Field(default=None, alias="memoryMiB")
    resource_name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=253)] = (
        "nvidia.com/gpu"
    )


class CPUSelector(Struct):
    """The class that needs no device: development, tests and the embedded default."""


class HardwareClass(Struct):
    """One class: one Deployment `<service>-<name>`. One pod uses one device in v1alpha1."""

    name: Annotated[str, StringConstraints(pattern=DNS_1123, max_length=MAX_CLASS_NAME)]
    gpu: GPUSelector | None = None
    cpu: CPUSelector | None = None
    profile: str = ""
    weight: Annotated[int, Field(ge=0, le=1000)] = 1
    min_replicas: Annotated[int, Field(ge=0)] = 0
    max_replicas: Annotated[int, Field(ge=0)] | None = None
    engine: EngineOverrides | None = None

    @model_validator(mode="after")
    def _gpu_or_cpu(self) -> HardwareClass:
        given = [name for name, value in (("gpu", self.gpu), ("cpu", self.cpu)) if value is not None]
        check_exactly_one(f"class {self.name!r}", given, ("gpu", "cpu"))
        return self

    @model_validator(mode="after")
    def _replica_bounds(self) -> HardwareClass:
        if self.max_replicas is not None and self.min_replicas > self.max_replicas:
            raise refuse("replica_bounds", f"minReplicas {self.min_replicas} exceeds maxReplicas {self.max_replicas}")
        return self


class Distribution(Struct):
    """How replicas are split over classes: in list order up to maxReplicas, or by weight."""

    policy: Literal["Priority", "Weighted"] = "Priority"


class HardwareSpec(Struct):
    distribution: Distribution | None = None
    classes: Annotated[tuple[HardwareClass, ...], Field(min_length=1, max_length=16)]

    @model_validator(mode="after")
    def _names_are_identities(self) -> HardwareSpec:
        check_unique_names("classes", (one.name for one in self.classes))
        if (
            self.distribution is not None
            and self.distribution.policy == "Weighted"
            and not any(one.weight for one in self.classes)
        ):
            raise refuse("no_weight", "policy Weighted needs at least one class with a weight above 0")
        return self
