"""`TTSGPUProfile` v1alpha1: a row of the sizing table that a platform's admin adds or replaces.

The fields are those of profiles.yaml; the row's name is the object's. `profiles.Profile` is such a spec with a name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from ttsfleet_operator.api.base import CAPABILITY_OR_EMPTY, DNS_1123, Struct
from ttsfleet_operator.api.engine import EngineOverrides
from ttsfleet_operator.api.hardware import Product
from ttsfleet_operator.api.rules import Rule

PROFILE_KIND = "TTSGPUProfile"
CPU_ROW = "cpu"


def _half_a_device(spec: GPUProfileSpec) -> Mapping[str, object] | None:
    return {} if (spec.memory_mib == 0) != (spec.compute_capability == "") else None


def _fp8_too_early(spec: GPUProfileSpec) -> Mapping[str, object] | None:
    fp8 = spec.engine.quant_type == "triton-fp8w8a8-b128"
    too_early = fp8 and spec.compute_capability != "" and spec.capability < (8, 9)
    return {"computeCapability": spec.compute_capability} if too_early else None


def _custom(spec: GPUProfileSpec) -> Mapping[str, object] | None:
    return {} if spec.engine.quant_type == "custom" else None


class GPUProfileSpec(Struct):
    """A device and the engine parameters that suit it."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="half_a_device",
            cel="(self.memoryMiB == 0) == (self.computeCapability == '')",
            message="memoryMiB and computeCapability belong together: both for a GPU, 0 and empty for the row cpu",
            check=_half_a_device,
        ),
        Rule(
            name="fp8_capability",
            cel="!has(self.engine.quant_type) || self.engine.quant_type != 'triton-fp8w8a8-b128' || "
            "self.computeCapability == '' || double(self.computeCapability) >= 8.9",
            message="quant_type triton-fp8w8a8-b128 needs compute capability 8.9, this profile has "
            "{computeCapability}; use triton_int8weight",
            check=_fp8_too_early,
        ),
        Rule(
            name="custom_in_profile",
            cel="!has(self.engine.quant_type) || self.engine.quant_type != 'custom'",
            message="quant_type custom needs the recipe of a service; ask for it in the TTSService",
            check=_custom,
        ),
    )

    products: Annotated[tuple[Product, ...], Field(max_length=64)] = ()
    """Values of the node label nvidia.com/gpu.product that this row covers, e.g. NVIDIA-GeForce-RTX-4090.
    Absent = it is found by its aliases and name alone."""
    aliases: Annotated[tuple[Product, ...], Field(max_length=64)] = ()
    """Other spellings: labels of other platforms, and what people type. Absent = none."""
    memory_mib: Annotated[int, Field(ge=0, le=16_777_216)] = Field(alias="memoryMiB")
    """Memory of the device in MiB as its driver reports it; of two rows for one product the nearest wins. 0 only in
    the row cpu."""
    compute_capability: Annotated[str, StringConstraints(pattern=CAPABILITY_OR_EMPTY, max_length=16)]
    """Compute capability, e.g. "8.9" (quoted). Empty only in the row cpu."""
    priority: Annotated[int, Field(ge=-1000, le=1000)] = 0
    """Of two rows that match equally well the higher priority wins, then the name. Absent = 0."""
    engine: EngineOverrides
    """Engine parameters that suit the device; services override them. Absent values follow the guide's rules."""

    @property
    def capability(self) -> tuple[int, int]:
        """(major, minor); (0, 0) for the CPU."""
        major, _, minor = self.compute_capability.partition(".")
        return (int(major), int(minor)) if major else (0, 0)


class GPUProfileMeta(BaseModel):
    """The metadata that we read."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True, alias_generator=to_camel)

    name: Annotated[str, StringConstraints(pattern=DNS_1123, max_length=63)]
    generation: int = 0


class TTSGPUProfile(Struct):
    """A row of the sizing table: how one model of GPU is used. It replaces the built-in row of the same name, or adds
    one."""

    RULES: ClassVar[tuple[Rule, ...]] = (
        Rule(
            name="name",
            cel=f"self.metadata.name.size() <= 63 && self.metadata.name.matches(r'{DNS_1123}')",
            message="metadata.name must be at most 63 lower-case letters, digits and '-', neither beginning nor "
            "ending with '-'",
        ),
        Rule(
            name="cpu_row",
            cel=f"(self.spec.memoryMiB == 0) == (self.metadata.name == '{CPU_ROW}')",
            message=f"memoryMiB 0 (no device) is for the row {CPU_ROW} alone, which has no other",
            check=lambda one: {} if (one.spec.memory_mib == 0) != (one.metadata.name == CPU_ROW) else None,
        ),
    )

    api_version: Literal["ttsfleet.dev/v1alpha1"]
    kind: Literal["TTSGPUProfile"]
    metadata: GPUProfileMeta
    spec: GPUProfileSpec
    """The device and the engine parameters that suit it."""

    def row(self) -> dict[str, Any]:
        """The row of profiles.yaml that this object stands for."""
        spec = self.spec.model_dump(mode="json", exclude_unset=True)
        return {"name": self.metadata.name, **spec}


def parse_gpu_profile(data: Any) -> TTSGPUProfile:
    """One TTSGPUProfile from parsed data. Raises pydantic's ValidationError."""
    return TTSGPUProfile.model_validate_json(json.dumps(data))
